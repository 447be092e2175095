// Indexer logits over the paged index cache. Work items are (request) x (block of its query tokens)
// x (chunk of keys); see indexer_score.h.

#include "index_cache.h"
#include "indexer_score.h"
#include "ops.h"
#include "paging.h"
#include "parallel.h"
#include "prefetch.h"

namespace dsa::cpu {

void paged_mqa_logits(const PagedMqaLogitsParams& p) {
  const int64_t batch = p.q.size[0], next_n = p.q.size[1], max_seq_len = p.out.size[1];
  const ScoreShape shape{static_cast<int>(p.q.size[2]), static_cast<int>(p.q.size[3]), p.q.dtype,
                         p.out.dtype};
  const int64_t addressable = p.cache.size[1] * p.block_table.size[1];

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
    const RequestPages pages(p.block_table, b, p.cache.size[0], p.cache.size[1]);
    const auto prefetch_keys = [&](int64_t first, int64_t n) {
      for (int64_t i = 0, run; i < n; i += run) {
        const int64_t slot = pages.slot(first + i);
        run = std::min(n - i, pages.rest_of_page(first + i));
        if (slot < 0) continue;
        const uint8_t* codes = index_codes(p.cache, slot);
        if (slot % p.cache.size[1] == 0) touch(codes, p.cache.size[1] * p.cache.size[2]);
        prefetch(codes, run * shape.head_dim);
      }
    };
    const auto load_keys = [&](int64_t first, int n, uint32_t* words, float* scales, bool* exists) {
      prefetch_keys(first + n, n);
      for (int i = 0, run; i < n; i += run, words += run * shape.words()) {
        const int64_t slot = pages.slot(first + i);  // and its page's next slots
        run = static_cast<int>(std::min<int64_t>(n - i, pages.rest_of_page(first + i)));
        std::fill_n(exists + i, run, slot >= 0);
        if (slot < 0) {
          std::fill_n(words, run * shape.words(), 0u);
          std::fill_n(scales + i, run, 0.0f);
        } else {
          shape.math.load_fp8(index_codes(p.cache, slot), shape.head_dim, run, shape.head_dim,
                              words);
          std::memcpy(scales + i, index_scale(p.cache, slot), run * sizeof(float));
        }
      }
    };
    score_chunk(shape, rows, count, begin, std::min(begin + chunk, num_keys), load_keys);
  });
}

}  // namespace dsa::cpu
