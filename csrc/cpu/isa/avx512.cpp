// Compiled with AVX-512 F, BW, DQ, VL, and those of avx2 (setup.py).
#if defined(__x86_64__)
#define DSA_ISA_NAMESPACE avx512
#define DSA_VECTOR_BYTES 64
#include "peaks.h"
#include "table.h"

namespace dsa::cpu {
const Isa kAvx512 = avx512::make_table("avx512");
const Peaks kAvx512Peaks = avx512::make_peaks();
}  // namespace dsa::cpu
#endif
