// The table: initialisation, device, context, streams, errors, and the way to all functions.
#include "driver.h"

#include <cstring>
#include <unordered_map>

#include "driver_device.h"
#include "limits.h"

namespace ptx::driver {
namespace {

char the_context, the_stream;
thread_local void* current_context = nullptr;

Result initialize(uint32_t flags) {
  return guarded([&] {
    if (flags) throw Failure{kInvalidValue, "cuInit takes 0"};
    if (!device().configured) read_environment(device());
    device().initialized = true;
  });
}

Result get_device_count(int32_t* out) {
  return guarded([&] {
    need_initialized();
    checked(out, "count") = 1;
  });
}

Result get_device(int32_t* out, int32_t ordinal) {
  return guarded([&] {
    need_initialized();
    if (ordinal != 0) throw Failure{kInvalidDevice, "there is device 0 alone"};
    checked(out, "device") = 0;
  });
}

int32_t device_attribute(int32_t attribute) {
  const MachineLimits& l = limits_of(kArchitecture);
  const auto number = [](uint64_t n) { return static_cast<int32_t>(n); };
  switch (attribute) {
    case kMaxThreadsPerBlock:
    case kMaxBlockDimX:
    case kMaxBlockDimX + 1: return 1024;
    case kMaxBlockDimX + 2: return 64;
    case kMaxGridDimX: return 0x7fffffff;
    case kMaxGridDimX + 1:
    case kMaxGridDimX + 2: return 65535;
    case kMaxSharedPerBlock: return 48 << 10;
    case kMaxSharedPerBlockOptin: return number(l.shared_per_cta);
    case kMaxSharedPerMultiprocessor: return number(l.shared_per_sm);
    case kReservedSharedPerBlock: return 1 << 10;
    case kWarpSize: return kLanes;
    case kMaxRegistersPerBlock:
    case kMaxRegistersPerMultiprocessor: return 65536;
    case kMultiprocessorCount: return number(l.sms);
    case kMaxThreadsPerMultiprocessor: return number(l.threads_per_sm);
    case kMaxBlocksPerMultiprocessor: return number(l.ctas_per_sm);
    case kComputeCapabilityMajor: return l.architecture / 10;
    case kComputeCapabilityMinor: return l.architecture % 10;
    case kUnifiedAddressing:
    case kCooperativeLaunch:
    case kClusterLaunch:
    case kTensorMapAccess: return 1;
    default:
      throw Failure{kNotSupported,
                    "attribute " + std::to_string(attribute) + " of the device is not known"};
  }
}

Result get_device_attribute(int32_t* out, int32_t attribute, int32_t ordinal) {
  return guarded([&] {
    need_initialized();
    if (ordinal != 0) throw Failure{kInvalidDevice, "there is device 0 alone"};
    checked(out, "pi") = device_attribute(attribute);
  });
}

Result retain_context(void** out, int32_t ordinal) {
  return guarded([&] {
    need_initialized();
    if (ordinal != 0) throw Failure{kInvalidDevice, "there is device 0 alone"};
    checked(out, "pctx") = &the_context;
  });
}
Result release_context(int32_t) {
  return guarded(need_initialized);
}

Result set_context(void* context) {
  return guarded([&] {
    need_initialized();
    if (context && context != &the_context) throw Failure{kInvalidContext, "this is no context"};
    current_context = context;
  });
}
Result get_context(void** out) {
  return guarded([&] {
    need_initialized();
    checked(out, "pctx") = current_context;
  });
}
Result get_context_device(int32_t* out) {
  return guarded([&] {
    need_context();
    checked(out, "device") = 0;
  });
}
// Everything has run when the call that asked for it returns.
Result synchronize() {
  return guarded(need_context);
}

Result create_stream(void** out, uint32_t) {
  return guarded([&] {
    need_context();
    checked(out, "phStream") = &the_stream;
  });
}
Result use_stream(void*) {
  return guarded(need_context);
}

struct Name {
  Result code;
  const char *name, *text;
};
constexpr Name kNames[] = {
    {kSuccess, "CUDA_SUCCESS", "no error"},
    {kInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kNoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no code for the device"},
    {kInvalidPtx, "CUDA_ERROR_INVALID_PTX", "invalid PTX"},
    {kFileNotFound, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {kNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "illegal memory access"},
    {kLaunchTimeout, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch does not end"},
    {kAlreadyRegistered, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "memory overlaps"},
    {kNotRegistered, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "memory is not registered"},
    {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "launch failure"},
    {kCooperativeLaunchTooLarge, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many CTAs"},
    {kNotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {kInvalidClusterSize, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "invalid cluster size"},
};

const Name* find_name(Result code) {
  for (const Name& n : kNames)
    if (n.code == code) return &n;
  return nullptr;
}

Result get_error_name(Result code, const char** out) {
  const Name* name = find_name(code);
  if (out) *out = name ? name->name : nullptr;
  return name && out ? kSuccess : kInvalidValue;
}

// What went wrong in this thread last, if that was of the code; it lasts until the next error.
Result get_error_string(Result code, const char** out) {
  const Name* name = find_name(code);
  if (out)
    *out = !name ? nullptr : last_error(code).empty() ? name->text : last_error(code).c_str();
  return name && out ? kSuccess : kInvalidValue;
}

Result get_version(int32_t* out) {
  return guarded([&] { checked(out, "driverVersion") = 13000; });
}

}  // namespace

void need_context() {
  need_initialized();
  if (!current_context) throw Failure{kInvalidContext, "the thread has no current context"};
}

Entries context_functions() {
  return {
      entry("cuInit", initialize),
      entry("cuDriverGetVersion", get_version),
      entry("cuDeviceGetCount", get_device_count),
      entry("cuDeviceGet", get_device),
      entry("cuDeviceGetAttribute", get_device_attribute),
      entry("cuDevicePrimaryCtxRetain", retain_context),
      entry("cuDevicePrimaryCtxRelease_v2", release_context),
      entry("cuCtxSetCurrent", set_context),
      entry("cuCtxGetCurrent", get_context),
      entry("cuCtxGetDevice", get_context_device),
      entry("cuCtxSynchronize", synchronize),
      entry("cuStreamCreate", create_stream),
      entry("cuStreamDestroy_v2", use_stream),
      entry("cuStreamSynchronize", use_stream),
      entry("cuGetErrorName", get_error_name),
      entry("cuGetErrorString", get_error_string),
  };
}

}  // namespace ptx::driver

extern "C" {

void* ptx_driver_function(const char* name) {
  using namespace ptx::driver;
  static const auto table = [] {
    std::unordered_map<std::string, void*> all;
    for (const auto& functions :
         {context_functions(), memory_functions(), library_functions(), launch_functions()})
      for (const Entry& e : functions) all.emplace(e.name, e.function);
    return all;
  }();
  const auto it = table.find(name);
  return it == table.end() ? nullptr : it->second;
}

void ptx_driver_get_options(PtxDriverOptions* options) {
  auto& d = ptx::driver::device();
  const std::lock_guard lock(d.mutex);
  const auto& o = d.options;
  *options = {static_cast<int32_t>(o.mode), o.races, o.coarse_fp8, o.seed};
}

void ptx_driver_set_options(const PtxDriverOptions* options) {
  auto& d = ptx::driver::device();
  const std::lock_guard lock(d.mutex);
  auto& o = d.options;
  d.configured = true;
  o.mode = static_cast<ptx::Mode>(options->mode);
  o.races = options->races != 0;
  o.coarse_fp8 = options->coarse_fp8 != 0;
  o.seed = options->seed;
}

void ptx_driver_intercept(int32_t (*instead)(const PtxDriverLaunch* launch)) {
  const std::lock_guard lock(ptx::driver::device().mutex);
  ptx::driver::device().instead_of_launch = instead;
}

}  // extern "C"
