// C = A B^T, A [M, K] and B [N, K] in bf16, C [M, N] in fp32: one producer warp fills a ring of
// stages with tensor copies, two consumer warpgroups multiply 64 rows each and store them through
// shared memory. N is a multiple of 4.
#include "ptx.cuh"

constexpr int BM = 128, BN = 64, BK = 64, STAGES = 4;

struct Shared {
  bf16 a[STAGES][BM][BK];
  bf16 b[STAGES][BN][BK];
  float c[BM][BN];
  uint64_t full[STAGES], empty[STAGES];
};

__device__ void produce(Shared& s, const CUtensorMap& map_a, const CUtensorMap& map_b, int steps) {
  for (int step = 0; step < steps; ++step) {
    const int stage = step % STAGES, round = step / STAGES;
    barrier_wait(s.empty[stage], (round & 1) ^ 1);
    barrier_expect(s.full[stage], sizeof(s.a[0]) + sizeof(s.b[0]));
    copy_tile(s.a[stage], map_a, s.full[stage], step * BK, blockIdx.y * BM);
    copy_tile(s.b[stage], map_b, s.full[stage], step * BK, blockIdx.x * BN);
  }
}

__device__ void consume(Shared& s, float (&total)[32], int first_row, int steps) {
  for (int step = 0; step < steps; ++step) {
    const int stage = step % STAGES, round = step / STAGES;
    barrier_wait(s.full[stage], round & 1);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < BK; k += 16)
      wgmma_64x64x16<false>(total, matrix_descriptor(&s.a[stage][first_row][k]),
                            matrix_descriptor(&s.b[stage][0][k]), step + k > 0);
    wgmma_commit();
    // One product stays in flight; this warp is done with the stage of the one before.
    wgmma_wait<1>();
    if (step > 0 && threadIdx.x % 32 == 0) barrier_arrive(s.empty[(step - 1) % STAGES]);
  }
  wgmma_wait<0>();
}

__device__ void store(Shared& s, const CUtensorMap& map_c, const float (&total)[32], int group) {
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  float (*tile)[BN] = s.c + group * 64;
#pragma unroll
  for (int i = 0; i < 32; i += 2) {
    const int row = warp * 16 + lane / 4 + (i & 2) * 4, column = lane % 4 * 2 + i / 4 * 8;
    *reinterpret_cast<float2*>(&tile[row][column]) = make_float2(total[i], total[i + 1]);
  }
  fence_async_proxy();
  named_barrier(1 + group, 128);
  if (threadIdx.x % 128 == 0) {
    store_tile(map_c, tile, blockIdx.x * BN, blockIdx.y * BM + group * 64);
    commit_stores();
    wait_stores();
  }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    gemm_ring(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
              const __grid_constant__ CUtensorMap map_c, int k) {
  extern __shared__ __align__(1024) uint8_t bytes[];
  Shared& s = *reinterpret_cast<Shared*>(bytes);
  if (threadIdx.x == 0) {
    prefetch_map(map_a);
    prefetch_map(map_b);
    for (int stage = 0; stage < STAGES; ++stage) {
      barrier_init(s.full[stage], 1);
      barrier_init(s.empty[stage], 8);
    }
    fence_barrier_init();
  }
  __syncthreads();

  const int warpgroup = threadIdx.x / 128, steps = (k + BK - 1) / BK;
  if (warpgroup == 0) {
    decrease_registers<24>();
    if (threadIdx.x < 32 && elect_one()) produce(s, map_a, map_b, steps);
  } else {
    increase_registers<240>();
    float total[32];
    consume(s, total, (warpgroup - 1) * 64, steps);
    store(s, map_c, total, warpgroup - 1);
  }
}
