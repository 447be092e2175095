// Passes over a row of scores for topk_indices.cpp.
#pragma once

#include "vec.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

inline int32_t total_order_key(float score) {
  union {
    float f;
    int32_t i;
  } x;
  x.f = score + 0.0f;  // -0 becomes +0
  const int32_t key = x.i ^ ((x.i >> 31) & 0x7fffffff);
  return score != score ? INT32_MIN : key;
}

int64_t count_at_least(const float* scores, int64_t n, int32_t threshold) {
  int64_t count = 0;
  for (int64_t begin = 0; begin < n; begin += 1 << 20) {
    const int64_t end = n - begin < (1 << 20) ? n : begin + (1 << 20);
    int32_t part = 0;  // 32 bits so that it vectorises at full width
    for (int64_t i = begin; i < end; ++i) part += total_order_key(scores[i]) >= threshold;
    count += part;
  }
  return count;
}

int64_t emit_selected(const float* scores, int64_t n, int32_t threshold, int64_t ties,
                      int32_t* out) {
  int64_t written = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t key = total_order_key(scores[i]);
    const bool take = key > threshold || (key == threshold && ties > 0);
    ties -= key == threshold && take;
    if (take) out[written++] = static_cast<int32_t>(i);
  }
  return written;
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
