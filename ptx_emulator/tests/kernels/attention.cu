// O = softmax(scale Q K^T) V for 64 queries of 128 dims a CTA, bf16: one producer warp copies
// tiles. Of each step of 128 keys, a consumer warpgroup weighs 64, then multiplies all weights by
// its 64 columns of V, so that row maxima and weights go from one warpgroup to the other.
#include <cmath>

#include "ptx.cuh"

constexpr int QUERIES = 64, KEYS = 128, D = 128, STAGES = 2, SPAN = 64;
constexpr int MAXIMA_READY = 1, WEIGHTS_READY = 2, CONSUMERS = 256;
constexpr float LOG2E = 1.4426950408889634f;

struct Shared {
  bf16 q[2][QUERIES][SPAN];
  bf16 k[STAGES][2][KEYS][SPAN];
  bf16 v[STAGES][2][KEYS][SPAN];
  bf16 weights[2][QUERIES][SPAN];
  float maxima[2][QUERIES], sums[2][QUERIES];
  uint64_t q_full, k_full[STAGES], v_full[STAGES], k_empty[STAGES], v_empty[STAGES];
};

__device__ void produce(Shared& s, const CUtensorMap& map_q, const CUtensorMap& map_k,
                        const CUtensorMap& map_v, int head, int steps) {
  barrier_expect(s.q_full, sizeof(s.q));
  for (int half = 0; half < 2; ++half)
    copy_tile(s.q[half], map_q, s.q_full, half * SPAN, blockIdx.x * QUERIES, head);
  for (int step = 0; step < steps; ++step) {
    const int stage = step % STAGES, parity = step / STAGES & 1;
    barrier_wait(s.k_empty[stage], parity ^ 1);
    barrier_expect(s.k_full[stage], sizeof(s.k[0]));
    for (int half = 0; half < 2; ++half)
      copy_tile(s.k[stage][half], map_k, s.k_full[stage], half * SPAN, step * KEYS, head);
    barrier_wait(s.v_empty[stage], parity ^ 1);
    barrier_expect(s.v_full[stage], sizeof(s.v[0]));
    for (int half = 0; half < 2; ++half)
      copy_tile(s.v[stage][half], map_v, s.v_full[stage], half * SPAN, step * KEYS, head);
  }
}

// A thread holds two rows of a tile of 64 x 64: element i is in row (i >> 1 & 1) of the two, and in
// column i / 4 * 8 + (i & 1) from the thread's first.
__device__ int row_of(int element) {
  return element >> 1 & 1;
}
__device__ int column_of(int element) {
  return threadIdx.x % 4 * 2 + element / 4 * 8 + (element & 1);
}

__device__ float max_of_row(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ float sum_of_row(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// Stores a warp's 16 rows of weights as a tensor map with swizzle 128B would.
__device__ void store_weights(bf16 (*tile)[SPAN], const float (&weight)[32]) {
  const int lane = threadIdx.x % 32, row = lane % 16;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    uint32_t packed[4];
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 pair =
          __floats2bfloat162_rn(weight[8 * j + 2 * i], weight[8 * j + 2 * i + 1]);
      packed[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
    const int chunk = (2 * j + lane / 16) ^ (row % 8);
    store_matrices(&tile[row][chunk * 8], packed);
  }
}

struct Rows {
  int first;  // in the tile; the second is 8 below
  float largest[2] = {-INFINITY, -INFINITY};
  float mass[2] = {};
};

// Turns scores into weights in place, and shrinks the output where a row has a new maximum.
__device__ void weigh(Shared& s, int group, Rows& rows, float (&score)[32], float (&output)[32],
                      float scale, int keys_left) {
  float larger[2] = {rows.largest[0], rows.largest[1]};
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    score[i] = column_of(i) < keys_left ? score[i] * scale * LOG2E : -INFINITY;
    larger[row_of(i)] = fmaxf(larger[row_of(i)], score[i]);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    larger[r] = max_of_row(larger[r]);
    if (threadIdx.x % 4 == 0) s.maxima[group][rows.first + 8 * r] = larger[r];
  }
  named_barrier(MAXIMA_READY, CONSUMERS);
  float shrink[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    larger[r] = fmaxf(larger[r], s.maxima[group ^ 1][rows.first + 8 * r]);
    shrink[r] = exp2f(rows.largest[r] - larger[r]);
    rows.largest[r] = larger[r];
    rows.mass[r] *= shrink[r];
  }
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    score[i] = exp2f(score[i] - larger[row_of(i)]);
    rows.mass[row_of(i)] += score[i];
    output[i] *= shrink[row_of(i)];
  }
}

