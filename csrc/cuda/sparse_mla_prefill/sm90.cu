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
#include "gather_fp8.cuh"

namespace dsa::prefill {

template <class S>
__device__ __forceinline__ void load_q(S& s, const SparseMlaPrefillArgs& a, int64_t query,
                                       int first_head) {
  constexpr int kChunks = S::kTiles * 8;
  const bf16* q =
      static_cast<const bf16*>(a.q) + query * a.q_stride[0] + first_head * a.q_stride[1];
  const int heads = min(kHeads, a.num_heads - first_head);
#pragma unroll 1
  for (int i = threadIdx.x; i < kHeads * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bf16* from = row < heads ? q + row * a.q_stride[1] + 8 * chunk
                                   : reinterpret_cast<const bf16*>(no_record);
    bf16* to = chunk_of(s.q[chunk / 8], row, chunk % 8);
    if (a.q_aligned && !a.negate_q) {
      cp_async_16(to, from);
    } else {
      uint4 value = load_16<false>(reinterpret_cast<const uint8_t*>(from));
      const uint32_t flip = a.negate_q ? 0x80008000 : 0;
      value = make_uint4(value.x ^ flip, value.y ^ flip, value.z ^ flip, value.w ^ flip);
      *reinterpret_cast<uint4*>(to) = value;
    }
  }
  cp_async_commit();
  cp_async_wait<0>();
  fence_async_proxy();
}

// Keys that are bf16 where they lie: contiguous or in pages, copied by 16 bytes where they can be.
template <int d_qk>
struct BFloat16Keys {
  using S = Shared<d_qk, 1>;
  static constexpr int kRegisters = 56, kMathRegisters = 224;
  // Of a half that is loaded: the threads' copies, and their warps.
  static constexpr int arrivals(Half) { return kWarpgroup + 4; }

  static __device__ __forceinline__ void gather(S& s, const Selection& selection,
                                                const SparseMlaPrefillArgs& a, int64_t query) {
    const int blocks = selection.blocks();
    if (a.kv != nullptr) {
      if (a.keys_aligned)
        Gather<S, ContiguousRows<true>, true>(s, selection, a, query).run(blocks);
      else
        Gather<S, ContiguousRows<false>, false>(s, selection, a, query).run(blocks);
    } else {
      if (a.keys_aligned)
        Gather<S, PagedRows<d_qk>, true>(s, selection, a, query).run(blocks);
      else
        Gather<S, PagedRows<d_qk>, false>(s, selection, a, query).run(blocks);
    }
  }
};

// Records of pages, to be dequantised.
template <class Format>
struct Fp8Keys {
  using S = Shared<Format::kNopeDim + kRopeDim, 0>;
  static constexpr int kRegisters = 88, kMathRegisters = 208;
  // Those of the right half arrive for RoPE dims, which are copied, and for codes.
  static constexpr int arrivals(Half half) { return half == kRight ? 2 * kWarpgroup : kWarpgroup; }

  static __device__ __forceinline__ void gather(S& s, const Selection& selection,
                                                const SparseMlaPrefillArgs& a, int64_t) {
    if (a.keys_aligned)
      Fp8Gather<S, Format, true>(s, selection, a).run(selection.blocks());
    else
      Fp8Gather<S, Format, false>(s, selection, a).run(selection.blocks());
  }
};

template <class Keys>
__device__ __forceinline__ void init_barriers(typename Keys::S& s) {
#pragma unroll
  for (int buffer = 0; buffer < 2; ++buffer)
#pragma unroll
    for (const Half half : {kLeft, kRight}) {
      mbarrier_init(s.full[buffer][half], Keys::arrivals(half));
      mbarrier_init(s.empty[buffer][half], 4);  // warps of the warpgroup whose half it is
    }
  fence_mbarrier_init();
}

template <int group, class S>
__device__ __forceinline__ void attend(S& s, const SparseMlaPrefillArgs& a, int64_t query,
                                       int first_head, int blocks) {
  Attention<S, group> attention(s, a.scale_log2);
  attention.run(blocks);
  finish(attention, a, query, first_head);
}

template <class Keys>
__device__ __forceinline__ void prefill(const SparseMlaPrefillArgs& a) {
  extern __shared__ __align__(1024) uint8_t bytes[];
  using S = typename Keys::S;
  static_assert(sizeof(S) <= kPrefillSharedBytes);
  S& s = *reinterpret_cast<S*>(bytes);
  const int64_t query = blockIdx.x / a.head_groups;
  const int first_head = blockIdx.x % a.head_groups * kHeads;
  const Selection selection(a, query);

  if (threadIdx.x == 0) init_barriers<Keys>(s);
  load_q(s, a, query, first_head);
  __syncthreads();

  const int warpgroup = warp_index() / 4;
  if (warpgroup == 2) {
    decrease_registers<Keys::kRegisters>();
    Keys::gather(s, selection, a, query);
  } else {
    increase_registers<Keys::kMathRegisters>();
    if (warpgroup == 0)
      attend<0>(s, a, query, first_head, selection.blocks());
    else
      attend<1>(s, a, query, first_head, selection.blocks());
  }
}

}  // namespace dsa::prefill

#define KERNEL(name, ...)                                                                 \
  extern "C" __global__ void __launch_bounds__(dsa::prefill::kThreads, 1)                 \
      sparse_mla_prefill_##name(const __grid_constant__ dsa::SparseMlaPrefillArgs args) { \
    dsa::prefill::prefill<dsa::prefill::__VA_ARGS__>(args);                               \
  }

KERNEL(bf16_576, BFloat16Keys<576>)
KERNEL(bf16_512, BFloat16Keys<512>)
KERNEL(v32, Fp8Keys<dsa::V32>)
KERNEL(v4, Fp8Keys<dsa::V4>)
