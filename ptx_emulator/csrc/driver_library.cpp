// Libraries and modules of PTX, their kernels and variables, and what may be set of kernels.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "driver_device.h"
#include "limits.h"

namespace ptx::driver {
namespace {

constexpr uint64_t kDefaultShared = 48 << 10;

void* load(std::string text) {
  need_initialized();
  std::list<Library> loaded;
  try {
    loaded.emplace_back(std::move(text));
  } catch (const Error& error) {
    throw Failure{kInvalidPtx, error.what()};
  }
  const ptx_emulator::Module& module = loaded.front().module;
  const std::string& target = module.target();
  const int architecture = architecture_of(target);
  // Code for sm_90a runs there alone.
  if (architecture > kArchitecture || (target.back() == 'a' && architecture != kArchitecture))
    throw Failure{kNoBinaryForGpu, "PTX for " + target + "; the device is sm_" +
                                       std::to_string(kArchitecture) + "a"};
  if (!module.unsupported().empty()) {
    std::string all = "the module uses what is not modelled:";
    for (const auto& u : module.unsupported())
      all += "\n  line " + std::to_string(u.line) + ": " + u.text + ": " + u.reason;
    throw Failure{kNotSupported, all};
  }
  device().libraries.splice(device().libraries.end(), loaded);
  return &device().libraries.back();
}

std::string text_at(const void* code) {
  const char* text = &checked(static_cast<const char*>(code), "code");
  constexpr unsigned char kElf[] = {0x7f, 'E', 'L', 'F'}, kFatbin[] = {0x50, 0xed, 0x55, 0xba};
  if (!std::memcmp(text, kElf, 4) || !std::memcmp(text, kFatbin, 4))
    throw Failure{kNoBinaryForGpu, "a cubin or fatbin; the emulator runs PTX"};
  return text;
}

// Of x.fatbin and x.cubin, the PTX that lies beside it.
std::string text_of_file(const char* path) {
  std::string name = &checked(path, "fileName");
  const size_t dot = name.rfind('.');
  if (dot != std::string::npos && (name.substr(dot) == ".fatbin" || name.substr(dot) == ".cubin"))
    name.replace(dot, std::string::npos, ".ptx");
  std::ifstream file(name, std::ios::binary);
  if (!file) throw Failure{kFileNotFound, "cannot read " + name};
  return {std::istreambuf_iterator<char>(file), {}};
}

Result load_library(void** out, const void* code, int32_t*, void**, uint32_t, int32_t*, void**,
                    uint32_t) {
  return guarded([&] { checked(out, "library") = load(text_at(code)); });
}
Result load_library_file(void** out, const char* path, int32_t*, void**, uint32_t, int32_t*, void**,
                         uint32_t) {
  return guarded([&] { checked(out, "library") = load(text_of_file(path)); });
}
Result load_module(void** out, const void* code) {
  return guarded([&] {
    need_context();
    checked(out, "module") = load(text_at(code));
  });
}

Result unload(void* handle) {
  return guarded([&] {
    const Library& l = library_at(handle);
    device().libraries.remove_if([&](const Library& other) { return &other == &l; });
  });
}

Result get_kernel(void** out, void* handle, const char* name) {
  return guarded([&] {
    for (Function& f : library_at(handle).functions)
      if (f.kernel->name == &checked(name, "name")) {
        checked(out, "kernel") = &f;
        return;
      }
    throw Failure{kNotFound, "there is no kernel " + std::string(name)};
  });
}

Result count_kernels(uint32_t* count, void* handle) {
  return guarded([&] {
    checked(count, "count") = static_cast<uint32_t>(library_at(handle).functions.size());
  });
}

// The first `most` of them.
Result list_kernels(void** out, uint32_t most, void* handle) {
  return guarded([&] {
    for (Function& f : library_at(handle).functions) {
      if (most-- == 0) return;
      checked(out, "kernels") = &f;
      ++out;
    }
  });
}

Result get_function(void** out, void* kernel) {
  return guarded([&] {
    need_context();
    checked(out, "pFunc") = &function_at(kernel);
  });
}

// Functions are loaded with their library.
Result load_function(void* function) {
  return guarded([&] {
    need_context();
    function_at(function);
  });
}

Result get_global(DevicePointer* out, size_t* bytes, void* handle, const char* name) {
  return guarded([&] {
    const auto region = library_at(handle).module.variable(&checked(name, "name"));
    if (!region.begin) throw Failure{kNotFound, "there is no variable " + std::string(name)};
    if (out) *out = reinterpret_cast<DevicePointer>(region.begin);
    if (bytes) *bytes = region.bytes;
  });
}

void set_attribute(void* handle, int32_t attribute, int32_t value) {
  Function& f = function_at(handle);
  const uint64_t most = limits_of(kArchitecture).shared_per_cta - f.kernel->static_shared;
  switch (attribute) {
    case kMaxDynamicShared:
      if (value < 0 || static_cast<uint64_t>(value) > most)
        throw Failure{kInvalidValue, f.kernel->name + " may have at most " + std::to_string(most) +
                                         " bytes of dynamic shared memory, not " +
                                         std::to_string(value)};
      f.max_dynamic_shared = static_cast<uint64_t>(value);
      break;
    case kNonPortableClusterSize: f.non_portable_cluster = value != 0; break;
    case kSharedCarveout:
    case kClusterSchedulingPolicy: break;  // hints
    default:
      throw Failure{kNotSupported,
                    "attribute " + std::to_string(attribute) + " of a function can't be set"};
  }
}

int32_t attribute_of(void* handle, int32_t attribute) {
  const Function& f = function_at(handle);
  const ptx_emulator::Kernel& k = *f.kernel;
  if (attribute >= kRequiredClusterWidth && attribute < kRequiredClusterWidth + 3)
    return static_cast<int32_t>(k.required_cluster[attribute - kRequiredClusterWidth]);
  switch (attribute) {
    case kFunctionMaxThreads: return k.max_threads ? static_cast<int32_t>(k.max_threads) : 1024;
    case kSharedBytes: return static_cast<int32_t>(k.static_shared);
    case kLocalBytes: return static_cast<int32_t>(k.local_bytes);
    case kMaxDynamicShared: return static_cast<int32_t>(f.max_dynamic_shared);
    case kClusterSizeMustBeSet: return 0;
    case kNonPortableClusterSize: return f.non_portable_cluster;
    default:
      throw Failure{kNotSupported,
                    "attribute " + std::to_string(attribute) + " of a function is not known"};
  }
}

Result set_function_attribute(void* f, int32_t attribute, int32_t value) {
  return guarded([&] {
    need_context();
    set_attribute(f, attribute, value);
  });
}
Result get_function_attribute(int32_t* out, int32_t attribute, void* f) {
  return guarded([&] {
    need_context();
    checked(out, "pi") = attribute_of(f, attribute);
  });
}
Result set_kernel_attribute(int32_t attribute, int32_t value, void* kernel, int32_t) {
  return guarded([&] { set_attribute(kernel, attribute, value); });
}
Result get_kernel_attribute(int32_t* out, int32_t attribute, void* kernel, int32_t) {
  return guarded([&] { checked(out, "pi") = attribute_of(kernel, attribute); });
}

}  // namespace

Library::Library(std::string ptx) : text(std::move(ptx)), module(text) {
  for (const ptx_emulator::Kernel& k : module.kernels())
    functions.push_back({this, &k, kDefaultShared - std::min(kDefaultShared, k.static_shared)});
}

Entries library_functions() {
  return {
      entry("cuLibraryLoadData", load_library),
      entry("cuLibraryLoadFromFile", load_library_file),
      entry("cuLibraryUnload", unload),
      entry("cuLibraryGetKernel", get_kernel),
      entry("cuLibraryGetKernelCount", count_kernels),
      entry("cuLibraryEnumerateKernels", list_kernels),
      entry("cuLibraryGetGlobal", get_global),
      entry("cuKernelGetFunction", get_function),
      entry("cuKernelGetAttribute", get_kernel_attribute),
      entry("cuKernelSetAttribute", set_kernel_attribute),
      entry("cuModuleLoadData", load_module),
      entry("cuModuleUnload", unload),
      entry("cuModuleGetFunction", get_kernel),
      entry("cuModuleGetGlobal_v2", get_global),
      entry("cuFuncLoad", load_function),
      entry("cuFuncSetAttribute", set_function_attribute),
      entry("cuFuncGetAttribute", get_function_attribute),
  };
}

}  // namespace ptx::driver
