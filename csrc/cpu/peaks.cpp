// The machine's limits, for the benchmarks, which call this through ctypes: threads of Python's
// that do so run side by side.

#include <cstring>

#include "isa/isa.h"
#include "isa/peaks_table.h"

namespace dsa::cpu {
namespace {

const Peaks& current_peaks() {
#if defined(__x86_64__)
  const char* name = current_isa().name;
  if (std::strcmp(name, kAvx512Bf16.name) == 0) return kAvx512Bf16Peaks;
  if (std::strcmp(name, kAvx512.name) == 0) return kAvx512Peaks;
  if (std::strcmp(name, kAvx2.name) == 0) return kAvx2Peaks;
#endif
  return kScalarPeaks;
}

}  // namespace
}  // namespace dsa::cpu

// kind "fma" or "bf16_dot": does `n` iterations on registers and returns how many FLOPs those were.
// kind "read": reads the `bytes` (a multiple of 512) at `data` `n` times and returns how many
// bytes. At the ISA level in use; 0 where that has no such operation, -1 for any other kind.
extern "C" __attribute__((visibility("default"))) int64_t dsa_cpu_peak(const char* kind, int64_t n,
                                                                       const void* data,
                                                                       int64_t bytes) {
  const dsa::cpu::Peaks& peaks = dsa::cpu::current_peaks();
  if (std::strcmp(kind, "fma") == 0) return peaks.fma(n);
  if (std::strcmp(kind, "bf16_dot") == 0) return peaks.bf16_dot == nullptr ? 0 : peaks.bf16_dot(n);
  if (std::strcmp(kind, "read") == 0) {
    [[maybe_unused]] static volatile uint64_t seen;  // or the reading could be left out
    seen = peaks.read(data, bytes, n);
    return n * bytes;
  }
  return -1;
}
