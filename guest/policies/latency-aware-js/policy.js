// Example balancer in JavaScript: a request goes to the node that is expected to answer it soonest.
//
// It decides as `../latency-aware` does, which explains the formula. What is different is what JavaScript asks for:
//
// - `kebab-case` of the interface is `camelCase` here; an `option` is a value or none (`undefined` or `null`).
// - A `u64` is a BigInt, or a number that is exact up to 2^53 and negative from 2^63, as the interpreter likes. Of `entropy` only the upper bits are good for
//   anything then; `BigInt.asUintN` brings both to one form.
// - The module brings an interpreter along. It is started once, while the module is built, and what the top level of this file computes is kept in it; the
//   host can be called from within `choose` only.
// - An exception is a trap: llambo decides in its place.
import * as host from 'llambo:policy/host@0.1.0';

/** This share of the requests goes to any candidate. */
const EXPLORED = 1 / 64;
/** Nodes are told apart up to this share of failures; 1 would be an answer never. */
const MAX_FAILURES = 0.95;

// some builders name each function of an interface, others put them all into one object
const { score } = host.default ?? host;

/** What the node's requests took, in microseconds. Undefined without history. */
const history = (nodes, place) => [nodes.latencyUs[place], nodes.ttftUs[place]].find((time) => time > 0);

/** A number from 0 up to, but not, 1. */
const fraction = (entropy) => Number(BigInt.asUintN(64, BigInt(entropy)) >> 12n) / 2 ** 52;

function expectedUs(nodes, place, fastest, promptBytes) {
  const time = history(nodes, place) ?? fastest;
  const computed = Math.min(nodes.cachedBytes[place], promptBytes) / Math.max(promptBytes, 1);
  const saved = Math.min(Math.max(nodes.ttftUs[place], 0), time) * computed;
  const busy = nodes.inFlight[place] / Math.max(nodes.capacity[place], 1);
  const failures = Math.min(Math.max(nodes.failures[place], 0), MAX_FAILURES);
  // never quite nothing, so that load still tells two nodes apart that have computed the whole prompt
  return (Math.max(time - saved, time / 100) * (1 + busy)) / (1 - failures);
}

export const balancing = {
  choose(request, nodes, entropy) {
    const n = nodes.node.length;
    if (n === 0) return undefined;

    // any time will do where none is known: they all get the same
    const places = Array.from({ length: n }, (_, place) => place);
    const known = places.map((place) => history(nodes, place)).filter((time) => time !== undefined);
    const fastest = known.length > 0 ? Math.min(...known) : 1e6;
    const expected = places.map((place) => expectedUs(nodes, place, fastest, request.promptBytes));
    if (request.explain) expected.forEach((time, place) => score(place, 1e6 / time));

    const chance = fraction(entropy);
    if (chance < EXPLORED) return Math.floor((chance / EXPLORED) * n);
    // the first of the best wins; where the list begins is drawn anew each time
    let best = Math.floor(((chance - EXPLORED) / (1 - EXPLORED)) * n);
    for (let step = 1, place = best + 1; step < n; step += 1, place += 1) {
      if (expected[place % n] < expected[best]) best = place % n;
    }
    return best;
  },
};
