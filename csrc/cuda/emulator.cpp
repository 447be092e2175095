#include "emulator.h"

#include <algorithm>
#include <mutex>
#include <stdexcept>

namespace dsa::cuda {
namespace {

// As ptx_emulator/csrc/driver.h declares them.
using Find = void* (*)(const char* name);
using Register = int32_t (*)(void* begin, size_t bytes, const char* name, int32_t read_only,
                             int32_t written);
using Unregister = int32_t (*)(void* begin);
using Fetch = const char* (*)();

std::mutex mutex;
Driver driver;
bool fetched = false;
Fetch fetch = nullptr;
Register register_memory = nullptr;
Unregister unregister_memory = nullptr;

std::vector<HostMemory> without_overlaps(std::vector<HostMemory> memory) {
  std::sort(memory.begin(), memory.end(),
            [](const HostMemory& a, const HostMemory& b) { return a.begin < b.begin; });
  std::vector<HostMemory> merged;
  for (HostMemory& m : memory) {
    if (!m.bytes) continue;
    const auto end = static_cast<char*>(m.begin) + m.bytes;
    if (merged.empty()) {
      merged.push_back(std::move(m));
      continue;
    }
    HostMemory& last = merged.back();
    const auto last_end = static_cast<char*>(last.begin) + last.bytes;
    if (m.begin >= last_end) {
      merged.push_back(std::move(m));
      continue;
    }
    last.bytes = static_cast<size_t>(std::max(end, last_end) - static_cast<char*>(last.begin));
    last.name += " and " + m.name;
    last.written_by_kernel |= m.written_by_kernel;
    last.holds_values |= m.holds_values;
  }
  return merged;
}

}  // namespace

const Driver& emulated_driver() {
  const std::lock_guard lock(mutex);
  if (!fetched) {
    const char* problem = fetch ? fetch() : "nobody has said where the emulator is";
    if (problem) throw std::runtime_error(std::string("the PTX emulator cannot run: ") + problem);
    fetched = true;
  }
  return driver;
}

HostMemoryRegistration::HostMemoryRegistration(std::vector<HostMemory> memory) {
  emulated_driver();
  for (const HostMemory& m : without_overlaps(std::move(memory))) {
    const int32_t result =
        register_memory(m.begin, m.bytes, m.name.c_str(), !m.written_by_kernel, m.holds_values);
    if (result != kSuccess) {
      release();
      throw std::runtime_error("the emulator does not take the memory of " + m.name + ": error " +
                               std::to_string(result));
    }
    registered_.push_back(m.begin);
  }
}

HostMemoryRegistration::~HostMemoryRegistration() {
  release();
}

void HostMemoryRegistration::release() {
  for (void* begin : registered_) unregister_memory(begin);
  registered_.clear();
}

}  // namespace dsa::cuda

#define DSA_EXPORT extern "C" __attribute__((visibility("default")))

// `fetch` hands the functions over by dsa_use_emulator and returns null, or says what is wrong.
DSA_EXPORT void dsa_set_emulator_fetch(const char* (*fetch)()) {
  dsa::cuda::fetch = fetch;
}

DSA_EXPORT const char* dsa_use_emulator(void* (*find)(const char*),
                                        int32_t (*add)(void*, size_t, const char*, int32_t,
                                                       int32_t),
                                        int32_t (*remove)(void*)) {
  dsa::cuda::register_memory = add;
  dsa::cuda::unregister_memory = remove;
  return dsa::cuda::driver.load(find);
}
