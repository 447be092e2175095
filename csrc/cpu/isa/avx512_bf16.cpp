// Compiled with AVX-512 BF16 and VBMI, and those of avx512 (setup.py).
#if defined(__x86_64__)
#define DSA_ISA_NAMESPACE avx512_bf16
#define DSA_VECTOR_BYTES 64
#include "peaks.h"
#include "table.h"

namespace dsa::cpu {
const Isa kAvx512Bf16 = avx512_bf16::make_table("avx512_bf16");
const Peaks kAvx512Bf16Peaks = avx512_bf16::make_peaks();
}  // namespace dsa::cpu
#endif
