// C = A B^T, A [M, K] and B [N, K] in bf16, C [M, N] in fp32, with K split over CTAs: each leaves
// its partial tile in global memory and counts itself; the last of a tile adds them in order.
#include "ptx.cuh"

constexpr int BM = 32, BN = 32, BK = 64, PITCH = BK + 8, THREADS = 128;

struct Shared {
  bf16 a[BM][PITCH];  // the pitch keeps ldmatrix free of bank conflicts
  bf16 b[BN][PITCH];
  bool is_last;
};

// Copies BK columns of 32 rows; what lies beyond m or `end` is zero. Columns go by eights.
__device__ void load_tile(bf16 (*tile)[PITCH], const bf16* matrix, int row, int column, int m,
                          int end, int pitch) {
#pragma unroll
  for (int i = 0; i < 32 * BK / 8; i += THREADS) {
    const int chunk = i + threadIdx.x, r = chunk / (BK / 8), x = chunk % (BK / 8) * 8;
    const bool inside = row + r < m && column + x < end;
    *reinterpret_cast<uint4*>(&tile[r][x]) =
        inside ? *reinterpret_cast<const uint4*>(&matrix[int64_t{row + r} * pitch + column + x])
               : uint4{};
  }
}

// Each of 4 warps has 16 rows and 16 columns of the tile.
__device__ void multiply(const Shared& s, float (&total)[2][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = warp / 2 * 16, column = warp % 2 * 16;
#pragma unroll
  for (int k = 0; k < BK; k += 16) {
    uint32_t a[4], b[4];
    load_matrices(a, &s.a[row + lane % 16][k + lane / 16 * 8]);
    load_matrices(b, &s.b[column + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
    mma_16x8x16(total[0], a, b[0], b[1]);
    mma_16x8x16(total[1], a, b[2], b[3]);
  }
}

__device__ bool is_last_of_tile(Shared& s, unsigned* arrived) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // the partial tile, whose parts the barrier has gathered, before the count
    s.is_last = atomicAdd(arrived, 1) == gridDim.z - 1;
    __threadfence();              // the others' partial tiles after their count
    if (s.is_last) *arrived = 0;  // for the next launch
  }
  __syncthreads();
  return s.is_last;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    split_k(const bf16* a, const bf16* b, float* c, float* partials, unsigned* arrived, int m,
            int n, int k, int k_of_cta) {
  __shared__ __align__(16) Shared s;
  const int row = blockIdx.y * BM, column = blockIdx.x * BN;
  const int first = blockIdx.z * k_of_cta, end = min(k, first + k_of_cta);
  float total[2][4] = {};
  for (int x = first; x < end; x += BK) {
    __syncthreads();
    load_tile(s.a, a, row, x, m, end, k);
    load_tile(s.b, b, column, x, n, end, k);
    __syncthreads();
    multiply(s, total);
  }

  const int tile = blockIdx.y * gridDim.x + blockIdx.x;
  float* partial = partials + int64_t{tile} * gridDim.z * BM * BN;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = 0; i < 8; ++i) {
    const int r = warp / 2 * 16 + lane / 4 + i / 2 % 2 * 8;
    const int x = warp % 2 * 16 + i / 4 * 8 + lane % 4 * 2 + i % 2;
    partial[(blockIdx.z * BM + r) * BN + x] = total[i / 4][i % 4];
  }
  if (!is_last_of_tile(s, &arrived[tile])) return;
#pragma unroll 1
  for (int i = threadIdx.x; i < BM * BN; i += THREADS) {
    float sum = 0;
#pragma unroll 1
    for (int z = 0; z < gridDim.z; ++z) sum += __ldcg(&partial[z * BM * BN + i]);
    const int r = row + i / BN, x = column + i % BN;
    if (r < m && x < n) c[int64_t{r} * n + x] = sum;
  }
}
