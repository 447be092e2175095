// Portable level: compiled without ISA flags, vectorised as far as the baseline allows.
#define DSA_ISA_NAMESPACE scalar
#define DSA_VECTOR_BYTES 16
#include "peaks.h"
#include "table.h"

namespace dsa::cpu {
const Isa kScalar = scalar::make_table("scalar");
const Peaks kScalarPeaks = scalar::make_peaks();
}  // namespace dsa::cpu
