#include <cstdlib>
#include <stdexcept>
#include <string>

#include "isa.h"

namespace dsa::cpu {
namespace {

struct Level {
  const Isa* isa;
  bool supported;
};

const Isa& pick() {
  const Level levels[] = {
#if defined(__x86_64__)
      {&kAvx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
      {&kScalar, true},
  };
  const char* forced = std::getenv("DSA_CPU_ISA");
  std::string supported;
  for (const Level& level : levels) {
    if (!level.supported) continue;
    if (forced == nullptr || *forced == '\0' || std::string(forced) == level.isa->name) {
      return *level.isa;
    }
    supported += supported.empty() ? level.isa->name : std::string(", ") + level.isa->name;
  }
  throw std::runtime_error("DSA_CPU_ISA=" + std::string(forced) +
                           " is not a level that this machine supports; supported: " + supported);
}

}  // namespace

const Isa& current_isa() {
  static const Isa& isa = pick();
  return isa;
}

}  // namespace dsa::cpu

extern "C" __attribute__((visibility("default"))) const char* dsa_cpu_isa() {
  try {
    return dsa::cpu::current_isa().name;
  } catch (const std::exception&) {
    return nullptr;
  }
}
