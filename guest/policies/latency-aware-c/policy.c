// Example balancer in C: a request goes to the node that is expected to answer it soonest.
//
// It decides as `../latency-aware` does, which explains the formula. What is different is what C asks for:
//
// - `bindings/` is generated from `wit/policy.wit` and checked in, as `build.sh` says.
// - There is no C library, and none is needed: `memory.c` has the few functions that the bindings call.
// - What a call is handed lies in memory that is taken back as a whole at its end; nothing is freed one by one.
#include "balancer.h"
#include "memory.h"

typedef exports_llambo_policy_balancing_candidates_t candidates_t;
typedef exports_llambo_policy_balancing_request_t request_t;

// One of so many requests goes to any candidate.
#define EXPLORED 64
// Nodes are told apart up to this share of failures; 1 would be an answer never.
#define MAX_FAILURES 0.95f
// As `wit/policy.wit` promises; more are not looked at.
#define MAX_CANDIDATES 32

// What the node's requests took, in microseconds. 0 without history.
static float history(const candidates_t *nodes, uint32_t place) {
  if (nodes->latency_us.ptr[place] > 0.0f) return nodes->latency_us.ptr[place];
  return nodes->ttft_us.ptr[place] > 0.0f ? nodes->ttft_us.ptr[place] : 0.0f;
}

static float least(float a, float b) { return a < b ? a : b; }

static float most(float a, float b) { return a > b ? a : b; }

static float expected_us(const candidates_t *nodes, uint32_t place, float fastest, uint32_t prompt_bytes) {
  float known = history(nodes, place);
  float time = known > 0.0f ? known : fastest;
  float computed = least((float)nodes->cached_bytes.ptr[place] / most((float)prompt_bytes, 1.0f), 1.0f);
  float saved = least(most(nodes->ttft_us.ptr[place], 0.0f), time) * computed;
  float busy = (float)nodes->in_flight.ptr[place] / most((float)nodes->capacity.ptr[place], 1.0f);
  float failures = least(most(nodes->failures.ptr[place], 0.0f), MAX_FAILURES);
  // never quite nothing, so that load still tells two nodes apart that have computed the whole prompt
  return most(time - saved, time / 100.0f) * (1.0f + busy) / (1.0f - failures);
}

static bool choose(const request_t *request, const candidates_t *nodes, uint64_t entropy, uint32_t *choice) {
  float expected[MAX_CANDIDATES];
  uint32_t n = nodes->node.len < MAX_CANDIDATES ? (uint32_t)nodes->node.len : MAX_CANDIDATES;
  if (n == 0) return false;

  // any time will do where none is known: they all get the same
  float fastest = 0.0f;
  for (uint32_t i = 0; i < n; i++) {
    float time = history(nodes, i);
    if (time > 0.0f && (fastest == 0.0f || time < fastest)) fastest = time;
  }
  if (fastest == 0.0f) fastest = 1e6f;

  for (uint32_t i = 0; i < n; i++) {
    expected[i] = expected_us(nodes, i, fastest, request->prompt_bytes);
    if (request->explain) llambo_policy_host_score(i, 1e6f / expected[i]);
  }

  // the first of the best wins; where the list begins is drawn anew each time
  uint32_t first = (uint32_t)(entropy / EXPLORED % n);
  *choice = first;
  if (entropy % EXPLORED == 0) return true;
  for (uint32_t i = 1; i < n; i++) {
    uint32_t place = (first + i) % n;
    if (expected[place] < expected[*choice]) *choice = place;
  }
  return true;
}

bool exports_llambo_policy_balancing_choose(request_t *request, candidates_t *candidates, uint64_t entropy, uint32_t *choice) {
  bool is_chosen = choose(request, candidates, entropy, choice);
  // nothing of the call is looked at after this
  memory_reset();
  return is_chosen;
}
