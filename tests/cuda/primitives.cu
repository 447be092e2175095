// One small kernel for each primitive that the kernels of csrc/cuda stand on.
// bench/gpu/primitives.py runs each on a GPU and in the emulator and compares what they write;
// tests/test_primitives.py holds the emulator's side against numpy.
#include "cuda/device/cluster.cuh"
#include "cuda/device/cp_async.cuh"
#include "cuda/device/mbarrier.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/device/wgmma.cuh"

namespace dsa {

constexpr int kRowBytes = 128;  // of wgmma operands: one row is the width of the 128-byte swizzle

// Copies rows of 128 bytes to where a tensor copy with the 128-byte swizzle leaves them.
__device__ void store_swizzled(uint4* to, const uint4* from, int rows) {
  for (int i = threadIdx.x; i < rows * kRowBytes / 16; i += blockDim.x)
    to[i ^ (i / 8 % 8)] = from[i];
}

template <int n>
__device__ void write_accumulator(float* out, const float (&d)[n / 2]) {
  const int row = warp_index() * 16 + lane_index() / 4;
#pragma unroll
  for (int i = 0; i < n / 2; ++i)
    out[(row + i / 2 % 2 * 8) * n + i / 4 * 8 + lane_index() % 4 * 2 + i % 2] = d[i];
}

__device__ void copy_out(uint32_t* out, const void* shared, int bytes) {
  for (int i = threadIdx.x; i < bytes / 4; i += blockDim.x)
    out[i] = static_cast<const uint32_t*>(shared)[i];
}

__device__ bool phase_is_done(uint64_t& barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;"
      "  selp.b32 %0, 1, 0, p; }"
      : "=r"(done)
      : "r"(shared_address(&barrier)), "r"(parity)
      : "memory");
  return done != 0;
}

// Bytes of a tensor copy's box, whole: what the box leaves out stays 0xa5.
template <int rank>
__device__ void load_box(const TensorMap& map, int bytes, int x, int y, int z, int w,
                         uint32_t* out) {
  __shared__ alignas(1024) uint32_t box[4096];
  __shared__ uint64_t barrier;
  for (int i = threadIdx.x; i < bytes / 4; i += blockDim.x) box[i] = 0xa5a5a5a5;
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    fence_mbarrier_init();
  }
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(barrier, bytes);
    if constexpr (rank == 2) tma_load(box, map, barrier, x, y);
    if constexpr (rank == 3) tma_load(box, map, barrier, x, y, z);
    if constexpr (rank == 4) tma_load(box, map, barrier, x, y, z, w);
  }
  mbarrier_wait(barrier, 0);
  copy_out(out, box, bytes);
}

// D [64 x 64] = A B over K = 64, bf16. K-major operands are rows of k; MN-major ones rows of m or
// n.
template <bool a_in_registers, Major a_major, Major b_major>
__device__ void multiply_bf16(const uint4* a, const uint4* b, float* out) {
  __shared__ alignas(1024) uint4 a_tile[512];
  __shared__ alignas(1024) uint4 b_tile[512];
  store_swizzled(a_tile, a, 64);
  store_swizzled(b_tile, b, 64);
  fence_async_proxy();
  __syncthreads();
  constexpr uint32_t kAtom = 8 * kRowBytes;
  constexpr uint32_t a_step = a_major == Major::kK ? 32 : 2 * kAtom;
  constexpr uint32_t b_step = b_major == Major::kK ? 32 : 2 * kAtom;
  const uint64_t a_matrix = matrix_descriptor(a_tile, Swizzle::k128, kAtom);
  const uint64_t b_matrix = matrix_descriptor(b_tile, Swizzle::k128, kAtom);
  uint32_t fragments[4][4];
  const uint32_t* words = reinterpret_cast<const uint32_t*>(a);
  const int first = (warp_index() * 16 + lane_index() / 4) * 32 + lane_index() % 4;
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i) fragments[k][i] = words[first + i % 2 * 8 * 32 + i / 2 * 4 + 8 * k];
  float d[32];
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const uint64_t b_part = advance(b_matrix, k * b_step);
    if constexpr (a_in_registers)
      wgmma_bf16<64, b_major>(d, fragments[k], b_part, k > 0);
    else
      wgmma_bf16<64, a_major, b_major>(d, advance(a_matrix, k * a_step), b_part, k > 0);
  }
  wgmma_commit();
  wgmma_wait<0>();
  pin(d);
  write_accumulator<64>(out, d);
}

// Four matrices of 8 x 8 halves, in[4 * lane + matrix], as stmatrix lays them out.
template <bool transposed>
__device__ void store_matrices(const uint32_t* in, uint32_t* out) {
  __shared__ alignas(16) uint4 rows[32];
  const uint32_t address = shared_address(&rows[threadIdx.x]);
  const uint32_t* r = in + 4 * threadIdx.x;
  if constexpr (transposed)
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
        "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
        : "memory");
  else
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
  __syncthreads();
  copy_out(out, rows, sizeof rows);
}

}  // namespace dsa

using namespace dsa;

// Two phases of 256 bytes in two copies: a phase must not end after the first one.
extern "C" __global__ void mbarrier_transactions(const uint8_t* in, uint32_t* out) {
  __shared__ alignas(128) uint8_t bytes[512];
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    fence_mbarrier_init();
    for (int phase = 0; phase < 2; ++phase) {
      const int at = 256 * phase;
      mbarrier_arrive_expect_tx(barrier, 256);
      bulk_load(bytes + at, in + at, 48, barrier);
      for (int i = 0; i < 64; ++i) __nanosleep(100);
      out[2 * phase] = phase_is_done(barrier, phase);
      bulk_load(bytes + at + 48, in + at + 48, 208, barrier);
      mbarrier_wait(barrier, phase);
      out[2 * phase + 1] = phase_is_done(barrier, phase);
    }
    for (int i = 0; i < 128; ++i) out[4 + i] = reinterpret_cast<uint32_t*>(bytes)[i];
  }
}

