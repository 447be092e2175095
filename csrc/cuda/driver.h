// The few functions of the CUDA driver API that host code may call, with the types and numbers of
// <cuda.h> that they need: nothing here is compiled against CUDA or linked with it. A table comes
// from libcuda.so.1, found at run time, or from whoever else has such functions: the emulator.
// tests/driver_abi.cpp holds the declarations against the real header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dsa::cuda {

using Result = int32_t;  // CUresult
using Context = void*;
using Stream = void*;
using Library = void*;
using Kernel = void*;
using Function = void*;

constexpr Result kSuccess = 0;

enum DeviceAttribute : int32_t {
  kMultiprocessorCount = 16,
  kComputeCapabilityMajor = 75,
  kComputeCapabilityMinor = 76,
};

enum FunctionAttribute : int32_t {
  kMaxDynamicSharedBytes = 8,
  kNonPortableClusterSizeAllowed = 14,
};

struct LaunchAttribute {
  enum Id : uint32_t { kClusterDimension = 4 };
  alignas(8) uint32_t id;
  union alignas(8) {
    uint32_t cluster[3];
    char bytes[64];
  } value;
};

struct LaunchConfig {
  uint32_t grid[3], block[3];
  uint32_t shared_bytes;
  Stream stream;
  LaunchAttribute* attributes;
  uint32_t attribute_count;
};

// The table's names are those that libcuda exports.
struct Driver {
  Result (*cuInit)(unsigned flags);
  Result (*cuGetErrorName)(Result, const char**);
  Result (*cuGetErrorString)(Result, const char**);
  Result (*cuDeviceGet)(int32_t* device, int ordinal);
  Result (*cuDeviceGetAttribute)(int32_t* value, int32_t attribute, int32_t device);
  Result (*cuDevicePrimaryCtxRetain)(Context*, int32_t device);
  Result (*cuCtxGetCurrent)(Context*);
  Result (*cuCtxSetCurrent)(Context);
  Result (*cuLibraryLoadFromFile)(Library*, const char* path, int32_t* jit_options,
                                  void** jit_values, uint32_t num_jit, int32_t* options,
                                  void** values, uint32_t num);
  Result (*cuLibraryGetKernel)(Kernel*, Library, const char* name);
  Result (*cuLibraryGetKernelCount)(uint32_t* count, Library);
  Result (*cuLibraryEnumerateKernels)(Kernel*, uint32_t most, Library);
  Result (*cuKernelGetFunction)(Function*, Kernel);
  Result (*cuFuncLoad)(Function);
  Result (*cuKernelSetAttribute)(int32_t attribute, int32_t value, Kernel, int32_t device);
  Result (*cuLaunchKernelEx)(const LaunchConfig*, Kernel, void** params, void** extra);
  Result (*cuTensorMapEncodeTiled)(void* map, int32_t data_type, uint32_t rank, void* base,
                                   const uint64_t* dims, const uint64_t* strides,
                                   const uint32_t* box, const uint32_t* element_strides,
                                   int32_t interleave, int32_t swizzle, int32_t l2_promotion,
                                   int32_t fill);

  // Fills the table; returns the name of the first function that `find` does not know, or null.
  const char* load(void* (*find)(const char* name));
};

// libcuda's. Throws where there is no driver.
const Driver& hardware_driver();

}  // namespace dsa::cuda
