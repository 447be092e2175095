// C = A B, A [M, K] and B [K, N] in bf16, C [M, N] in fp32, for sm_80: cp.async fills a ring of
// stages while ldmatrix and mma.sync work on an older one. K and N are multiples of 8.
#include "ptx.cuh"

constexpr int BM = 64, BN = 64, BK = 32, STAGES = 4, THREADS = 128;

struct Shared {
  bf16 a[STAGES][BM][BK];
  bf16 b[STAGES][BK][BN];
};

// Chunks of 8 elements are permuted within rows, so that ldmatrix meets no bank conflict.
__device__ int chunk_of_a(int row, int chunk) {
  return (chunk ^ (row / 2 % 4)) * 8;
}
__device__ int chunk_of_b(int row, int chunk) {
  return (chunk ^ (row % 8)) * 8;
}

// Copies 16 bytes, or zeros.
__device__ void copy_async(bf16* to, const bf16* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(inside ? 16 : 0)
               : "memory");
}

__device__ void load_stage(Shared& s, int stage, const bf16* a, const bf16* b, int row, int column,
                           int first, int m, int n, int k) {
#pragma unroll
  for (int i = 0; i < BM * BK / 8; i += THREADS) {
    const int at = i + threadIdx.x;
    const int r = at / (BK / 8), chunk = at % (BK / 8), x = first + chunk * 8;
    const bool inside = row + r < m && x < k;
    copy_async(&s.a[stage][r][chunk_of_a(r, chunk)], inside ? &a[int64_t{row + r} * k + x] : a,
               inside);
  }
#pragma unroll
  for (int i = 0; i < BK * BN / 8; i += THREADS) {
    const int at = i + threadIdx.x;
    const int r = at / (BN / 8), chunk = at % (BN / 8), x = column + chunk * 8;
    const bool inside = first + r < k && x < n;
    copy_async(&s.b[stage][r][chunk_of_b(r, chunk)], inside ? &b[int64_t{first + r} * n + x] : b,
               inside);
  }
}

// Each of 4 warps has 32 rows and 32 columns of the tile.
__device__ void multiply(const Shared& s, int stage, float (&total)[2][4][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = warp / 2 * 32, column = warp % 2 * 32;
#pragma unroll
  for (int k = 0; k < BK; k += 16) {
    uint32_t a[2][4], b[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = row + i * 16 + lane % 16;
      load_matrices(a[i], &s.a[stage][r][chunk_of_a(r, k / 8 + lane / 16)]);
      const int y = k + lane % 16;
      load_matrices_transposed(b[i], &s.b[stage][y][chunk_of_b(y, column / 8 + i * 2 + lane / 16)]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        mma_16x8x16(total[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    gemm_cp_async(const bf16* a, const bf16* b, float* c, int m, int n, int k) {
  extern __shared__ __align__(128) uint8_t bytes[];
  Shared& s = *reinterpret_cast<Shared*>(bytes);
  const int row = blockIdx.y * BM, column = blockIdx.x * BN, steps = (k + BK - 1) / BK;
  // One group is committed for each step, an empty one at the end, so that counting them is easy.
  for (int step = 0; step < STAGES - 1; ++step) {
    if (step < steps) load_stage(s, step, a, b, row, column, step * BK, m, n, k);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  float total[2][4][4] = {};
  for (int step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
    __syncthreads();  // the stage is there for all, and all are done with the one before
    const int next = step + STAGES - 1;
    if (next < steps) load_stage(s, next % STAGES, a, b, row, column, next * BK, m, n, k);
    asm volatile("cp.async.commit_group;" ::: "memory");
    multiply(s, step % STAGES, total);
  }

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int r = row + warp / 2 * 32 + i / 16 * 16 + i / 2 % 2 * 8 + lane / 4;
    const int x = column + warp % 2 * 32 + i / 4 % 4 * 8 + lane % 4 * 2 + i % 2;
    if (r < m && x < n) c[int64_t{r} * n + x] = total[i / 16][i / 4 % 4][i % 4];
  }
}
