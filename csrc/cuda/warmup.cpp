// What dsa_kernels.warmup calls.
#include <exception>
#include <string>

#include "emulator.h"
#include "launch.h"

// Returns what went wrong, which the next call overwrites, or null.
extern "C" __attribute__((visibility("default"))) const char* dsa_warmup(int ordinal,
                                                                         int emulated) {
  using namespace dsa::cuda;
  static thread_local std::string problem;
  try {
    warm_up({emulated ? emulated_driver() : hardware_driver(), emulated ? 0 : ordinal, nullptr});
    return nullptr;
  } catch (const std::exception& error) {
    problem = error.what();
    return problem.c_str();
  }
}
