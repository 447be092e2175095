// Memory of the device: allocated, or registered by who has it already.
#include <cstring>

#include "driver.h"
#include "driver_device.h"

namespace ptx::driver {
namespace {

// Behind an allocation, so that what runs out of it finds no other.
constexpr uint64_t kGap = 64 << 10;

Result allocate(DevicePointer* out, size_t bytes) {
  return guarded([&] {
    need_context();
    if (!bytes) throw Failure{kInvalidValue, "an allocation of no bytes"};
    if (bytes > uint64_t{1} << 47) throw Failure{kOutOfMemory, "no machine has that much"};
    Memory memory;
    memory.bytes = bytes;
    memory.name = "allocation " + std::to_string(device().allocations++);
    try {
      memory.allocated = Pages(bytes + kGap);
    } catch (const Fault& fault) {
      throw Failure{kOutOfMemory, fault.what()};
    }
    const auto begin = reinterpret_cast<uint64_t>(memory.allocated.data());
    add_memory(begin, std::move(memory), false);
    checked(out, "dptr") = begin;
  });
}

void remove(uint64_t begin, bool allocated, Result otherwise) {
  const auto it = device().memory.find(begin);
  if (it == device().memory.end() || (it->second.allocated.data() != nullptr) != allocated)
    throw Failure{otherwise, hex(begin) + " is not the begin of such memory"};
  device().memory.erase(it);
}

Result release(DevicePointer begin) {
  return guarded([&] {
    need_context();
    if (begin) remove(begin, true, kInvalidValue);
  });
}

Result copy_to_device(DevicePointer to, const void* from, size_t bytes) {
  return guarded([&] {
    need_context();
    if (!bytes) return;
    const Block block = block_at(to, bytes);
    std::memcpy(block.at(to), &checked(static_cast<const char*>(from), "srcHost"), bytes);
    block.set_written(to, bytes);
  });
}

Result copy_to_host(void* to, DevicePointer from, size_t bytes) {
  return guarded([&] {
    need_context();
    if (!bytes) return;
    const Block block = block_at(from, bytes);
    std::memcpy(&checked(static_cast<char*>(to), "dstHost"), block.at(from), bytes);
  });
}

template <class T>
Result set(DevicePointer to, T value, size_t count) {
  return guarded([&] {
    need_context();
    if (!count) return;
    if (to % sizeof(T)) throw Failure{kInvalidValue, "dstDevice is misaligned"};
    const Block block = block_at(to, count * sizeof(T));
    for (size_t i = 0; i < count; ++i) std::memcpy(block.at(to) + i * sizeof(T), &value, sizeof(T));
    block.set_written(to, count * sizeof(T));
  });
}

// Streams run at once whatever is put into them.
Result copy_to_device_async(DevicePointer to, const void* from, size_t bytes, void*) {
  return copy_to_device(to, from, bytes);
}
Result copy_to_host_async(void* to, DevicePointer from, size_t bytes, void*) {
  return copy_to_host(to, from, bytes);
}
Result set_bytes_async(DevicePointer to, unsigned char value, size_t count, void*) {
  return set(to, value, count);
}
Result set_words_async(DevicePointer to, uint32_t value, size_t count, void*) {
  return set(to, value, count);
}

}  // namespace

Entries memory_functions() {
  return {
      entry("cuMemAlloc_v2", allocate),
      entry("cuMemFree_v2", release),
      entry("cuMemcpyHtoD_v2", copy_to_device),
      entry("cuMemcpyHtoDAsync_v2", copy_to_device_async),
      entry("cuMemcpyDtoH_v2", copy_to_host),
      entry("cuMemcpyDtoHAsync_v2", copy_to_host_async),
      entry("cuMemsetD8_v2", set<unsigned char>),
      entry("cuMemsetD8Async", set_bytes_async),
      entry("cuMemsetD32_v2", set<uint32_t>),
      entry("cuMemsetD32Async", set_words_async),
  };
}

}  // namespace ptx::driver

extern "C" {

int32_t ptx_driver_register(void* begin, size_t bytes, const char* name, int32_t read_only,
                            int32_t written) {
  using namespace ptx::driver;
  return guarded([&] {
    if (!begin || !bytes) throw Failure{kInvalidValue, "no memory is registered"};
    Memory memory;
    memory.bytes = bytes;
    memory.name = name ? name : "registered memory";
    memory.read_only = read_only != 0;
    add_memory(reinterpret_cast<uint64_t>(begin), std::move(memory), written != 0);
  });
}

int32_t ptx_driver_unregister(void* begin) {
  using namespace ptx::driver;
  return guarded([&] { remove(reinterpret_cast<uint64_t>(begin), false, kNotRegistered); });
}

}  // extern "C"
