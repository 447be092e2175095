#include "launch.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <vector>

namespace dsa::cuda {
namespace {

struct Loaded {
  Kernel kernel;
  uint32_t shared_bytes = 48 << 10;  // that it may have
  bool large_clusters = false;       // of more than 8 CTAs
};

// Libraries are context-independent; kernels' attributes belong to a device.
std::mutex mutex;
std::map<std::tuple<const Driver*, std::string>, Library> libraries;
std::map<std::tuple<const Driver*, int, std::string, std::string>, Loaded> kernels;

Library library_of(const Target& target, const std::string& code) {
  Library& library = libraries[{&target.driver, code}];
  if (!library) {
    const std::string path = code_directory() + "/" + code + ".fatbin";
    check(target,
          target.driver.cuLibraryLoadFromFile(&library, path.c_str(), nullptr, nullptr, 0, nullptr,
                                              nullptr, 0),
          path + " does not load");
  }
  return library;
}

Kernel kernel_of(const Target& target, const char* code, const char* name, const Shape& shape) {
  const std::lock_guard lock(mutex);
  Loaded& loaded = kernels[{&target.driver, target.ordinal, code, name}];
  if (!loaded.kernel) {
    Library library = library_of(target, code);
    check(target, target.driver.cuLibraryGetKernel(&loaded.kernel, library, name),
          std::string("there is no kernel ") + name);
  }
  if (shape.cluster > 8 && !loaded.large_clusters) {
    check(target,
          target.driver.cuKernelSetAttribute(kNonPortableClusterSizeAllowed, 1, loaded.kernel,
                                             target.ordinal),
          std::string(name) + ": clusters of " + std::to_string(shape.cluster));
    loaded.large_clusters = true;
  }
  if (shape.shared_bytes > loaded.shared_bytes) {
    check(
        target,
        target.driver.cuKernelSetAttribute(kMaxDynamicSharedBytes,
                                           static_cast<int32_t>(shape.shared_bytes), loaded.kernel,
                                           target.ordinal),
        std::string(name) + ": " + std::to_string(shape.shared_bytes) + " bytes of shared memory");
    loaded.shared_bytes = shape.shared_bytes;
  }
  return loaded.kernel;
}

// The device's compute capability, times ten.
int32_t architecture_of(const Target& target) {
  int32_t device, major, minor;
  check(target, target.driver.cuDeviceGet(&device, target.ordinal), "cuDeviceGet");
  const auto attribute = [&](int32_t& value, DeviceAttribute which) {
    check(target, target.driver.cuDeviceGetAttribute(&value, which, device),
          "cuDeviceGetAttribute");
  };
  attribute(major, kComputeCapabilityMajor);
  attribute(minor, kComputeCapabilityMinor);
  return 10 * major + minor;
}

// Code for sm_90a runs there alone, other code on what is newer, too.
bool runs_on(int32_t architecture, const std::string& code) {
  return code.ends_with(".sm90") ? architecture == 90 : architecture >= 80;
}

// Stems of the files in the code directory.
std::set<std::string> all_code() {
  std::set<std::string> stems;
  for (const auto& file : std::filesystem::directory_iterator(code_directory()))
    if (file.path().extension() == ".fatbin" || file.path().extension() == ".ptx")
      stems.insert(file.path().stem().string());
  return stems;
}

}  // namespace

void check(const Target& target, Result result, const std::string& what) {
  if (result == kSuccess) return;
  const char *name = nullptr, *text = nullptr;
  target.driver.cuGetErrorName(result, &name);
  target.driver.cuGetErrorString(result, &text);
  throw std::runtime_error(what + ": " + (name ? name : std::to_string(result)) + ": " +
                           (text ? text : ""));
}

Target::Target(const Driver& driver, int ordinal, Stream stream)
    : driver(driver), ordinal(ordinal), stream(stream) {
  check(*this, driver.cuInit(0), "cuInit");
  int32_t device;
  Context context;
  check(*this, driver.cuDeviceGet(&device, ordinal), "cuDeviceGet");
  // Retained once per device and never released: torch holds it as long.
  static std::mutex retained_mutex;
  static std::map<std::tuple<const Driver*, int>, Context> retained;
  {
    const std::lock_guard lock(retained_mutex);
    Context& known = retained[{&driver, ordinal}];
    if (!known) check(*this, driver.cuDevicePrimaryCtxRetain(&known, device), "primary context");
    context = known;
  }
  check(*this, driver.cuCtxGetCurrent(&before_), "cuCtxGetCurrent");
  if (before_ != context) check(*this, driver.cuCtxSetCurrent(context), "cuCtxSetCurrent");
  check(*this, driver.cuDeviceGetAttribute(&num_sms, kMultiprocessorCount, device),
        "number of SMs");
}

Target::~Target() {
  driver.cuCtxSetCurrent(before_);
}

void launch_kernel(const Target& target, const char* code, const char* name, const Shape& shape,
                   void** args) {
  Kernel kernel = kernel_of(target, code, name, shape);
  LaunchAttribute cluster{};
  cluster.id = LaunchAttribute::kClusterDimension;
  cluster.value.cluster[0] = shape.cluster;
  cluster.value.cluster[1] = cluster.value.cluster[2] = 1;
  const LaunchConfig config{{shape.grid[0], shape.grid[1], shape.grid[2]},
                            {shape.block, 1, 1},
                            shape.shared_bytes,
                            target.stream,
                            &cluster,
                            shape.cluster > 1 ? 1u : 0u};
  check(target, target.driver.cuLaunchKernelEx(&config, kernel, args, nullptr), name);
}

void warm_up(const Target& target) {
  const Driver& driver = target.driver;
  const int32_t architecture = architecture_of(target);
  for (const std::string& code : all_code()) {
    if (!runs_on(architecture, code)) continue;
    const std::lock_guard lock(mutex);
    Library library = library_of(target, code);
    uint32_t count;
    check(target, driver.cuLibraryGetKernelCount(&count, library), code);
    std::vector<Kernel> found(count);
    check(target, driver.cuLibraryEnumerateKernels(found.data(), count, library), code);
    for (Kernel kernel : found) {
      Function function;
      check(target, driver.cuKernelGetFunction(&function, kernel), code);
      check(target, driver.cuFuncLoad(function), code);
    }
  }
}

std::string code_directory() {
  if (const char* set = std::getenv("DSA_CUDA_CODE"); set && *set) return set;
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void*>(&code_directory), &info)) return "cuda";
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1) + "cuda";
}

}  // namespace dsa::cuda
