// C = A B^T and the sums of its columns, by clusters of 2 CTAs with 64 rows of A each. Either CTA
// fetches half of a tile of B for both; the second CTA's column sums reach the first through
// distributed shared memory.
#include "ptx.cuh"

constexpr int BM = 64, BN = 64, BK = 64, STAGES = 3, CTAS = 2;

struct Shared {
  bf16 a[STAGES][BM][BK];
  bf16 b[STAGES][BN][BK];
  float column_sums[4][BN];
  uint64_t full[STAGES], empty[STAGES];
};

__device__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}

__device__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

__device__ float load_remote(const float& x, uint32_t cta) {
  float value;
  asm volatile(
      "{ .reg .b32 remote; mapa.shared::cluster.u32 remote, %1, %2;"
      "  ld.shared::cluster.f32 %0, [remote]; }"
      : "=f"(value)
      : "r"(shared_address(&x)), "r"(cta)
      : "memory");
  return value;
}

__device__ void produce(Shared& s, const CUtensorMap& map_a, const CUtensorMap& map_b,
                        uint32_t rank, int steps) {
  constexpr int HALF = BN / CTAS;
  for (int step = 0; step < steps; ++step) {
    const int stage = step % STAGES, parity = step / STAGES & 1;
    // Both CTAs must have left the stage, for this one writes into both.
    barrier_wait_cluster(s.empty[stage], parity ^ 1);
    barrier_expect(s.full[stage], sizeof(s.a[0]) + sizeof(s.b[0]));
    copy_tile(s.a[stage], map_a, s.full[stage], step * BK, blockIdx.x * BM);
    copy_tile_multicast(s.b[stage][rank * HALF], map_b, s.full[stage], step * BK,
                        blockIdx.y * BN + rank * HALF, 0b11);
  }
}

__device__ void consume(Shared& s, float (&total)[32], int steps) {
  for (int step = 0; step < steps; ++step) {
    const int stage = step % STAGES, parity = step / STAGES & 1;
    barrier_wait_cluster(s.full[stage], parity);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < BK; k += 16)
      wgmma_64x64x16<false>(total, matrix_descriptor(&s.a[stage][0][k]),
                            matrix_descriptor(&s.b[stage][0][k]), step + k > 0);
    wgmma_commit();
    wgmma_wait<0>();
    const int lane = threadIdx.x % 32;
    if (lane < CTAS) barrier_arrive_remote(s.empty[stage], lane);
  }
}

// Adds the 16 rows of each warp, then the warps.
__device__ void sum_columns(Shared& s, const float (&total)[32]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < 8; ++j)
    for (int i = 0; i < 2; ++i) {
      float sum = total[4 * j + i] + total[4 * j + 2 + i];
      for (int offset = 4; offset < 32; offset *= 2) sum += __shfl_xor_sync(~0u, sum, offset);
      if (lane < 4) s.column_sums[warp][j * 8 + lane * 2 + i] = sum;
    }
  named_barrier(1, 128);
  if (threadIdx.x < BN)
    for (int w = 1; w < 4; ++w) s.column_sums[0][threadIdx.x] += s.column_sums[w][threadIdx.x];
}

extern "C" __global__ void __cluster_dims__(CTAS, 1, 1) __launch_bounds__(160, 1)
    cluster_gemm(const __grid_constant__ CUtensorMap map_a,
                 const __grid_constant__ CUtensorMap map_b, float* c, float* sums, int m, int n,
                 int k) {
  extern __shared__ __align__(1024) uint8_t bytes[];
  Shared& s = *reinterpret_cast<Shared*>(bytes);
  const uint32_t rank = cluster_rank();
  const int steps = (k + BK - 1) / BK;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; ++stage) {
      barrier_init(s.full[stage], 1);
      barrier_init(s.empty[stage], CTAS * 4);
    }
    fence_barrier_init();
  }
  // No CTA may touch the other's barriers before they are there.
  cluster_arrive();
  cluster_wait();

  if (threadIdx.x >= 128) {
    if (elect_one()) produce(s, map_a, map_b, rank, steps);
  } else {
    float total[32];
    consume(s, total, steps);
    sum_columns(s, total);
    const int row = blockIdx.x * BM + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    const int column = blockIdx.y * BN + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int r = row + (i & 2) * 4, x = column + i / 4 * 8 + (i & 1);
      if (r < m && x < n) c[int64_t{r} * n + x] = total[i];
    }
  }

  cluster_arrive();
  cluster_wait();
  const int column = blockIdx.y * BN + threadIdx.x;
  if (rank == 0 && threadIdx.x < BN && column < n)
    sums[int64_t{blockIdx.x / CTAS} * n + column] =
        s.column_sums[0][threadIdx.x] + load_remote(s.column_sums[0][threadIdx.x], 1);
  // The shared memory of a CTA that has ended is gone.
  cluster_arrive();
  cluster_wait();
}
