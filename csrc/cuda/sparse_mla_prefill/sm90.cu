// sparse_mla_prefill for sm_90a.
//
// A CTA attends for one query token and 64 of its heads, in blocks of 64 of the selected keys.
//
//                      keys
//                 block 0   block 1   block 2 ...         output
//                +---------+---------+---------+-         +--------------+--------------+
//      64 heads  | group 0 | group 1 | group 0 |  scores  | group 0      | group 1      |
//                +---------+---------+---------+-         | dims 0..255  | dims 256..511|
//                                                         +--------------+--------------+
//
// Warpgroups 0 and 1 score alternate blocks and each multiply the weights of all blocks by their
// half of the values; warpgroup 2 gathers keys. docs/sparse_mla.md tells the rest.

#include "epilogue.cuh"
#include "gather.cuh"

namespace dsa::prefill {

template <int d_qk>
__device__ __forceinline__ void load_q(Shared<d_qk>& s, const SparseMlaPrefillArgs& a,
                                       int64_t query, int first_head) {
  constexpr int kChunks = d_qk / 8;
  const bf16* q =
      static_cast<const bf16*>(a.q) + query * a.q_stride[0] + first_head * a.q_stride[1];
  const int heads = min(kHeads, a.num_heads - first_head);
#pragma unroll 1
  for (int i = threadIdx.x; i < kHeads * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool valid = row < heads;
    const bf16* from = q + (valid ? row : 0) * a.q_stride[1] + 8 * chunk;
    bf16* to = chunk_of(s.q[chunk / 8], row, chunk % 8);
    if (a.q_aligned && !a.negate_q) {
      cp_async_16(to, from, valid);
    } else {
      uint4 value = load_16<false>(reinterpret_cast<const uint8_t*>(from), valid);
      const uint32_t flip = a.negate_q ? 0x80008000 : 0;
      value = make_uint4(value.x ^ flip, value.y ^ flip, value.z ^ flip, value.w ^ flip);
      *reinterpret_cast<uint4*>(to) = value;
    }
  }
  cp_async_commit();
  cp_async_wait<0>();
  fence_async_proxy();
}

template <class Gather, int d_qk>
__device__ __forceinline__ void init_barriers(Shared<d_qk>& s) {
#pragma unroll
  for (int buffer = 0; buffer < 2; ++buffer)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool first = half == first_half(buffer);
      mbarrier_init(s.full[buffer][half], kWarpgroup + (first ? Gather::kValidArrivals : 0));
      mbarrier_init(s.empty[buffer][half], 4);  // warps of the warpgroup whose half it is
    }
  fence_mbarrier_init();
}

template <int d_qk, int group>
__device__ __forceinline__ void attend(Shared<d_qk>& s, const SparseMlaPrefillArgs& a,
                                       int64_t query, int first_head, int blocks) {
  Attention<d_qk, group> attention(s, a.scale_log2);
  attention.run(blocks);
  finish(attention, a, query, first_head);
}

template <int d_qk, class Gather>
__device__ __forceinline__ void prefill(const SparseMlaPrefillArgs& a) {
  extern __shared__ __align__(1024) uint8_t bytes[];
  Shared<d_qk>& s = *reinterpret_cast<Shared<d_qk>*>(bytes);
  const int64_t query = blockIdx.x / a.head_groups;
  const int first_head = blockIdx.x % a.head_groups * kHeads;
  const Selection selection(a, query);

  if (threadIdx.x == 0) init_barriers<Gather>(s);
  load_q(s, a, query, first_head);
  __syncthreads();

  const int warpgroup = warp_index() / 4;
  if (warpgroup == 2) {
    decrease_registers<Gather::kRegisters>();
    Gather(s, selection, a, query).run(selection.blocks());
  } else {
    increase_registers<Gather::kMathRegisters>();
    if (warpgroup == 0)
      attend<d_qk, 0>(s, a, query, first_head, selection.blocks());
    else
      attend<d_qk, 1>(s, a, query, first_head, selection.blocks());
  }
}

}  // namespace dsa::prefill

#define KERNEL(name, d_qk, ...)                                            \
  extern "C" __global__ void __launch_bounds__(dsa::prefill::kThreads, 1)  \
      sparse_mla_prefill_##name(                                           \
          const __grid_constant__ dsa::SparseMlaPrefillArgs args) {        \
    dsa::prefill::prefill<d_qk, dsa::prefill::__VA_ARGS__>(args);          \
  }
#define KERNELS(name, d_qk, Rows)                                              \
  KERNEL(name##_##d_qk, d_qk, Gather<d_qk, dsa::prefill::Rows, true>)          \
  KERNEL(name##_##d_qk##_unaligned, d_qk, Gather<d_qk, dsa::prefill::Rows, false>)

KERNELS(kv, 576, ContiguousRows)
KERNELS(kv, 512, ContiguousRows)
KERNELS(bf16, 576, PagedRows)
KERNELS(bf16, 512, PagedRows)
