// Kernels that synchronise in every way there is, each with mistakes that macros plant.
#include <cstdint>

#ifdef NO_FENCE
#define FENCE()
#elif defined(BLOCK_FENCE)
#define FENCE() __threadfence_block()
#else
#define FENCE() __threadfence()
#endif
#ifdef NO_SYNC
#define SYNC()
#else
#define SYNC() __syncthreads()
#endif
#ifdef NO_SECOND_SYNC
#define SECOND_SYNC()
#else
#define SECOND_SYNC() __syncthreads()
#endif
#ifdef NO_SYNCWARP
#define SYNCWARP()
#else
#define SYNCWARP() __syncwarp()
#endif
#ifdef RELAXED
#define ORDER ".relaxed"
#else
#define ORDER ".acq_rel"
#endif
#ifdef CTA_SCOPE
#define SCOPE ".cta"
#else
#define SCOPE ".gpu"
#endif

__device__ unsigned count_up(unsigned* counter) {
#ifdef PLAIN
  const unsigned old = *counter;
  *counter = old + 1;
  return old;
#elif defined(BY_ORDER)
  unsigned old;
  asm volatile("atom" ORDER SCOPE ".global.add.u32 %0, [%1], 1;"
               : "=r"(old)
               : "l"(counter)
               : "memory");
  return old;
#else
  return atomicAdd(counter, 1);
#endif
}

// Sums parts of x; the last CTA to finish adds the sums: "threadFenceReduction" of the CUDA
// samples. Every thread writes a partial sum of its own, so that the first barrier matters.
extern "C" __global__ void last_block(const float* x, float* partial, unsigned* counter, float* out,
                                      int n) {
  __shared__ bool last;
  const int threads = gridDim.x * blockDim.x, thread = blockIdx.x * blockDim.x + threadIdx.x;
  float sum = 0;
  for (int i = thread; i < n; i += threads) sum += x[i];
  partial[thread] = sum;
#ifndef BY_ORDER
  FENCE();
#endif
  SYNC();
  if (threadIdx.x == 0) last = count_up(counter) == gridDim.x - 1;
  SECOND_SYNC();
  if (!last) return;
#ifndef BY_ORDER
  FENCE();
#endif
  for (int i = threadIdx.x; i < blockDim.x; i += blockDim.x) {
    float total = 0;
    for (int b = 0; b < gridDim.x; ++b) total += partial[b * blockDim.x + i];
    out[i] = total;
  }
}

// Thread 0 alone fences, behind the barrier: cumulativity carries what the others wrote.
extern "C" __global__ void one_fence(float* partial, unsigned* counter, float* out) {
  __shared__ bool last;
  partial[blockIdx.x * blockDim.x + threadIdx.x] = blockIdx.x + 1;
  SYNC();
  if (threadIdx.x == 0) {
    FENCE();
    last = count_up(counter) == gridDim.x - 1;
    FENCE();
  }
  SECOND_SYNC();
  if (!last) return;
  float total = 0;
  for (int b = 0; b < gridDim.x; ++b) total += partial[b * blockDim.x + threadIdx.x];
  out[threadIdx.x] = total;
}

