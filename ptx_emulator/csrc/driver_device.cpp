#include "driver_device.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "limits.h"
#include "program.h"

namespace ptx::driver {
namespace {

thread_local Failure last{kSuccess, {}};

int choice(const char* variable, std::initializer_list<const char*> values, int otherwise) {
  const char* text = std::getenv(variable);
  if (!text || !*text) return otherwise;
  int index = 0;
  std::string all;
  for (const char* value : values) {
    if (std::string(text) == value) return index;
    all += (index++ ? ", " : "") + std::string(value);
  }
  throw Failure{kInvalidValue,
                std::string(variable) + " must be one of " + all + "; it is " + text};
}

Result code_of(const Fault& fault) {
  switch (fault.kind) {
    case Fault::memory: return kIllegalAddress;
    case Fault::deadlock: return kLaunchTimeout;
    case Fault::limit: return kInvalidValue;
    case Fault::unsupported: return kNotSupported;
    default: return kLaunchFailed;
  }
}

bool holds(uint64_t begin, uint64_t size, uint64_t address, uint64_t bytes) {
  return address >= begin && address - begin <= size && bytes <= size - (address - begin);
}

}  // namespace

Device& device() {
  static Device the_device;
  return the_device;
}

void read_environment(Device& d) {
  d.options.mode = static_cast<Mode>(choice("PTX_EMULATOR_MODE", {"eager", "random", "late"}, 0));
  d.options.races = choice("PTX_EMULATOR_RACES", {"0", "1"}, 1) != 0;
  d.options.coarse_fp8 = choice("PTX_EMULATOR_COARSE_FP8", {"0", "1"}, 0) != 0;
  const char* seed = std::getenv("PTX_EMULATOR_SEED");
  if (!seed || !*seed) return;
  char* end;
  d.options.seed = std::strtoull(seed, &end, 10);
  if (*end) throw Failure{kInvalidValue, "PTX_EMULATOR_SEED is no number: " + std::string(seed)};
}

void need_initialized() {
  if (!device().initialized) throw Failure{kNotInitialized, "cuInit has not been called"};
}

Library& library_at(void* handle) {
  for (Library& l : device().libraries)
    if (&l == handle) return l;
  throw Failure{kInvalidHandle, "this is no library or module that is loaded"};
}

Function& function_at(void* handle) {
  for (Library& l : device().libraries)
    for (Function& f : l.functions)
      if (&f == handle) return f;
  throw Failure{kInvalidHandle, "this is no kernel or function of a library that is loaded"};
}

Block block_at(DevicePointer address, uint64_t bytes) {
  Block block;
  const auto fill = [&](uint64_t begin, uint64_t size, const std::string& name, bool read_only) {
    block.begin = begin;
    block.end = begin + size;
    block.data = reinterpret_cast<uint8_t*>(begin);
    block.name = name;
    block.read_only = read_only;
  };
  for (const auto& [begin, m] : device().memory) {
    if (!holds(begin, m.bytes, address, bytes)) continue;
    fill(begin, m.bytes, m.name, m.read_only);
    block.written = static_cast<uint64_t*>(m.written_bits.data());
    return block;
  }
  for (const Library& l : device().libraries)
    for (const auto& g : l.module.program().globals) {
      if (!holds(g.address, g.size, address, bytes)) continue;
      fill(g.address, g.size, std::string(g.name), false);  // the host may write constants
      return block;
    }
  throw Failure{kInvalidValue,
                std::to_string(bytes) + " bytes at " + hex(address) +
                    " are no memory of the device: neither allocated nor registered"};
}

void add_memory(uint64_t begin, Memory memory, bool written) {
  for (const auto& [other, m] : device().memory)
    if (begin < other + m.bytes && other < begin + memory.bytes)
      throw Failure{kAlreadyRegistered, memory.name + " overlaps " + m.name};
  if (!written) memory.written_bits = Pages((memory.bytes + 63) / 64 * 8);
  device().memory.emplace(begin, std::move(memory));
}

Result result_of_exception() {
  try {
    throw;
  } catch (const Failure& failure) {
    last = failure;
  } catch (const Fault& fault) {
    last = {code_of(fault), fault.what()};
  } catch (const Error& error) {
    last = {kInvalidValue, error.what()};
  } catch (const std::bad_alloc&) {
    last = {kOutOfMemory, "no memory on the host"};
  }
  return last.code;
}

const std::string& last_error(Result code) {
  static const std::string none;
  return last.code == code ? last.text : none;
}

}  // namespace ptx::driver
