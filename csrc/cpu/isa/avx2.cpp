// Compiled with AVX2, FMA and F16C (setup.py).
#if defined(__x86_64__)
#define DSA_ISA_NAMESPACE avx2
#define DSA_VECTOR_BYTES 32
#include "peaks.h"
#include "table.h"

namespace dsa::cpu {
const Isa kAvx2 = avx2::make_table("avx2");
const Peaks kAvx2Peaks = avx2::make_peaks();
}  // namespace dsa::cpu
#endif
