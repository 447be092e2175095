// Indexer scores of each request's query tokens against its keys in the paged index cache.
//
//   out[t, s] = k_scale[s] * sum_h weights[t, h] * relu(q[t, h] . k[s])    for s < seq_lens[t]
//
// A block is up to `queries` tokens of one request; its tiles begin at the request's first key.
// Keys on invalid pages score -inf.
#include "../device/indexer_score.cuh"
#include "kernel.h"

namespace dsa {
namespace {

template <class C>
struct Paged {
  static constexpr bool kHoles = true;
  // Lane i has the page of entry `first + i` of the request's row of the block table.
  struct LoadState {
    int request = -1, first = 0, page = -1;
  };

  const PagedMqaLogitsArgs& a;
  const TensorMap &q_map, &k_map, &scale_map;

  __device__ int blocks_of_request() const { return ceil_div(a.next_n, C::kQueries); }
  __device__ int num_blocks() const { return a.batch * blocks_of_request(); }
  __device__ bool has_scale() const { return true; }
  __device__ int request_of(int block) const {
    return static_cast<int>(a.by_blocks.quotient(static_cast<uint32_t>(block)));
  }
  __device__ int token_of(int block, int i) const {
    return (block - request_of(block) * blocks_of_request()) * C::kQueries + i;
  }
  __device__ int64_t row_of(int block, int i) const {
    return int64_t{request_of(block)} * a.next_n + token_of(block, i);
  }

  __device__ int length(int request, int token) const {
    const int n = a.seq_lens[request * a.lens_batch_stride + token * a.lens_token_stride] -
                  (DSA_FAULT == 151);
    return max(min(n, a.max_seq_len), 0);
  }
  __device__ RowRange row_range(int block, int i) const {
    const int token = token_of(block, i);
    if (token >= a.next_n) return {0, 0};
    const int n = length(request_of(block), token);
    return {0, n < a.min_keys ? 0 : static_cast<int>(min(int64_t{n}, a.addressable))};
  }
  __device__ RowRange block_range(int block) const {
    int end = 0;
    for (int i = 0; i < C::kQueries; ++i) end = max(end, row_range(block, i).end);
    return {0, end};
  }

  __device__ float weight(int block, int i, int head) const {
    return token_of(block, i) < a.next_n ? a.weights[row_of(block, i) * a.weights_stride + head]
                                         : 0.0f;
  }

  __device__ void load_queries(ScoreShared<C>& s, int stage, int block) const {
    if (a.map_q) {
      if (elect_one()) {
        mbarrier_arrive_expect_tx(s.q_full[stage], C::kQueryBytes);
        tma_load(s.q[stage], q_map, s.q_full[stage], 0, 0, token_of(block, 0), request_of(block));
      }
      return;
    }
    copy_rows<C>(s.q[stage], C::kN, [&](int i) -> const uint8_t* {
      const int token = token_of(block, i / C::kHeads);
      if (token >= a.next_n) return nullptr;
      return static_cast<const uint8_t*>(a.q) + request_of(block) * a.q_batch_stride +
             token * a.q_token_stride + i % C::kHeads * a.q_head_stride;
    });
    __syncwarp();
    if (lane_index() == 0) mbarrier_arrive(s.q_full[stage]);
  }

  // The page of an entry of the block table, in all lanes; -1 where it is not valid.
  __device__ int page_of(int request, int entry, LoadState& state) const {
    if (request != state.request || entry < state.first || entry >= state.first + kWarp) {
      state.request = request;
      state.first = entry;
      const int mine = entry + lane_index();
      state.page = mine < a.max_pages ? a.block_table[request * a.table_stride + mine] : -1;
      if (state.page >= a.num_pages) state.page = -1;
    }
    return __shfl_sync(0xffffffff, state.page, entry - state.first);
  }

  __device__ void load_keys(ScoreShared<C>& s, int stage, int block, int first_key,
                            LoadState& state) const {
    if (a.map_pages)
      load_pages(s, stage, request_of(block), first_key, state);
    else
      copy_keys(s, stage, request_of(block), first_key);
  }