#define TMA(rank)                                                                                 \
  extern "C" __global__ void tma_load_##rank##d(const __grid_constant__ TensorMap map, int bytes, \
                                                int x, int y, int z, int w, uint32_t* out) {      \
    load_box<rank>(map, bytes, x, y, z, w, out);                                                  \
  }
TMA(2);
TMA(3);
TMA(4);
#undef TMA

// D [64 x 64] = A B over K = 128, e4m3, rows of k.
extern "C" __global__ void wgmma_e4m3_ss(const uint4* a, const uint4* b, float* out) {
  __shared__ alignas(1024) uint4 a_tile[512];
  __shared__ alignas(1024) uint4 b_tile[512];
  store_swizzled(a_tile, a, 64);
  store_swizzled(b_tile, b, 64);
  fence_async_proxy();
  __syncthreads();
  const uint64_t a_matrix = matrix_descriptor(a_tile, Swizzle::k128, 8 * kRowBytes);
  const uint64_t b_matrix = matrix_descriptor(b_tile, Swizzle::k128, 8 * kRowBytes);
  float d[32];
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; ++k)
    wgmma_e4m3<64>(d, advance(a_matrix, 32 * k), advance(b_matrix, 32 * k), k > 0);
  wgmma_commit();
  wgmma_wait<0>();
  pin(d);
  write_accumulator<64>(out, d);
}

#define WGMMA(name, in_registers, a_major, b_major)                                          \
  extern "C" __global__ void wgmma_bf16_##name(const uint4* a, const uint4* b, float* out) { \
    multiply_bf16<in_registers, Major::a_major, Major::b_major>(a, b, out);                  \
  }
WGMMA(ss_k_k, false, kK, kK);
WGMMA(ss_k_mn, false, kK, kMN);
WGMMA(ss_mn_k, false, kMN, kK);
WGMMA(ss_mn_mn, false, kMN, kMN);
WGMMA(rs_k, true, kK, kK);
WGMMA(rs_mn, true, kK, kMN);
#undef WGMMA

// Thread t copies sizes[t] of 16 bytes; the rest of the 16 becomes zeros.
extern "C" __global__ void cp_async_zero_fill(const uint4* in, const int* sizes, uint32_t* out) {
  __shared__ uint4 to[128];
  to[threadIdx.x] = make_uint4(~0u, ~0u, ~0u, ~0u);
  __syncthreads();
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(&to[threadIdx.x])),
      "l"(in + threadIdx.x), "r"(sizes[threadIdx.x])
      : "memory");
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  copy_out(out, to, sizeof to);
}

// Clusters of 2, 64 threads each: what st.async brought from the other CTA, then what this CTA
// reads there, and what it wrote there.
extern "C" __global__ void cluster_exchange(const uint32_t* in, uint32_t* out) {
  __shared__ uint32_t sent[64], own[64], stored[64];
  __shared__ uint64_t barrier;
  const uint32_t rank = cluster_rank(), other = rank ^ 1;
  const uint32_t value = in[rank * 64 + threadIdx.x];
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(barrier, sizeof sent);
  }
  own[threadIdx.x] = value + 1;
  cluster_sync();
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(
          remote_address(&sent[threadIdx.x], other)),
      "r"(value), "r"(remote_address(&barrier, other))
      : "memory");
  remote_store(remote_address(&stored[63 - threadIdx.x], other), value + 2);
  mbarrier_wait(barrier, 0);
  out[rank * 192 + threadIdx.x] = sent[threadIdx.x];
  out[rank * 192 + 64 + threadIdx.x] = remote_load(remote_address(&own[threadIdx.x], other));
  cluster_sync();
  out[rank * 192 + 128 + threadIdx.x] = stored[threadIdx.x];
}

extern "C" __global__ void stmatrix_x4(const uint32_t* in, uint32_t* out) {
  store_matrices<false>(in, out);
}

extern "C" __global__ void stmatrix_x4_trans(const uint32_t* in, uint32_t* out) {
  store_matrices<true>(in, out);
}

extern "C" __global__ void max_nan(const float* x, const float* y, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(out[i]) : "f"(x[i]), "f"(y[i]));
}

// Pairs of e4m3 -> f16, and bf16 by way of f16 and fp32, which is exact.
extern "C" __global__ void e4m3_to_half(const uint16_t* in, uint32_t* f16, uint32_t* bf16_out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  uint32_t half;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(half) : "h"(in[i]));
  f16[i] = half;
  asm("{ .reg .b16 l, h; .reg .f32 x, y; mov.b32 {l, h}, %1;"
      "  cvt.f32.f16 x, l; cvt.f32.f16 y, h; cvt.rn.bf16x2.f32 %0, y, x; }"
      : "=r"(bf16_out[i])
      : "r"(half));
}

// Pairs of f16 -> e4m3, and of bf16 by way of fp32.
extern "C" __global__ void half_to_e4m3(const uint32_t* in, uint16_t* from_f16,
                                        uint16_t* from_bf16) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  asm("cvt.rn.satfinite.e4m3x2.f16x2 %0, %1;" : "=h"(from_f16[i]) : "r"(in[i]));
  const float low = __uint_as_float(in[i] << 16), high = __uint_as_float(in[i] & 0xffff0000);
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(from_bf16[i]) : "f"(high), "f"(low));
}

extern "C" __global__ void exp2_approx(const float* in, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out[i]) : "f"(in[i]));
}

extern "C" __global__ void log2_approx(const float* in, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(out[i]) : "f"(in[i]));
}
