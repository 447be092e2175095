// Qualifiers of functions and variables, and a thread's place in the grid.
#pragma once

#define __device__ __attribute__((device))
#define __host__ __attribute__((host))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
// ROCm's second argument, waves per SIMD, is not among what TileLang emits.
#define __launch_bounds__(threads) __attribute__((amdgpu_flat_work_group_size(1, threads)))

struct dim3 {
  unsigned x, y, z;
  __device__ constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline constexpr int warpSize = 64;  // of gfx9, the only family that TileLang kernels are built for

namespace hip_headers {

// The launch adds words to a kernel's arguments (code object version 5), first the blocks on each
// axis: reading those spares dividing the grid's threads by the block's. The cast is C's because no
// other leaves the builtin's address space.
__device__ __forceinline__ unsigned grid_blocks(int axis) {
  return ((const unsigned*)__builtin_amdgcn_implicitarg_ptr())[axis];
}

// Members are properties so that threadIdx.x is an unsigned, to `auto` and to varargs as well.
#define HIP_COORDINATES(Type, get_x_, get_y_, get_z_)                     \
  struct Type {                                                           \
    __declspec(property(get = get_x)) unsigned x;                         \
    __declspec(property(get = get_y)) unsigned y;                         \
    __declspec(property(get = get_z)) unsigned z;                         \
    __device__ __forceinline__ static unsigned get_x() { return get_x_; } \
    __device__ __forceinline__ static unsigned get_y() { return get_y_; } \
    __device__ __forceinline__ static unsigned get_z() { return get_z_; } \
  }

HIP_COORDINATES(ThreadIdx, __builtin_amdgcn_workitem_id_x(), __builtin_amdgcn_workitem_id_y(),
                __builtin_amdgcn_workitem_id_z());
HIP_COORDINATES(BlockIdx, __builtin_amdgcn_workgroup_id_x(), __builtin_amdgcn_workgroup_id_y(),
                __builtin_amdgcn_workgroup_id_z());
HIP_COORDINATES(BlockDim, __builtin_amdgcn_workgroup_size_x(), __builtin_amdgcn_workgroup_size_y(),
                __builtin_amdgcn_workgroup_size_z());
HIP_COORDINATES(GridDim, grid_blocks(0), grid_blocks(1), grid_blocks(2));

#undef HIP_COORDINATES

}  // namespace hip_headers

// Never read, hence never defined: the properties are static functions.
extern const __device__ __attribute__((weak)) hip_headers::ThreadIdx threadIdx;
extern const __device__ __attribute__((weak)) hip_headers::BlockIdx blockIdx;
extern const __device__ __attribute__((weak)) hip_headers::BlockDim blockDim;
extern const __device__ __attribute__((weak)) hip_headers::GridDim gridDim;
