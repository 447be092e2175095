#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "isa.h"

namespace dsa::cpu {
namespace {

// Levels that this machine supports, best first.
std::vector<const Isa*> supported_levels() {
  std::vector<const Isa*> levels;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels.push_back(&kAvx2);
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
  for (const Isa* isa : supported_levels()) {
    if (forced == nullptr || *forced == '\0' || std::string(forced) == isa->name) return isa;
  }
  return nullptr;
}

}  // namespace

const Isa& current_isa() {
  static const Isa* const isa = pick();
  if (isa == nullptr) {
    throw std::runtime_error("DSA_CPU_ISA: supported levels are " + names(supported_levels()));
  }
  return *isa;
}

}  // namespace dsa::cpu

#define DSA_EXPORT extern "C" __attribute__((visibility("default")))

// The level in use, or null where DSA_CPU_ISA names none that is supported.
DSA_EXPORT const char* dsa_cpu_isa() {
  const dsa::cpu::Isa* isa = dsa::cpu::pick();
  return isa == nullptr ? nullptr : isa->name;
}

DSA_EXPORT const char* dsa_cpu_isa_levels() {
  static const std::string text = dsa::cpu::names(dsa::cpu::supported_levels());
  return text.c_str();
}