__device__ unsigned load_flag(const unsigned* p) {
  unsigned v;
#ifdef VOLATILE
  v = *static_cast<const volatile unsigned*>(p);
#elif defined(RELAXED_READ)
  asm volatile("ld.relaxed.gpu.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
#else
  asm volatile("ld.acquire" SCOPE ".u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
#endif
  return v;
}
__device__ void store_flag(unsigned* p, unsigned v) {
#ifdef PLAIN
  *p = v;
#elif defined(VOLATILE)
  *static_cast<volatile unsigned*>(p) = v;
#elif defined(RELAXED)
  asm volatile("st.relaxed.gpu.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
#else
  asm volatile("st.release" SCOPE ".u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
#endif
}

// CTA b waits for CTA b + 1, which most likely starts later, and adds to what it left.
extern "C" __global__ void chain(float* data, unsigned* flags) {
  const int b = blockIdx.x;
  float before = 0;
  if (b + 1 < gridDim.x) {
    if (threadIdx.x == 0)
      while (load_flag(&flags[b + 1]) == 0) {
      }
#ifdef VOLATILE
    if (threadIdx.x == 0) FENCE();
#endif
    SYNC();
    before = data[(b + 1) * blockDim.x + threadIdx.x];
  }
  data[b * blockDim.x + threadIdx.x] = before + 1;
  SECOND_SYNC();
#ifdef VOLATILE
  if (threadIdx.x == 0) FENCE();
#endif
  if (threadIdx.x == 0) store_flag(&flags[b], 1);
}

// A barrier of the whole grid, as cooperative groups make it, between rounds of neighbours' reads.
__device__ void grid_barrier(unsigned* arrived, unsigned goal) {
  SYNC();
  if (threadIdx.x == 0) {
    FENCE();
    atomicAdd(arrived, 1);
    while (*static_cast<volatile unsigned*>(arrived) < goal) {
    }
    FENCE();
  }
  SECOND_SYNC();
}
extern "C" __global__ void grid_rounds(float* a, float* b, unsigned* arrived, int rounds) {
  const int threads = gridDim.x * blockDim.x, me = blockIdx.x * blockDim.x + threadIdx.x;
  for (int r = 0; r < rounds; ++r) {
    b[me] = a[(me + blockDim.x) % threads] + 1;
    grid_barrier(arrived, (2 * r + 1) * gridDim.x);
    a[me] = b[(me + blockDim.x) % threads];
    grid_barrier(arrived, (2 * r + 2) * gridDim.x);
  }
}

extern "C" __global__ void reverse_shared(const float* x, float* y, int rounds) {
  __shared__ float s[256];
  for (int r = 0; r < rounds; ++r) {
    s[threadIdx.x] = x[threadIdx.x] + r;
    SYNC();
    y[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
    SECOND_SYNC();
  }
}

// Neighbouring lanes swap through shared memory, with elements of T.
template <class T>
__device__ void swap_lanes(const T* x, T* y) {
  __shared__ T s[256];
  s[threadIdx.x] = x[threadIdx.x];
  SYNCWARP();
  y[threadIdx.x] = s[threadIdx.x ^ 1];
}
extern "C" __global__ void swap_words(const uint32_t* x, uint32_t* y) {
  swap_lanes(x, y);
}
extern "C" __global__ void swap_halves(const uint16_t* x, uint16_t* y) {
  swap_lanes(x, y);
}
extern "C" __global__ void swap_bytes(const uint8_t* x, uint8_t* y) {
  swap_lanes(x, y);
}
extern "C" __global__ void swap_vectors(const uint4* x, uint4* y) {
  swap_lanes(x, y);
}

// One lane fetches for its warp.
extern "C" __global__ void leader(const unsigned* x, unsigned* y) {
  __shared__ unsigned s[8];
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) s[warp] = x[warp];
  SYNCWARP();
  y[threadIdx.x] = s[warp];
  SECOND_SYNC();
  if (threadIdx.x % 32 == 5) s[warp ^ 1] = 7;
}

extern "C" __global__ void histogram(const uint8_t* x, unsigned* y, int n) {
  __shared__ unsigned bins[64];
  if (threadIdx.x < 64) bins[threadIdx.x] = 0;
  SYNC();
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
#ifdef PLAIN
    ++bins[x[i] % 64];
#else
    atomicAdd(&bins[x[i] % 64], 1);
#endif
  }
  SECOND_SYNC();
  if (threadIdx.x < 64) atomicAdd(&y[threadIdx.x], bins[threadIdx.x]);
}

// Pairs of warps hand over through named barriers: one arrives, the other waits.
extern "C" __global__ void hand_over(const float* x, float* y) {
  __shared__ float s[64];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, pair = warp / 2;
  if (warp % 2 == 0) {
    s[pair * 32 + lane] = x[pair * 32 + lane];
#ifdef WRONG_BARRIER
    asm volatile("bar.arrive %0, 64;" ::"r"(1 + (pair ^ 1)) : "memory");
#else
    asm volatile("bar.arrive %0, 64;" ::"r"(1 + pair) : "memory");
#endif
  } else {
#ifndef NO_SYNC
    asm volatile("bar.sync %0, 64;" ::"r"(1 + pair) : "memory");
#endif
    y[pair * 32 + lane] = s[pair * 32 + 31 - lane];
  }
}

// Each CTA of a cluster of two reads the other's shared memory.
extern "C" __global__ void __cluster_dims__(2, 1, 1) cluster_swap(const float* x, float* y) {
  __shared__ float s[128];
  s[threadIdx.x] = x[blockIdx.x * 128 + threadIdx.x];
#ifndef NO_SYNC
  asm volatile(
      "barrier.cluster.arrive"
#ifdef RELAXED
      ".relaxed"
#endif
      ".aligned;\nbarrier.cluster.wait.aligned;" ::
          : "memory");
#endif
  const uint32_t mine = static_cast<uint32_t>(__cvta_generic_to_shared(&s[threadIdx.x]));
  uint32_t other;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(other) : "r"(mine), "r"((blockIdx.x ^ 1) & 1));
  float v;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(other) : "memory");
  y[blockIdx.x * 128 + threadIdx.x] = v;
#ifndef NO_SECOND_SYNC
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
#endif
  s[threadIdx.x] = 0;
}
