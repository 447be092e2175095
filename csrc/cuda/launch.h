// Launches kernels of the code that is built beside the extension. See docs/cuda.md.
#pragma once

#include <stdexcept>
#include <string>

#include "driver.h"

namespace dsa::cuda {

// A device and a stream, on hardware or emulated. While it lives, the device's primary context is
// current in this thread; the one before comes back.
class Target {
 public:
  Target(const Driver& driver, int ordinal, Stream stream);
  ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  const Driver& driver;
  const int ordinal;
  const Stream stream;
  int num_sms = 0;

 private:
  Context before_ = nullptr;
};

struct Shape {
  uint32_t grid[3] = {1, 1, 1};
  uint32_t block = 1;
  uint32_t cluster = 1;  // CTAs along x
  uint32_t shared_bytes = 0;
};

// Throws std::runtime_error with the driver's words unless `result` is success.
void check(const Target& target, Result result, const std::string& what);

// `code` is a stem in the code directory, such as "mqa_logits.sm90a"; `args` point at the
// arguments.
void launch_kernel(const Target& target, const char* code, const char* kernel, const Shape& shape,
                   void** args);

template <class... Args>
void launch(const Target& target, const char* code, const char* kernel, const Shape& shape,
            const Args&... args) {
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&args))...};
  launch_kernel(target, code, kernel, shape, pointers);
}

// Loads every kernel that runs on the target's device, so that launches load nothing: a stream's
// capture allows none of that, and a first call takes its time.
void warm_up(const Target& target);

// Where the fatbins and, beside each, its PTX are: DSA_CUDA_CODE, or `cuda/` beside the extension.
std::string code_directory();

}  // namespace dsa::cuda
