// Indexer logits over the paged index cache. Work items are (request) x (block of its query tokens)
// x (chunk of keys); see indexer_score.h.

#include "index_cache.h"
#include "indexer_score.h"
#include "ops.h"
#include "paging.h"
#include "parallel.h"
#include "prefetch.h"

namespace dsa::cpu {
namespace {

// Touches the next keys that `walk` comes to, so many that waiting for translations is rare.
void touch_keys(IndexKeyWalk& walk, int64_t end, int64_t head_dim) {
  constexpr int64_t kKeys = 512;
  for (const int64_t until = std::min(walk.position() + kKeys, end); walk.position() < until;) {
    const auto keys = walk.next(until - walk.position());
    if (keys.codes == nullptr) continue;
    touch(keys.codes, keys.count * head_dim);
    touch(keys.scales, keys.count * kIndexScaleBytes);
  }
}

}  // namespace

void paged_mqa_logits(const PagedMqaLogitsParams& p) {
  const int64_t batch = p.q.size[0], next_n = p.q.size[1], max_seq_len = p.out.size[1];
  const ScoreShape shape{static_cast<int>(p.q.size[2]), static_cast<int>(p.q.size[3]), p.q.dtype,
                         p.out.dtype};
  const int64_t addressable =
      RequestPages(p.block_table, 0, p.cache.size[0], p.cache.size[1]).positions();

  const auto seq_len_of = [&](int64_t b, int64_t n) {
    const int64_t length =
        p.seq_lens.as<const int32_t>()[b * p.seq_lens.stride[0] + n * p.seq_lens.stride[1]];
    return std::clamp<int64_t>(length, 0, max_seq_len);
  };
  const auto out_of = [&](int64_t row) {
    return advance(p.out.data, p.out.dtype, row * p.out.stride[0]);
  };

  // Keys past the block table do not exist: -inf whatever `fill` says, for they are in the range.
  parallel_items(batch * next_n, [&](int64_t row) {
    const int64_t length = seq_len_of(row / next_n, row % next_n);
    fill_minus_infinity(out_of(row), p.out.dtype, std::min(length, addressable),
                        p.fill ? max_seq_len : length);
  });

  const int row_block = shape.row_block();
  const int64_t blocks = (next_n + row_block - 1) / row_block;
  const int64_t num_keys = std::min(max_seq_len, addressable);
  const int64_t chunk = key_chunk(batch * blocks, num_keys);
  const int64_t chunks = (num_keys + chunk - 1) / chunk;
  parallel_items(batch * blocks * chunks, [&](int64_t item) {
    const int64_t b = item / (blocks * chunks), first_token = item / chunks % blocks * row_block;
    const int64_t begin = item % chunks * chunk;
    const int count = static_cast<int>(std::min<int64_t>(row_block, next_n - first_token));
    ScoreRow rows[kMaxRowBlock];
    for (int i = 0; i < count; ++i) {
      const int64_t n = first_token + i, row = b * next_n + n;
      rows[i] = {advance(p.q.data, p.q.dtype, b * p.q.stride[0] + n * p.q.stride[1]),
                 p.q.stride[2],
                 p.weights.as<const float>() + row * p.weights.stride[0],
                 {0, std::min(seq_len_of(b, n), addressable)},
                 out_of(row),
                 0};
    }
    const int64_t end = std::min(begin + chunk, num_keys);
    const RequestPages pages(p.block_table, b, p.cache.size[0], p.cache.size[1]);
    IndexKeyWalk loaded(p.cache, pages, begin), asked(loaded), touched(loaded);
    const auto ask_until = [&](int64_t position) {
      while (asked.position() < std::min(position, end)) {
        if (asked.position() == touched.position()) touch_keys(touched, end, shape.head_dim);
        const auto keys = asked.next(std::min(position, touched.position()) - asked.position());
        if (keys.codes != nullptr) prefetch(keys.codes, keys.count * shape.head_dim);
      }
    };
    const auto load_keys = [&](int64_t first, int n, uint32_t* words, float* scales, bool* exists) {
      ask_until(first + 2 * n);
      bool all_exist = true;
      for (int64_t i = 0; i < n;) {
        const auto keys = loaded.next(n - i);
        const int count = static_cast<int>(keys.count);
        if (keys.codes != nullptr) {
          shape.math.load_fp8(keys.codes, shape.head_dim, count, shape.head_dim, words);
          std::memcpy(scales + i, keys.scales, count * sizeof(float));
        } else {
          std::fill_n(words, count * shape.words(), 0u);
          std::fill_n(scales + i, count, 0.0f);
          all_exist = false;
        }
        std::fill_n(exists + i, count, keys.codes != nullptr);
        words += count * shape.words();
        i += count;
      }
      return all_exist;
    };
    score_chunk(shape, rows, count, begin, end, load_keys);
  });
}

}  // namespace dsa::cpu
