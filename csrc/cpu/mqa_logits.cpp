// Ragged indexer logits. Work items are (block of rows) x (chunk of keys); see indexer_score.h.

#include "indexer_score.h"
#include "ops.h"
#include "parallel.h"

namespace dsa::cpu {

void mqa_logits(const MqaLogitsParams& p) {
  const int64_t num_rows = p.q.size[0], seq_len = p.k.size[0], width = p.out.size[1];
  const ScoreShape shape{static_cast<int>(p.q.size[1]), static_cast<int>(p.q.size[2]), p.q.dtype,
                         p.out.dtype};

  const auto keys_of = [&](int64_t row) {
    Range range = row_range(p.row_start, p.row_end, row, seq_len);
    if (p.compressed) range.end = std::min(range.end, range.start + width);
    return range;
  };
  const auto out_of = [&](int64_t row) {
    return advance(p.out.data, p.out.dtype, row * p.out.stride[0]);
  };
  const auto load_keys = [&](int64_t first, int count, uint32_t* words, float* scales,
                             bool* /*exists*/) {
    load_words(shape.math, advance(p.k.data, p.k.dtype, first * p.k.stride[0]), p.k.dtype,
               p.k.stride[0], count, shape.head_dim, words);
    if (p.k_scale) {
      std::copy_n(p.k_scale.as<const float>() + first, count, scales);
    } else {
      std::fill_n(scales, count, 1.0f);
    }
    return true;
  };

  if (p.fill) {
    parallel_items(num_rows, [&](int64_t row) {
      const Range range = keys_of(row);
      const int64_t begin = range.size() == 0 ? 0 : p.compressed ? 0 : range.start;
      fill_minus_infinity(out_of(row), p.out.dtype, 0, begin);
      fill_minus_infinity(out_of(row), p.out.dtype, begin + range.size(), width);
    });
  }

  const int row_block = shape.row_block();
  const int64_t blocks = (num_rows + row_block - 1) / row_block;
  const int64_t chunk = key_chunk(blocks, seq_len), chunks = (seq_len + chunk - 1) / chunk;
  parallel_items(blocks * chunks, [&](int64_t item) {
    const int64_t first_row = item / chunks * row_block, begin = item % chunks * chunk;
    const int count = static_cast<int>(std::min<int64_t>(row_block, num_rows - first_row));
    ScoreRow rows[kMaxRowBlock];
    for (int i = 0; i < count; ++i) {
      const int64_t row = first_row + i;
      const Range keys = keys_of(row);
      rows[i] = {advance(p.q.data, p.q.dtype, row * p.q.stride[0]),
                 p.q.stride[1],
                 p.weights.as<const float>() + row * p.weights.stride[0],
                 keys,
                 out_of(row),
                 p.compressed ? keys.start : 0};
    }
    score_chunk(shape, rows, count, begin, std::min(begin + chunk, seq_len), load_keys);
  });
}

}  // namespace dsa::cpu
