// Indexer logits of a few query rows against a run of keys; used by mqa_logits and
// paged_mqa_logits, which differ only in where keys come from.
//
//            heads in lanes ->
//   key tile +-----------------+     dots = K[tile, dim] . Qt[dim, heads]     (gemm)
//    64 keys | dots [64, heads]|     logit = scale * sum_h w * relu(dots)     (relu_head_sum)
//            +-----------------+
//
// A key tile is converted to float once and used by every row of the block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../params.h"
#include "convert.h"
#include "isa/isa.h"

namespace dsa::cpu {

constexpr int kKeyTile = 64;
constexpr int kRowBlock = 8;
constexpr int64_t kKeyChunk = 1024;  // keys of one work item, so that one row feeds all threads

struct ScoreRow {
  const void* q;         // [num_heads, head_dim]
  int64_t q_stride;      // between heads, in elements
  const float* weights;  // [num_heads]
  Range keys;            // keys that this row scores
  void* out;             // logit of key s goes to out[s - origin]
  int64_t origin;
};

struct ScoreShape {
  int num_heads, head_dim;
  DType q_dtype, out_dtype;
  int padded_heads() const { return (num_heads + kLanePad - 1) / kLanePad * kLanePad; }
};

// Scores keys [begin, end) for up to kRowBlock rows.
// load_keys(first, count, float* keys /* [count, head_dim] */, float* scales): a scale of -inf
// marks a key that does not exist, whose logit is -inf.
template <class LoadKeys>
void score_chunk(const ScoreShape& shape, const ScoreRow* rows, int num_rows, int64_t begin,
                 int64_t end, const LoadKeys& load_keys) {
  const Isa& isa = current_isa();
  const int heads = shape.padded_heads(), dim = shape.head_dim;
  int64_t first = end, last = begin;
  for (int r = 0; r < num_rows; ++r) {
    if (rows[r].keys.size() == 0) continue;
    first = std::min(first, std::max(begin, rows[r].keys.start));
    last = std::max(last, std::min(end, rows[r].keys.end));
  }
  if (first >= last) return;

  thread_local std::vector<float> queries, keys, dots;
  queries.assign(size_t(num_rows) * dim * heads, 0.0f);
  keys.resize(size_t(kKeyTile) * dim);
  dots.resize(size_t(kKeyTile) * heads);
  for (int r = 0; r < num_rows; ++r) {
    float head[kMaxIndexDim];
    float* transposed = queries.data() + size_t(r) * dim * heads;
    for (int h = 0; h < shape.num_heads; ++h) {
      to_float(isa, rows[r].q, shape.q_dtype, h * rows[r].q_stride, head, dim);
      for (int d = 0; d < dim; ++d) transposed[d * heads + h] = head[d];
    }
  }

  float scales[kKeyTile], logits[kKeyTile];
  bool exists[kKeyTile];
  for (int64_t tile = first; tile < last; tile += kKeyTile) {
    const int count = static_cast<int>(std::min<int64_t>(kKeyTile, last - tile));
    load_keys(tile, count, keys.data(), scales, exists);
    for (int r = 0; r < num_rows; ++r) {
      const int64_t from = std::max(tile, rows[r].keys.start);
      const int64_t to = std::min(tile + count, rows[r].keys.end);
      if (from >= to) continue;
      const int skip = static_cast<int>(from - tile), n = static_cast<int>(to - from);
      isa.gemm(keys.data() + skip * dim, dim, 1, queries.data() + size_t(r) * dim * heads, heads,
               dots.data(), heads, n, heads, dim, false);
      for (int i = 0; i < n; ++i) {
        const float sum =
            isa.relu_head_sum(dots.data() + i * heads, rows[r].weights, shape.num_heads);
        logits[i] = exists[skip + i] ? scales[skip + i] * sum : -INFINITY;
      }
      from_float(isa, logits, rows[r].out, shape.out_dtype, from - rows[r].origin, n);
    }
  }
}

// Writes -inf into out[begin, end).
inline void fill_minus_infinity(void* out, DType dtype, int64_t begin, int64_t end) {
  if (begin >= end) return;
  if (dtype == DType::kFloat32) {
    std::fill(static_cast<float*>(out) + begin, static_cast<float*>(out) + end, -INFINITY);
  } else {
    std::fill(static_cast<uint16_t*>(out) + begin, static_cast<uint16_t*>(out) + end,
              uint16_t{0xff80});
  }
}

}  // namespace dsa::cpu
