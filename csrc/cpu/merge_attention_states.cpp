// Log-sum-exp merge of partial attention results. Two passes over the parts of a (row, head): the
// lse, which fixes every part's weight, then the weighted sum. Nothing is allocated for d_v or the
// number of parts: dims are done a stack buffer at a time, and weights are computed again for each.

#include <algorithm>
#include <cmath>
#include <limits>

#include "convert.h"
#include "isa/isa.h"
#include "ops.h"
#include "parallel.h"

namespace dsa::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kChunk = 512;

struct Lses {
  const float* first;
  int64_t parts, stride;

  float operator[](int64_t part) const { return first[part * stride]; }
  float max() const {
    float m = -kInfinity;
    for (int64_t part = 0; part < parts; ++part) {
      const float x = (*this)[part];
      if (x != x) return x;
      if (x > m) m = x;
    }
    return m;
  }
};

void merge_head(const Isa& isa, const MergeAttentionStatesParams& p, int64_t row, int64_t head) {
  const Lses lses{p.lses.as<const float>() + row * p.lses.stride[1] + head * p.lses.stride[2],
                  p.lses.size[0], p.lses.stride[0]};
  const float max = lses.max();
  float sum = 0.0f;
  for (int64_t part = 0; part < lses.parts; ++part) {
    if (lses[part] != -kInfinity) sum += std::exp(lses[part] - max);
  }
  const float lse = std::isfinite(max) ? max + std::log(sum) : max;
  p.lse.as<float>()[row * p.lse.stride[0] + head * p.lse.stride[1]] = lse;

  float denominator = sum;
  if (p.attn_sink) denominator *= 1.0f + std::exp(p.attn_sink.as<const float>()[head] - lse);
  const int64_t d_v = p.out.size[2];
  const int64_t out_offset = row * p.out.stride[0] + head * p.out.stride[1];
  for (int64_t begin = 0; begin < d_v; begin += kChunk) {
    const int64_t n = std::min(kChunk, d_v - begin);
    float merged[kChunk] = {}, values[kChunk];
    for (int64_t part = 0; part < lses.parts; ++part) {
      if (lses[part] == -kInfinity) continue;
      const float weight = std::exp(lses[part] - max) / denominator;
      to_float(isa, p.outs.data, p.outs.dtype,
               part * p.outs.stride[0] + row * p.outs.stride[1] + head * p.outs.stride[2] + begin,
               values, n);
      for (int64_t i = 0; i < n; ++i) merged[i] += weight * values[i];
    }
    from_float(isa, merged, p.out.data, p.out.dtype, out_offset + begin, n);
  }
}

}  // namespace

void merge_attention_states(const MergeAttentionStatesParams& p) {
  constexpr int64_t kBlock = 8;
  const Isa& isa = current_isa();
  const int64_t heads = p.out.size[1], items = p.out.size[0] * heads;
  parallel_items((items + kBlock - 1) / kBlock, [&](int64_t block) {
    for (int64_t i = block * kBlock; i < std::min((block + 1) * kBlock, items); ++i) {
      merge_head(isa, p, i / heads, i % heads);
    }
  });
}

}  // namespace dsa::cpu
