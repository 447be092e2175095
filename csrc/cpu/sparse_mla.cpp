#include "sparse_mla.h"

#include <cmath>
#include <vector>

#include "convert.h"
#include "mla_record.h"

namespace dsa::cpu {
namespace {

constexpr int kKeyTile = 64;

// Online softmax of a group of heads. m, l: [heads]; S, P: [keys, heads]; O: [heads, 512].
class HeadGroup {
 public:
  HeadGroup(const AttendQuery& query, int head_begin, int head_end)
      : query_(query),
        begin_(head_begin),
        heads_(head_end - head_begin),
        lanes_((heads_ + kLanePad - 1) / kLanePad * kLanePad) {
    transpose_q();
    keys_.resize(size_t(kKeyTile) * query.d_qk);
    scores_.resize(size_t(kKeyTile) * lanes_);
    out_.assign(size_t(heads_) * kValueDim, 0.0f);
    max_.assign(lanes_, -INFINITY);
    sum_.assign(lanes_, 0.0f);
    shift_.resize(lanes_);
    alpha_.resize(lanes_);
  }

  void run() {
    int filled = 0;
    for (int s = 0; s < query_.num_selections; ++s) {
      const Selection& selection = query_.selections[s];
      const int64_t capacity = selection.source->capacity();
      for (int64_t i = 0; i < selection.length; ++i) {
        const int64_t index = selection.indices[i], position = selection.start + index;
        if (index < 0 || position < 0 || position >= capacity) continue;
        selection.source->load(isa_, position, query_.d_qk,
                               keys_.data() + size_t(filled) * query_.d_qk);
        if (++filled == kKeyTile) {
          absorb_tile(filled);
          filled = 0;
        }
      }
    }
    if (filled > 0) absorb_tile(filled);
    write();
  }

 private:
  void transpose_q() {
    q_.assign(size_t(query_.d_qk) * lanes_, 0.0f);
    std::vector<float> head(query_.d_qk);
    for (int h = 0; h < heads_; ++h) {
      to_float(isa_, query_.q, query_.dtype, (begin_ + h) * query_.q_stride, head.data(),
               query_.d_qk);
      for (int d = 0; d < query_.d_qk; ++d) q_[size_t(d) * lanes_ + h] = head[d];
    }
  }

  void absorb_tile(int count) {
    float* scores = scores_.data();
    isa_.gemm(keys_.data(), query_.d_qk, 1, q_.data(), lanes_, scores, lanes_, count, lanes_,
              query_.d_qk, false);
    for (int h = 0; h < lanes_; ++h) alpha_[h] = max_[h];
    for (int i = 0; i < count; ++i) {
      for (int h = 0; h < lanes_; ++h) {
        const float s = scores[i * lanes_ + h] * query_.sm_scale;
        scores[i * lanes_ + h] = s;
        max_[h] = s > max_[h] || s != s ? s : max_[h];  // NaN sticks
      }
    }
    for (int h = 0; h < lanes_; ++h) shift_[h] = max_[h] == -INFINITY ? 0.0f : max_[h];
    isa_.exp_shifted(alpha_.data(), shift_.data(), 1, lanes_);
    isa_.exp_shifted(scores, shift_.data(), count, lanes_);
    for (int h = 0; h < lanes_; ++h) sum_[h] *= alpha_[h];
    for (int i = 0; i < count; ++i) {
      for (int h = 0; h < lanes_; ++h) sum_[h] += scores[i * lanes_ + h];
    }
    for (int h = 0; h < heads_; ++h) {
      if (alpha_[h] == 1.0f) continue;
      float* row = out_.data() + size_t(h) * kValueDim;
      for (int d = 0; d < kValueDim; ++d) row[d] *= alpha_[h];
    }
    isa_.gemm(scores, 1, lanes_, keys_.data(), query_.d_qk, out_.data(), kValueDim, heads_,
              kValueDim, count, true);
  }

  void write() {
    for (int h = 0; h < heads_; ++h) {
      float* row = out_.data() + size_t(h) * kValueDim;
      const bool empty = max_[h] == -INFINITY;
      const float lse = empty ? -INFINITY : max_[h] + std::log(sum_[h]);
      float factor = empty ? 0.0f : 1.0f / sum_[h];
      if (query_.attn_sink != nullptr && !empty) {
        factor /= 1.0f + std::exp(query_.attn_sink[begin_ + h] - lse);
      }
      for (int d = 0; d < kValueDim; ++d) row[d] *= factor;
      from_float(isa_, row, query_.out, query_.dtype, (begin_ + h) * query_.out_stride, kValueDim);
      query_.lse[begin_ + h] = lse;
      if (query_.max_logits != nullptr) query_.max_logits[begin_ + h] = max_[h];
    }
  }

  const Isa& isa_ = current_isa();
  const AttendQuery& query_;
  const int begin_, heads_, lanes_;
  std::vector<float> q_;                          // [d_qk, lanes]
  std::vector<float> keys_;                       // [kKeyTile, d_qk]
  std::vector<float> scores_;                     // [kKeyTile, lanes], then probabilities
  std::vector<float> out_;                        // [heads, 512]
  std::vector<float> max_, sum_, shift_, alpha_;  // [lanes]
};

}  // namespace

void KeySource::load(const Isa& isa, int64_t position, int d_qk, float* out) const {
  if (kv) {
    to_float(isa, kv.data, kv.dtype, position * kv.stride[0], out, d_qk);
  } else {
    read_record(isa, cache, format, position, out);
  }
}

void attend(const AttendQuery& query, int head_begin, int head_end) {
  HeadGroup(query, head_begin, head_end).run();
}

}  // namespace dsa::cpu
