// The PTX emulator as a device, for tensors in host memory. Python hands its functions over; see
// dsa_kernels/_cuda.py.
#pragma once

#include <string>
#include <vector>

#include "driver.h"

namespace dsa::cuda {

// Fetches the emulator at the first call. Throws with the reason where that fails.
const Driver& emulated_driver();

// Memory of one argument, from its first to its last element.
struct HostMemory {
  void* begin;
  size_t bytes;
  std::string name;
  bool written_by_kernel;
  bool holds_values;  // before the launch
};

// While it lives, the memory is the emulated device's as well. Arguments may overlap.
class HostMemoryRegistration {
 public:
  explicit HostMemoryRegistration(std::vector<HostMemory> memory);
  ~HostMemoryRegistration();
  HostMemoryRegistration(const HostMemoryRegistration&) = delete;
  HostMemoryRegistration& operator=(const HostMemoryRegistration&) = delete;

 private:
  void release();

  std::vector<void*> registered_;
};

}  // namespace dsa::cuda
