// What the bindings use of the C library; `memory.c` has it.
#pragma once
#include <stddef.h>

void *realloc(void *old, size_t size);
void free(void *memory);
_Noreturn void abort(void);