__device__ void consume(Shared& s, int group, bf16* o, float* lse, float scale, int head,
                        int length) {
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  Rows rows{warp * 16 + lane / 4};
  float output[32] = {};
  barrier_wait(s.q_full, 0);
  for (int step = 0; step * KEYS < length; ++step) {
    const int stage = step % STAGES, parity = step / STAGES & 1;
    float score[32];
    barrier_wait(s.k_full[stage], parity);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < D; k += 16)
      wgmma_64x64x16<false>(score, matrix_descriptor(&s.q[k / SPAN][0][k % SPAN]),
                            matrix_descriptor(&s.k[stage][k / SPAN][group * 64][k % SPAN]), k > 0);
    wgmma_commit();
    wgmma_wait<0>();
    if (lane == 0) barrier_arrive(s.k_empty[stage]);

    weigh(s, group, rows, score, output, scale, length - step * KEYS - group * 64);
    store_weights(&s.weights[group][warp * 16], score);
    fence_async_proxy();
    named_barrier(WEIGHTS_READY, CONSUMERS);

    barrier_wait(s.v_full[stage], parity);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < KEYS; k += 16)
      wgmma_64x64x16<true>(output, matrix_descriptor(&s.weights[k / SPAN][0][k % SPAN]),
                           matrix_descriptor(&s.v[stage][group][k][0]), true);
    wgmma_commit();
    wgmma_wait<0>();
    if (lane == 0) barrier_arrive(s.v_empty[stage]);
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rows.mass[r] = sum_of_row(rows.mass[r]);
    if (lane % 4 == 0) s.sums[group][rows.first + 8 * r] = rows.mass[r];
  }
  named_barrier(MAXIMA_READY, CONSUMERS);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = blockIdx.x * QUERIES + rows.first + 8 * r;
    const float mass = rows.mass[r] + s.sums[group ^ 1][rows.first + 8 * r];
    if (row >= length) continue;
    if (group == 0 && lane % 4 == 0)
      lse[head * length + row] = rows.largest[r] / LOG2E + logf(mass);
    bf16* out = o + int64_t{head * length + row} * D + group * SPAN;
#pragma unroll
    for (int i = 2 * r; i < 32; i += 4)
      *reinterpret_cast<__nv_bfloat162*>(&out[column_of(i)]) =
          __floats2bfloat162_rn(output[i] / mass, output[i + 1] / mass);
  }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    attention(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
              const __grid_constant__ CUtensorMap map_v, bf16* o, float* lse, float scale,
              int length) {
  extern __shared__ __align__(1024) uint8_t bytes[];
  Shared& s = *reinterpret_cast<Shared*>(bytes);
  if (threadIdx.x == 0) {
    barrier_init(s.q_full, 1);
    for (int stage = 0; stage < STAGES; ++stage) {
      barrier_init(s.k_full[stage], 1);
      barrier_init(s.v_full[stage], 1);
      barrier_init(s.k_empty[stage], 8);
      barrier_init(s.v_empty[stage], 8);
    }
    fence_barrier_init();
  }
  __syncthreads();

  const int warpgroup = threadIdx.x / 128, head = blockIdx.y;
  if (warpgroup == 0) {
    decrease_registers<24>();
    if (threadIdx.x < 32 && elect_one())
      produce(s, map_q, map_k, map_v, head, (length + KEYS - 1) / KEYS);
  } else {
    increase_registers<240>();
    consume(s, warpgroup - 1, o, lse, scale, head, length);
  }
}
