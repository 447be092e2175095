// A ring of two stages that bulk copies fill, scaled into a tile that bulk copies take away, with
// the mistakes of docs/debugging.md, which macros plant.
#include "ptx.cuh"

constexpr int N = 128;  // elements of a tile, and threads that scale them
constexpr int STAGES = 2;

struct Shared {
  float in[STAGES][N], out[N];
  uint64_t full[STAGES], empty[STAGES];
};

__device__ void load_bulk(void* tile, const void* source, uint32_t bytes, uint64_t& barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(tile)),
      "l"(source), "r"(bytes), "r"(shared_address(&barrier))
      : "memory");
}

__device__ void store_bulk(void* target, const void* tile, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(target),
               "r"(shared_address(tile)), "r"(bytes)
               : "memory");
}

__device__ void wait_reads() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

__device__ void produce(Shared& s, const float* x, int tiles) {
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % STAGES, round = tile / STAGES;
    barrier_wait(s.empty[stage], (round & 1) ^ 1);
#ifdef MANY_BYTES
    barrier_expect(s.full[stage], 2 * sizeof(s.in[0]));
#else
    barrier_expect(s.full[stage], sizeof(s.in[0]));
#endif
    load_bulk(s.in[stage], x + tile * N, sizeof(s.in[0]), s.full[stage]);
  }
}

__device__ void consume(Shared& s, float* y, int tiles) {
  const int thread = threadIdx.x;
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % STAGES, round = tile / STAGES;
#ifndef NO_FULL_WAIT
    barrier_wait(s.full[stage], round & 1);
#endif
#ifdef EARLY_RELEASE
    barrier_arrive(s.empty[stage]);
#endif
    const float scaled = 2 * s.in[stage][thread];
#if !defined(EARLY_RELEASE) && !defined(NO_RELEASE)
    barrier_arrive(s.empty[stage]);
#endif
#ifndef NO_READ_WAIT
    if (thread == 0) wait_reads();
#endif
    named_barrier(1, N);
#ifdef FORGOTTEN_ELEMENT
    if (thread != 5)
#endif
      s.out[thread] = scaled;
#ifndef NO_PROXY_FENCE
    fence_async_proxy();
#endif
    named_barrier(1, N);
    if (thread == 0) {
      store_bulk(y + tile * N, s.out, sizeof(s.out));
      commit_stores();
    }
  }
  if (thread == 0) wait_stores();
}

extern "C" __global__ void scale_tiles(const float* x, float* y, int tiles) {
  __shared__ Shared s;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; ++stage) {
      barrier_init(s.full[stage], 1);
      barrier_init(s.empty[stage], N);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x < N) {
    consume(s, y, tiles);
  } else if (threadIdx.x == N) {
    produce(s, x, tiles);
  }
}