  // Tiles of one page, or pages of half a tile.
  __device__ void load_pages(ScoreShared<C>& s, int stage, int request, int first_key,
                             LoadState& state) const {
    const int rows = min(a.page_size, C::kKeys), parts = a.page_size < C::kKeys ? 2 : 1;
    const int entry = static_cast<int>(a.by_page_size.quotient(static_cast<uint32_t>(first_key)));
    const int inside = first_key - entry * a.page_size;
    const int pages[2] = {page_of(request, entry, state),
                          parts > 1 ? page_of(request, entry + 1, state) : -1};
    const int valid = (pages[0] >= 0) + (pages[1] >= 0);
    if (valid * rows < C::kKeys) {  // what no page fills is multiplied all the same
      auto* words = reinterpret_cast<uint4*>(s.k[stage]);
      for (int i = lane_index(); i < C::kKeyBytes / 16; i += kWarp) words[i] = uint4{};
      for (int i = lane_index(); i < C::kKeys; i += kWarp) s.scale[stage][i] = 0;
      fence_async_proxy();
      __syncwarp();
    }
    if (!elect_one()) return;
    const uint64_t part_of_tile = parts > 1 ? 0xffffffff : ~uint64_t{0};
    s.exists[stage] = (pages[0] >= 0 ? part_of_tile : 0) | (pages[1] >= 0 ? part_of_tile << 32 : 0);
    mbarrier_arrive_expect_tx(s.k_full[stage], valid * rows * (C::kRowBytes + 4));
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      if (pages[part] < 0) continue;
      tma_load(s.k[stage] + part * rows * C::kRowBytes, k_map, s.k_full[stage], 0, inside,
               pages[part]);
      tma_load(s.scale[stage] + part * rows, scale_map, s.k_full[stage], inside, pages[part]);
    }
  }

  // Any page size and alignment, key by key.
  __device__ void copy_keys(ScoreShared<C>& s, int stage, int request, int first_key) const {
    const auto page_at = [&](int i) -> const uint8_t* {
      const int64_t key = first_key + i;
      if (key >= a.addressable) return nullptr;
      const int page = a.block_table[request * a.table_stride + key / a.page_size];
      return page >= 0 && page < a.num_pages ? a.cache + page * a.page_stride : nullptr;
    };
    copy_rows<C>(s.k[stage], C::kKeys, [&](int i) -> const uint8_t* {
      const uint8_t* page = page_at(i);
      return page ? page + (first_key + i) % a.page_size * C::kDim : nullptr;
    });
    for (int half = 0; half < C::kKeys; half += kWarp) {
      const int i = half + lane_index();
      const uint8_t* page = page_at(i);
      uint32_t bits = 0;
      if (page) {
        const uint8_t* from = page + a.page_size * C::kDim + (first_key + i) % a.page_size * 4;
        for (int byte = 0; byte < 4; ++byte) bits |= uint32_t{from[byte]} << 8 * byte;
      }
      s.scale[stage][i] = __uint_as_float(bits);
      const uint32_t exists = __ballot_sync(0xffffffff, page != nullptr);
      if (lane_index() == 0) reinterpret_cast<uint32_t*>(&s.exists[stage])[half / kWarp] = exists;
    }
    __syncwarp();
    if (lane_index() == 0) mbarrier_arrive(s.k_full[stage]);
  }

  __device__ int64_t first_of(int block, int i, RowRange) const {
    return row_of(block, i) * a.out_stride;
  }
  __device__ void store(int64_t at, float logit) const {
    if (a.out_bf16)
      static_cast<bf16*>(a.out)[at] = __float2bfloat16_rn(logit);
    else
      static_cast<float*>(a.out)[at] = logit;
  }

  // Keys past the block table score -inf whatever `fill` says: they are in the row's range.
  __device__ void fill(int warp, int warps) const {
    const int64_t rows = int64_t{a.batch} * a.next_n;
    for (int64_t row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
      const int n = length(row / a.next_n, row % a.next_n);
      if (n < a.min_keys) continue;
      const int64_t from = min(int64_t{n}, a.addressable), to = a.fill ? a.max_seq_len : n;
      if (a.out_bf16)
        fill_minus_infinity(static_cast<bf16*>(a.out) + row * a.out_stride, from, to);
      else
        fill_minus_infinity(static_cast<float*>(a.out) + row * a.out_stride, from, to);
    }
  }
};

template <int heads, int dim, int queries>
__device__ void paged_mqa_logits(const PagedMqaLogitsArgs& args, const TensorMap& q_map,
                                 const TensorMap& k_map, const TensorMap& scale_map) {
  using C = ScoreConfig<fp8, heads, dim, queries>;
  score(Paged<C>{args, q_map, k_map, scale_map}, score_shared<C>());
}

}  // namespace
}  // namespace dsa

#define KERNEL(heads, dim, queries)                                                           \
  extern "C" __global__ void __launch_bounds__(384, 1)                                        \
      paged_mqa_logits_h##heads##_d##dim##_q##queries(                                        \
          const __grid_constant__ dsa::PagedMqaLogitsArgs args,                               \
          const __grid_constant__ dsa::TensorMap q, const __grid_constant__ dsa::TensorMap k, \
          const __grid_constant__ dsa::TensorMap scale) {                                     \
    dsa::paged_mqa_logits<heads, dim, queries>(args, q, k, scale);                            \
  }
#define KERNELS(heads, dim) KERNEL(heads, dim, 1) KERNEL(heads, dim, 2) KERNEL(heads, dim, 4)

KERNELS(8, 64)
KERNELS(8, 128)
KERNELS(16, 64)
KERNELS(16, 128)
KERNELS(32, 64)
KERNELS(32, 128)
KERNELS(64, 64)
KERNELS(64, 128)
