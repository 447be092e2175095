// sparse_mla_decode for sm_90a.
//
// A cluster attends for one query token and 64 of its heads, or all of up to 32. The blocks of 64
// keys of its selection are split over the CTAs; in the end their parts are merged through
// distributed shared memory. Of 128 heads, a split has a pair of CTAs, which share its keys.
//
//                      keys (a split)
//                 block 0   block 1   ...          output, of a CTA
//                +---------+---------+-            +--------------+--------------+
//      64 heads  | group 0 | group 1 |   scores    | group 0      | group 1      |
//                +---------+---------+-            | dims 0..255  | dims 256..511|
//                                                  +--------------+--------------+
//
// Warpgroups 0 and 1 score alternate blocks and each multiply the weights of all blocks by their
// half of the values; warpgroup 2 gathers keys. Up to 32 heads, both products are transposed.
// docs/sparse_mla.md tells the rest.

#include "attend_narrow.cuh"
#include "gather.cuh"
#include "merge.cuh"

namespace dsa::decode {

template <int rows, int d_qk>
__device__ __forceinline__ void load_q(Shared<d_qk>& s, const SparseMlaDecodeArgs& a, int64_t b,
                                       int64_t n, int first_head) {
  constexpr int kChunks = d_qk / 8;
  const bf16* q = static_cast<const bf16*>(a.q) + b * a.q_stride[0] + n * a.q_stride[1];
  const int heads = min(rows, a.num_heads - first_head);
#pragma unroll 1
  for (int i = threadIdx.x; i < rows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bf16* from = row < heads ? q + (first_head + row) * a.q_stride[2] + 8 * chunk
                                   : reinterpret_cast<const bf16*>(no_record);
    bf16* to = chunk_of(s.q[chunk / 8], row, chunk % 8);
    if (a.q_aligned)
      cp_async_16(to, from);
    else
      *reinterpret_cast<uint4*>(to) = load_16<false>(reinterpret_cast<const uint8_t*>(from));
  }
  cp_async_commit();
  cp_async_wait<0>();
  fence_async_proxy();
}

template <class Gather, int d_qk>
__device__ __forceinline__ void init_barriers(Shared<d_qk>& s) {
  for (int buffer = 0; buffer < 2; ++buffer) {
    mbarrier_init(s.full[buffer][kLeft], Gather::kLeftArrivals);
    mbarrier_init(s.full[buffer][kRight], Gather::kRightArrivals);
    // Warps of warpgroup 0; of both, for weights are in the right half.
    mbarrier_init(s.empty[buffer][kLeft], Gather::kCtas * 4);
    mbarrier_init(s.empty[buffer][kRight], Gather::kCtas * 8);
  }
  fence_mbarrier_init();
}

template <int d_qk, int heads, class Gather>
__device__ __forceinline__ void decode(const SparseMlaDecodeArgs& a) {
  extern __shared__ __align__(1024) uint8_t bytes[];
  Shared<d_qk>& s = *reinterpret_cast<Shared<d_qk>*>(bytes);
  constexpr int ctas = Gather::kCtas;
  constexpr bool paired = ctas == 2;
  const int split = blockIdx.x / ctas % a.splits;
  const int group_and_row = blockIdx.x / (ctas * a.splits) * ctas + blockIdx.x % ctas;
  const int first_head = group_and_row % a.head_groups * kHeads;
  const int row = group_and_row / a.head_groups;
  const int64_t b = row / a.next_n, n = row % a.next_n;
  const Selection selection(a, b, n, split);

  if (threadIdx.x == 0) init_barriers<Gather>(s);
  load_q<heads>(s, a, b, n, first_head);
  if constexpr (paired)
    cluster_sync();  // its barriers are used by both
  else
    __syncthreads();

  const int warpgroup = warp_index() / 4;
  if (warpgroup == 2) {
    decrease_registers<120>();
    Gather(a, selection).run(s);
    __syncthreads();
  } else {
    increase_registers<192>();
    using Math = std::conditional_t<heads == kHeads, Attention<d_qk, Gather::kReadersFence, paired>,
                                    NarrowAttention<d_qk, heads, Gather::kReadersFence>>;
    Math attention(s, warpgroup, a.scale_log2, a.negative_scale);
    attention.run(selection.count);
    __syncthreads();
    attention.stage();
  }
  cluster_sync();
  merge<paired>(s, a, b, n, first_head, split);
  cluster_sync();  // nobody leaves while its shared memory is read
}

}  // namespace dsa::decode

#define KERNEL(name, d_qk, heads, ...)                                                  \
  extern "C" __global__ void __launch_bounds__(dsa::kDecodeThreads, 1)                  \
      sparse_mla_decode_##name(const __grid_constant__ dsa::SparseMlaDecodeArgs args) { \
    dsa::decode::decode<d_qk, heads, dsa::decode::__VA_ARGS__>(args);                   \
  }
#define KERNELS(heads)                                                          \
  KERNEL(v32_h##heads, 576, heads, Fp8Gather<dsa::V32, true>)                   \
  KERNEL(v32_h##heads##_unaligned, 576, heads, Fp8Gather<dsa::V32, false>)      \
  KERNEL(v4_h##heads, 512, heads, Fp8Gather<dsa::V4, true>)                     \
  KERNEL(v4_h##heads##_unaligned, 512, heads, Fp8Gather<dsa::V4, false>)        \
  KERNEL(bf16_576_h##heads, 576, heads, BFloat16Gather<576, true>)              \
  KERNEL(bf16_576_h##heads##_unaligned, 576, heads, BFloat16Gather<576, false>) \
  KERNEL(bf16_512_h##heads, 512, heads, BFloat16Gather<512, true>)              \
  KERNEL(bf16_512_h##heads##_unaligned, 512, heads, BFloat16Gather<512, false>)

KERNELS(16)
KERNELS(32)
KERNELS(64)
// A pair of CTAs of 64 heads.
KERNEL(v32_h128, 576, 64, Fp8Gather<dsa::V32, true, true>)
KERNEL(v4_h128, 512, 64, Fp8Gather<dsa::V4, true, true>)
