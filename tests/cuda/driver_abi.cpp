// csrc/cuda/driver.h against the real <cuda.h>; compiled by tests/test_cuda_build.py.
#include <cuda.h>

#include <cstddef>
#include <type_traits>

#include "cuda/driver.h"
#include "cuda/tensor_map.h"

using namespace dsa::cuda;

#define SAME(ours, theirs) \
  static_assert(static_cast<int>(ours) == static_cast<int>(theirs), #theirs " is another number")

SAME(kSuccess, CUDA_SUCCESS);
SAME(kMultiprocessorCount, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(kComputeCapabilityMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(kComputeCapabilityMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(kMaxDynamicSharedBytes, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(kNonPortableClusterSizeAllowed, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED);
SAME(LaunchAttribute::kClusterDimension, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
SAME(MapSwizzle::kNone, CU_TENSOR_MAP_SWIZZLE_NONE);
SAME(MapSwizzle::k32, CU_TENSOR_MAP_SWIZZLE_32B);
SAME(MapSwizzle::k64, CU_TENSOR_MAP_SWIZZLE_64B);
SAME(MapSwizzle::k128, CU_TENSOR_MAP_SWIZZLE_128B);

SAME(sizeof(LaunchAttribute), sizeof(CUlaunchAttribute));
SAME(offsetof(LaunchAttribute, value), offsetof(CUlaunchAttribute, value));
SAME(sizeof(LaunchConfig), sizeof(CUlaunchConfig));
SAME(offsetof(LaunchConfig, block), offsetof(CUlaunchConfig, blockDimX));
SAME(offsetof(LaunchConfig, shared_bytes), offsetof(CUlaunchConfig, sharedMemBytes));
SAME(offsetof(LaunchConfig, stream), offsetof(CUlaunchConfig, hStream));
SAME(offsetof(LaunchConfig, attributes), offsetof(CUlaunchConfig, attrs));
SAME(offsetof(LaunchConfig, attribute_count), offsetof(CUlaunchConfig, numAttrs));
SAME(sizeof(TensorMap), sizeof(CUtensorMap));
SAME(alignof(TensorMap), alignof(CUtensorMap));

// Parameters one by one: pointers to pointers, integers and enumerations of the same size.
template <class F>
struct Parameters;
template <class R, class... A>
struct Parameters<R (*)(A...)> {
  static constexpr int count = sizeof...(A);
  static constexpr size_t sizes[] = {sizeof(R), sizeof(A)...};
};
template <class Ours, class Theirs>
constexpr bool same_shape() {
  using O = Parameters<Ours>;
  using T = Parameters<Theirs>;
  if (O::count != T::count) return false;
  for (int i = 0; i <= O::count; ++i)
    if (O::sizes[i] != T::sizes[i]) return false;
  return true;
}
#define SAME_CALL(name)                                                  \
  static_assert(same_shape<decltype(Driver::name), decltype(&::name)>(), \
                #name " is called otherwise")

SAME_CALL(cuInit);
SAME_CALL(cuGetErrorName);
SAME_CALL(cuGetErrorString);
SAME_CALL(cuDeviceGet);
SAME_CALL(cuDeviceGetAttribute);
SAME_CALL(cuDevicePrimaryCtxRetain);
SAME_CALL(cuCtxGetCurrent);
SAME_CALL(cuCtxSetCurrent);
SAME_CALL(cuLibraryLoadFromFile);
SAME_CALL(cuLibraryGetKernel);
SAME_CALL(cuLibraryGetKernelCount);
SAME_CALL(cuLibraryEnumerateKernels);
SAME_CALL(cuKernelGetFunction);
SAME_CALL(cuFuncLoad);
SAME_CALL(cuKernelSetAttribute);
SAME_CALL(cuLaunchKernelEx);
SAME_CALL(cuTensorMapEncodeTiled);
