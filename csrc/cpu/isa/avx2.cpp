// Compiled with -mavx2 -mfma; same bodies as the scalar level.
#if defined(__x86_64__)
#define DSA_ISA_NAMESPACE avx2
#define DSA_VECTOR_BYTES 32
#include "kernels.h"

namespace dsa::cpu {
const Isa kAvx2 = DSA_ISA_TABLE("avx2");
}
#endif
