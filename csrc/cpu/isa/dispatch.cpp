#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "isa.h"

#if defined(__x86_64__)
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#endif

namespace dsa::cpu {
namespace {

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512bf16");
}

// Whether vdpbf16ps runs here although cpuid does not report it, as under hypervisors that hide
// newer features. Tried in a child process, which dies of SIGILL where it does not.
bool executes_bf16_dot() {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGILL, SIG_DFL);
    asm volatile(".byte 0x62, 0xf2, 0x76, 0x48, 0x52, 0xc2" ::: "xmm0");  // zmm0, zmm1, zmm2
    _exit(0);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}
#endif

// Levels that this machine supports, best first.
std::vector<const Isa*> supported_levels() {
  std::vector<const Isa*> levels;
#if defined(__x86_64__)
  // Intel's vdpbf16ps runs at half the rate at which its two FMA units take fp32 (measured:
  // docs/indexer.md), AMD's at twice that rate.
  const bool bf16_is_faster = !__builtin_cpu_is("intel");
  if (has_avx512_bf16() && bf16_is_faster) levels.push_back(&kAvx512Bf16);
  if (has_avx512()) levels.push_back(&kAvx512);
  if (has_avx512_bf16() && !bf16_is_faster) levels.push_back(&kAvx512Bf16);
  if (has_avx2()) levels.push_back(&kAvx2);
#endif
  levels.push_back(&kScalar);
  return levels;
}

std::string names(const std::vector<const Isa*>& levels) {
  std::string text;
  for (const Isa* isa : levels) text += (text.empty() ? "" : ", ") + std::string(isa->name);
  return text;
}

// The level that DSA_CPU_ISA names, the best one without it, null if there is no such level.
const Isa* pick() {
  const char* forced = std::getenv("DSA_CPU_ISA");
  const auto levels = supported_levels();
  if (forced == nullptr || *forced == '\0') return levels.front();
  for (const Isa* isa : levels) {
    if (std::strcmp(forced, isa->name) == 0) return isa;
  }
#if defined(__x86_64__)
  if (std::strcmp(forced, kAvx512Bf16.name) == 0 && has_avx512() &&
      __builtin_cpu_supports("avx512vbmi") && executes_bf16_dot()) {
    return &kAvx512Bf16;
  }
#endif
  return nullptr;
}

const Isa* picked() {
  static const Isa* const isa = pick();
  return isa;
}

}  // namespace

const Isa& current_isa() {
  const Isa* isa = picked();
  if (isa == nullptr) {
    throw std::runtime_error("DSA_CPU_ISA: supported levels are " + names(supported_levels()));
  }
  return *isa;
}

}  // namespace dsa::cpu

#define DSA_EXPORT extern "C" __attribute__((visibility("default")))

// The level in use, or null where DSA_CPU_ISA names none that is supported.
DSA_EXPORT const char* dsa_cpu_isa() {
  const dsa::cpu::Isa* isa = dsa::cpu::picked();
  return isa == nullptr ? nullptr : isa->name;
}

// The levels that may be chosen without DSA_CPU_ISA, best first.
DSA_EXPORT const char* dsa_cpu_isa_levels() {
  static const std::string text = dsa::cpu::names(dsa::cpu::supported_levels());
  return text.c_str();
}
