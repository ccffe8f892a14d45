// Included by force into llama.cpp's C++ files where the processor has AMX (see xtask/src/environment.rs).
//
// GCC 12's _tile_loadconfig tells the optimiser that LDTILECFG reads 8 bytes; it reads 64. The stores to the other 56
// are then dropped, the tile shapes are rubbish and the first tile multiplication ends the process with SIGILL.
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)))
#endif
