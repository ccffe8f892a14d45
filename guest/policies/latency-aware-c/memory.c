// Memory for one call at a time: handed out one piece after the other, never given back piece by piece, and taken back as a whole when the call ends.
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>

#define PAGE 65536
// Of what needs the most.
#define ALIGNMENT 16

// Where the linker put the end of everything else.
extern uint8_t __heap_base[];

static uintptr_t next;

void memory_reset(void) { next = 0; }

// What the host hands over arrives here. Nothing that it hands over ever grows, so there is nothing to copy.
void *realloc(void *old, size_t size) {
  (void)old;
  if (next == 0) next = (uintptr_t)__heap_base;
  uintptr_t begin = (next + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  uintptr_t end = begin + size;
  if (end < begin) __builtin_trap();
  uintptr_t have = __builtin_wasm_memory_size(0) * PAGE;
  // the host has a limit, and a call that needs more traps
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (size_t)-1) __builtin_trap();
  next = end;
  return (void *)begin;
}

void free(void *memory) { (void)memory; }

void abort(void) { __builtin_trap(); }

// The bindings ask for an object file with the interface in it, in whose place the linker reads `wit/policy.wit`.
void __component_type_object_force_link_balancer(void) {}
