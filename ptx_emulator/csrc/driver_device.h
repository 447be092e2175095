// The device that the driver table stands for: its memory, libraries and options. One per process.
#pragma once

#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <string>

#include "driver.h"
#include "driver_abi.h"
#include "memory.h"
#include "ptx_emulator.h"

namespace ptx::driver {

constexpr int kArchitecture = 90;

struct Failure {
  Result code;
  std::string text;
};

struct Memory {
  uint64_t bytes = 0;
  std::string name;
  bool read_only = false;
  Pages allocated;     // empty if it is registered
  Pages written_bits;  // empty if all of it is written
};

struct Library;

// CUkernel and CUfunction.
struct Function {
  Library* library;
  const ptx_emulator::Kernel* kernel;
  uint64_t max_dynamic_shared;
  bool non_portable_cluster = false;
};

// CUlibrary and CUmodule.
struct Library {
  explicit Library(std::string ptx);
  std::string text;
  ptx_emulator::Module module;
  std::deque<Function> functions;  // of each kernel
};

struct Device {
  std::mutex mutex;
  bool initialized = false;
  bool configured = false;  // by the program: the environment says nothing
  bool warned = false;      // that races are not looked for
  LaunchOptions options;
  int32_t (*instead_of_launch)(const PtxDriverLaunch*) = nullptr;
  std::map<uint64_t, Memory> memory;  // by address
  uint64_t allocations = 0;
  std::list<Library> libraries;
};

Device& device();
void read_environment(Device& device);

void need_initialized();
void need_context();  // of this thread
Library& library_at(void* handle);
Function& function_at(void* handle);

// The memory in which all of the bytes lie, as a block.
Block block_at(DevicePointer address, uint64_t bytes);
void add_memory(uint64_t begin, Memory memory, bool written);

// Runs the body under the device's mutex, and turns what it throws into a result, whose text is
// the thread's last error.
template <class Body>
Result guarded(Body body);
Result result_of_exception();  // of the one that is being handled
const std::string& last_error(Result code);

template <class Body>
Result guarded(Body body) {
  const std::lock_guard lock(device().mutex);
  try {
    body();
    return kSuccess;
  } catch (...) {
    return result_of_exception();
  }
}

template <class T>
T& checked(T* out, const char* name) {
  if (!out) throw Failure{kInvalidValue, std::string(name) + " is null"};
  return *out;
}

// Named functions of the table, by what they are about.
struct Entry {
  const char* name;
  void* function;
};
template <class F>
Entry entry(const char* name, F* function) {
  return {name, reinterpret_cast<void*>(function)};
}
using Entries = std::vector<Entry>;
Entries context_functions();
Entries memory_functions();
Entries library_functions();
Entries launch_functions();

}  // namespace ptx::driver
