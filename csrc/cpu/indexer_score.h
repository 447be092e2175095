// Indexer logits of a block of query rows against a run of keys; used by mqa_logits and
// paged_mqa_logits, which differ only in where keys come from.
//
//            heads in lanes ->
//   key tile +-----------------+     dots  = K[tile, words] . Qt[words, heads]
//    96 keys | dots, registers |     logit = scale * sum_h w * relu(dots)
//            +-----------------+     both in Arithmetic::score: dots never reach memory
//
// A key tile is converted to words once and used by every row of the block, so Qt of a block has to
// fit the L2 cache, and a tile the L1 cache beside one row's Qt.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../params.h"
#include "convert.h"
#include "parallel.h"
#include "scratch.h"
#include "words.h"

namespace dsa::cpu {

constexpr int kKeyTile = kMaxScoreKeys;   // a multiple of every register block
constexpr int kMaxRowBlock = 64;          // rows that share a key tile
constexpr int64_t kBlockWords = 1 << 18;  // of Qt: 1 MiB

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
  const Isa& isa = current_isa();
  const Arithmetic& math = arithmetic_for(isa, q_dtype, head_dim);

  int lanes() const { return isa.padded(num_heads); }
  int words() const { return head_dim / math.dims_per_word; }
  int64_t row_words() const { return int64_t{words()} * lanes(); }
  // Few rows soon need the next keys from memory: short tiles spread what they ask for.
  int key_tile(int rows) const { return rows >= 4 ? kKeyTile : num_heads <= isa.lanes ? 24 : 12; }
  int row_block() const {
    return static_cast<int>(std::clamp<int64_t>(kBlockWords / row_words(), 1, kMaxRowBlock));
  }
};

// Keys of one work item, so that few rows still feed all threads: no fewer than pay for packing Qt.
inline int64_t key_chunk(int64_t num_blocks, int64_t num_keys) {
  constexpr int64_t kItemsPerThread = 8, kMinKeys = 1024;
  const int64_t items = torch::stable::get_num_threads() * kItemsPerThread;
  const int64_t keys = std::max(num_blocks * num_keys / items, kMinKeys);
  return (keys + kKeyTile - 1) / kKeyTile * kKeyTile;
}

// Scores keys [begin, end) for up to row_block() rows.
// load_keys(first, count, uint32_t* words /* [count, words] */, float* scales, bool* exists) is
// called for tile after tile, upwards, and returns whether all keys exist. If not, `exists` says
// which do; the others' logits are -inf.
template <class LoadKeys>
void score_chunk(const ScoreShape& shape, const ScoreRow* rows, int num_rows, int64_t begin,
                 int64_t end, const LoadKeys& load_keys) {
  const int heads = shape.num_heads, lanes = shape.lanes(), words = shape.words();
  int64_t first = end, last = begin;
  for (int r = 0; r < num_rows; ++r) {
    if (rows[r].keys.size() == 0) continue;
    first = std::min(first, std::max(begin, rows[r].keys.start));
    last = std::max(last, std::min(end, rows[r].keys.end));
  }
  if (first >= last) return;

  thread_local Scratch<uint32_t> query_scratch, head_scratch, key_scratch;
  thread_local Scratch<float> weight_scratch;
  uint32_t* queries = query_scratch.take(num_rows * shape.row_words());
  uint32_t* head_words = head_scratch.take(size_t(heads) * words);
  uint32_t* keys = key_scratch.take(size_t(kKeyTile) * words);
  float* weights = weight_scratch.take(size_t(num_rows) * lanes);
  for (int r = 0; r < num_rows; ++r) {
    load_words(shape.math, rows[r].q, shape.q_dtype, rows[r].q_stride, heads, shape.head_dim,
               head_words);
    for (int h = 0; h < lanes; h += shape.isa.panel) {
      transpose_words<1>(head_words + int64_t{h} * words, heads - h, words,
                         std::min(lanes - h, shape.isa.panel),
                         queries + r * shape.row_words() + int64_t{h} * words);
    }
    std::copy_n(rows[r].weights, heads, weights + r * lanes);
    std::fill_n(weights + r * lanes + heads, lanes - heads, 0.0f);
  }

  float scales[kKeyTile], narrow[kKeyTile];
  bool exists[kKeyTile];
  const int tile_keys = shape.key_tile(num_rows);
  for (int64_t tile = first; tile < last; tile += tile_keys) {
    const int count = static_cast<int>(std::min<int64_t>(tile_keys, last - tile));
    const bool all_exist = load_keys(tile, count, keys, scales, exists);
    for (int r = 0; r < num_rows; ++r) {
      const int64_t from = std::max(tile, rows[r].keys.start);
      const int64_t to = std::min(tile + count, rows[r].keys.end);
      if (from >= to) continue;
      const int skip = static_cast<int>(from - tile), n = static_cast<int>(to - from);
      const bool direct = shape.out_dtype == DType::kFloat32;
      float* logits = direct ? static_cast<float*>(rows[r].out) + (from - rows[r].origin) : narrow;
      shape.math.score(keys + skip * words, n, queries + r * shape.row_words(), heads, words,
                       weights + r * lanes, scales + skip, logits);
      for (int i = 0; !all_exist && i < n; ++i) {
        if (!exists[skip + i]) logits[i] = -INFINITY;
      }
      if (!direct)
        from_float(shape.isa, logits, rows[r].out, shape.out_dtype, from - rows[r].origin, n);
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
