// Host code as a library has it that reaches the GPU through a table of driver functions: it knows
// nothing of the emulator. The functions come from dlsym() of libcuda.so.1, or from elsewhere.
#pragma once

#include <cuda.h>

#include <cstdio>
#include <cstdlib>

// Names as libcuda exports them: <cuda.h> defines some as macros for those with a suffix.
#define DRIVER_FUNCTIONS(F)       \
  F(cuInit)                       \
  F(cuDriverGetVersion)           \
  F(cuDeviceGet)                  \
  F(cuDeviceGetCount)             \
  F(cuDeviceGetAttribute)         \
  F(cuDevicePrimaryCtxRetain)     \
  F(cuDevicePrimaryCtxRelease_v2) \
  F(cuCtxSetCurrent)              \
  F(cuCtxGetCurrent)              \
  F(cuCtxGetDevice)               \
  F(cuCtxSynchronize)             \
  F(cuStreamCreate)               \
  F(cuStreamDestroy_v2)           \
  F(cuStreamSynchronize)          \
  F(cuGetErrorName)               \
  F(cuGetErrorString)             \
  F(cuMemAlloc_v2)                \
  F(cuMemFree_v2)                 \
  F(cuMemcpyHtoD_v2)              \
  F(cuMemcpyHtoDAsync_v2)         \
  F(cuMemcpyDtoH_v2)              \
  F(cuMemcpyDtoHAsync_v2)         \
  F(cuMemsetD8_v2)                \
  F(cuMemsetD8Async)              \
  F(cuMemsetD32_v2)               \
  F(cuMemsetD32Async)             \
  F(cuLibraryLoadData)            \
  F(cuLibraryLoadFromFile)        \
  F(cuLibraryUnload)              \
  F(cuLibraryGetKernel)           \
  F(cuLibraryGetKernelCount)      \
  F(cuLibraryEnumerateKernels)    \
  F(cuLibraryGetGlobal)           \
  F(cuKernelGetFunction)          \
  F(cuKernelGetAttribute)         \
  F(cuKernelSetAttribute)         \
  F(cuModuleLoadData)             \
  F(cuModuleUnload)               \
  F(cuModuleGetFunction)          \
  F(cuModuleGetGlobal_v2)         \
  F(cuFuncLoad)                   \
  F(cuFuncSetAttribute)           \
  F(cuFuncGetAttribute)           \
  F(cuLaunchKernel)               \
  F(cuLaunchKernelEx)             \
  F(cuTensorMapEncodeTiled)

struct Driver {
#define MEMBER(name) decltype(&::name) name = nullptr;
  DRIVER_FUNCTIONS(MEMBER)
#undef MEMBER

  explicit Driver(void* (*find)(const char* name)) {
#define LOAD(name)                                      \
  name = reinterpret_cast<decltype(name)>(find(#name)); \
  if (!name) {                                          \
    std::printf("the driver has no %s\n", #name);       \
    std::exit(1);                                       \
  }
    DRIVER_FUNCTIONS(LOAD)
#undef LOAD
  }

  void must(CUresult result, const char* what) const {
    if (result == CUDA_SUCCESS) return;
    const char *error = nullptr, *text = nullptr;
    cuGetErrorName(result, &error);
    cuGetErrorString(result, &text);
    std::printf("%s: %s: %s\n", what, error, text);
    std::exit(1);
  }
};

// C [m, n] in fp32 = A [m, k] B [n, k]^T in bf16: tests/kernels/gemm_ring.cu, whose tiles are
// 128 x 64 x 64 in a ring of four.
inline CUresult launch_gemm(const Driver& driver, CUfunction function, CUdeviceptr a, CUdeviceptr b,
                            CUdeviceptr c, unsigned m, unsigned n, unsigned k) {
  constexpr unsigned kShared = 4 * (128 + 64) * 64 * 2 + 128 * 64 * 4 + 8 * 8;
  const auto map = [&](CUtensorMap& out, CUtensorMapDataType type, unsigned bytes, CUdeviceptr base,
                       unsigned rows, unsigned columns, unsigned box_rows,
                       CUtensorMapSwizzle swizzle) {
    const cuuint64_t dims[] = {columns, rows}, strides[] = {cuuint64_t{columns} * bytes};
    const cuuint32_t box[] = {64, box_rows}, steps[] = {1, 1};
    return driver.cuTensorMapEncodeTiled(&out, type, 2, reinterpret_cast<void*>(base), dims,
                                         strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                         swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                                         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  };
  CUtensorMap map_a, map_b, map_c;
  const auto bf16 = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, fp32 = CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  driver.must(map(map_a, bf16, 2, a, m, k, 128, CU_TENSOR_MAP_SWIZZLE_128B), "map of A");
  driver.must(map(map_b, bf16, 2, b, n, k, 64, CU_TENSOR_MAP_SWIZZLE_128B), "map of B");
  driver.must(map(map_c, fp32, 4, c, m, n, 64, CU_TENSOR_MAP_SWIZZLE_NONE), "map of C");
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  attribute.value.programmaticStreamSerializationAllowed = 1;
  CUlaunchConfig config{};
  config.gridDimX = (n + 63) / 64;
  config.gridDimY = (m + 127) / 128;
  config.blockDimX = 384;
  config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
  config.sharedMemBytes = kShared;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int depth = static_cast<int>(k);
  void* params[] = {&map_a, &map_b, &map_c, &depth};
  return driver.cuLaunchKernelEx(&config, function, params, nullptr);
}
