// Indexer logits over the paged index cache. Work items are (request) x (block of its query tokens)
// x (chunk of keys); see indexer_score.h.

#include "indexer_score.h"
#include "ops.h"
#include "parallel.h"

namespace dsa::cpu {
namespace {

// Keys of one request, found through its row of the block table.
class PagedKeys {
 public:
  PagedKeys(const PagedMqaLogitsParams& p, int64_t request)
      : cache_(p.cache),
        pages_(p.block_table.as<const int32_t>() + request * p.block_table.stride[0]),
        max_pages_(p.block_table.size[1]),
        head_dim_(p.q.size[3]) {}

  void operator()(int64_t first, int count, float* keys, float* scales, bool* exists) const {
    const int64_t page_size = cache_.size[1];
    for (int i = 0; i < count; ++i) {
      const int64_t entry = (first + i) / page_size, token = (first + i) % page_size;
      const int64_t page = entry < max_pages_ ? pages_[entry] : -1;
      float* key = keys + i * head_dim_;
      exists[i] = page >= 0 && page < cache_.size[0];
      scales[i] = 0.0f;
      if (!exists[i]) {
        std::fill(key, key + head_dim_, 0.0f);
        continue;
      }
      const uint8_t* base = cache_.as<const uint8_t>() + page * cache_.stride[0];
      current_isa().from_float8(base + token * head_dim_, key, head_dim_);
      std::memcpy(&scales[i], base + page_size * head_dim_ + token * sizeof(float), sizeof(float));
    }
  }

 private:
  const View<3>& cache_;
  const int32_t* pages_;
  int64_t max_pages_, head_dim_;
};

}  // namespace

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

  const int64_t blocks = (next_n + kRowBlock - 1) / kRowBlock;
  const int64_t chunks = (std::min(max_seq_len, addressable) + kKeyChunk - 1) / kKeyChunk;
  parallel_items(batch * blocks * chunks, [&](int64_t item) {
    const int64_t b = item / (blocks * chunks), first_token = item / chunks % blocks * kRowBlock;
    const int64_t begin = item % chunks * kKeyChunk;
    const int count = static_cast<int>(std::min<int64_t>(kRowBlock, next_n - first_token));
    ScoreRow rows[kRowBlock];
    for (int i = 0; i < count; ++i) {
      const int64_t n = first_token + i, row = b * next_n + n;
      rows[i] = {advance(p.q.data, p.q.dtype, b * p.q.stride[0] + n * p.q.stride[1]),
                 p.q.stride[2],
                 p.weights.as<const float>() + row * p.weights.stride[0],
                 {0, std::min(seq_len_of(b, n), addressable)},
                 out_of(row),
                 0};
    }
    score_chunk(shape, rows, count, begin, std::min(begin + kKeyChunk, addressable),
                PagedKeys(p, b));
  });
}

}  // namespace dsa::cpu
