// Indexer scores of ragged queries against contiguous keys.
//
//   out[t, s] = k_scale[s] * sum_h weights[t, h] * relu(q[t, h] . k[s])    for s in t's range
//
// A block is 256 / heads query tokens; its tiles are the keys that any of them scores.
#include "../device/indexer_score.cuh"
#include "kernel.h"

namespace dsa {
namespace {

template <class C>
struct Ragged {
  static constexpr bool kHoles = false;
  struct LoadState {};

  const MqaLogitsArgs& a;
  const TensorMap &q_map, &k_map, &scale_map;

  __device__ int num_blocks() const { return ceil_div(a.num_rows, C::kQueries); }
  __device__ bool has_scale() const { return a.k_scale != nullptr; }

  // Keys that the contract gives the row, and of these those that are scored and stored.
  __device__ RowRange keys_of(int row) const {
    return {max(a.row_start ? a.row_start[row] : 0, 0),
            min(a.row_end ? a.row_end[row] : a.seq_len, a.seq_len) - (DSA_FAULT == 103)};
  }
  __device__ RowRange scored(int row) const {
    RowRange keys = keys_of(row);
    if (keys.end - keys.start < a.min_keys) return {0, 0};
    if (a.compressed)
      keys.end = min(static_cast<int64_t>(keys.end), static_cast<int64_t>(keys.start) + a.width);
    return keys;
  }
  __device__ RowRange row_range(int block, int i) const {
    const int row = block * C::kQueries + i;
    return row < a.num_rows ? scored(row) : RowRange{0, 0};
  }
  __device__ RowRange block_range(int block) const {
    RowRange all{INT32_MAX, 0};
    for (int i = 0; i < C::kQueries; ++i)
      if (const RowRange r = row_range(block, i); r.start < r.end)
        all = {min(all.start, r.start), max(all.end, r.end)};
    return all;
  }

  __device__ float weight(int block, int i, int head) const {
    const int64_t row = int64_t{block} * C::kQueries + i;
    return row < a.num_rows ? a.weights[row * a.weights_stride + head] : 0.0f;
  }

  __device__ void load_queries(ScoreShared<C>& s, int stage, int block) const {
    using Element = typename C::Element;
    if (a.map_q) {
      if (elect_one()) {
        mbarrier_arrive_expect_tx(s.q_full[stage], C::kQueryBytes);
        for (int i = 0; i < C::kSubtiles; ++i)
          tma_load(s.q[stage] + i * C::kN * C::kSubtileBytes, q_map, s.q_full[stage],
                   i * C::kSubtileElements, 0, block * C::kQueries);
      }
      return;
    }
    copy_rows<C>(s.q[stage], C::kN, [&](int i) -> const Element* {
      const int64_t row = int64_t{block} * C::kQueries + i / C::kHeads;
      if (row >= a.num_rows) return nullptr;
      return static_cast<const Element*>(a.q) + row * a.q_row_stride +
             i % C::kHeads * a.q_head_stride;
    });
    __syncwarp();
    if (lane_index() == 0) mbarrier_arrive(s.q_full[stage]);
  }

  __device__ void load_keys(ScoreShared<C>& s, int stage, int, int first_key, LoadState&) const {
    using Element = typename C::Element;
    if (!a.map_k)
      copy_rows<C>(s.k[stage], C::kKeys, [&](int i) -> const Element* {
        const int64_t key = first_key + i;
        return key < a.seq_len ? static_cast<const Element*>(a.k) + key * a.k_stride : nullptr;
      });
    if (has_scale() && !a.map_scale)
      for (int i = lane_index(); i < C::kKeys; i += kWarp)
        s.scale[stage][i] = first_key + i < a.seq_len ? a.k_scale[first_key + i] : 0.0f;
    if (!a.map_k || (has_scale() && !a.map_scale)) __syncwarp();
    if (!elect_one()) return;
    const bool map_scale = has_scale() && a.map_scale;
    const int bytes = (a.map_k ? C::kKeyBytes : 0) + (map_scale ? C::kKeys * 4 : 0);
    mbarrier_arrive_expect_tx(s.k_full[stage], bytes);
    if (map_scale) tma_load(s.scale[stage], scale_map, s.k_full[stage], first_key, 0);
    if (a.map_k)
      for (int i = 0; i < C::kSubtiles; ++i)
        tma_load(s.k[stage] + i * C::kKeys * C::kSubtileBytes, k_map, s.k_full[stage],
                 i * C::kSubtileElements, first_key);
  }

  __device__ int64_t first_of(int block, int i, RowRange keys) const {
    return (int64_t{block} * C::kQueries + i) * a.out_stride - (a.compressed ? keys.start : 0);
  }
  __device__ void store(int64_t at, float logit) const {
    if (a.out_bf16)
      static_cast<bf16*>(a.out)[at] = __float2bfloat16_rn(logit);
    else
      static_cast<float*>(a.out)[at] = logit;
  }

  // -inf into columns without a key; warp `warp` of `warps` takes its share of the rows.
  __device__ void fill(int warp, int warps) const {
    if (!a.fill) return;
    for (int row = blockIdx.x * warps + warp; row < a.num_rows; row += gridDim.x * warps) {
      RowRange keys = scored(row);
      if (keys.start >= keys.end) keys = {0, 0};
      const int from = a.compressed ? 0 : keys.start;
      const int to = from + keys.end - keys.start;
      if (a.out_bf16)
        fill_row(static_cast<bf16*>(a.out) + row * a.out_stride, from, to);
      else
        fill_row(static_cast<float*>(a.out) + row * a.out_stride, from, to);
    }
  }

 private:
  template <class Logit>
  __device__ void fill_row(Logit* out, int from, int to) const {
    fill_minus_infinity(out, 0, from);
    fill_minus_infinity(out, to, a.width);
  }
};

template <class Element, int heads, int dim>
__device__ void mqa_logits(const MqaLogitsArgs& args, const TensorMap& q_map,
                           const TensorMap& k_map, const TensorMap& scale_map) {
  using C = ScoreConfig<Element, heads, dim, mqa_logits_queries(heads)>;
  score(Ragged<C>{args, q_map, k_map, scale_map}, score_shared<C>());
}

}  // namespace
}  // namespace dsa

#define KERNEL(element, heads, dim)                                                              \
  extern "C" __global__ void __launch_bounds__(384, 1) mqa_logits_##element##_h##heads##_d##dim( \
      const __grid_constant__ dsa::MqaLogitsArgs args, const __grid_constant__ dsa::TensorMap q, \
      const __grid_constant__ dsa::TensorMap k, const __grid_constant__ dsa::TensorMap scale) {  \
    dsa::mqa_logits<dsa::element, heads, dim>(args, q, k, scale);                                \
  }
#define KERNELS(element, heads) KERNEL(element, heads, 64) KERNEL(element, heads, 128)

KERNELS(fp8, 8)
KERNELS(fp8, 16)
KERNELS(fp8, 32)
KERNELS(fp8, 64)
KERNELS(bf16, 8)
KERNELS(bf16, 16)
KERNELS(bf16, 32)
KERNELS(bf16, 64)
