// Threads of the caller's torch pool.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace dsa::cpu {

// Calls fn(i) for i in [0, n), each once. Items are handed out as threads come free, because
// causal rows differ in cost; no result may depend on which thread runs an item.
template <class F>
void parallel_items(int64_t n, const F& fn) {
  const int64_t threads =
      n < torch::stable::get_num_threads() ? n : torch::stable::get_num_threads();
  if (threads <= 1) {
    for (int64_t i = 0; i < n; ++i) fn(i);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < n; i = next++) fn(i);
  });
}

// Rows of an item, for n rows that are moved: long runs, for what hardware and kernels read ahead
// of an item's end is lost on its thread; and several items a thread, for some may be slower.
inline int64_t rows_per_item(int64_t n) {
  constexpr int64_t kItemsPerThread = 8, kLeastRows = 64;
  const int64_t items = torch::stable::get_num_threads() * kItemsPerThread;
  return std::max((n + items - 1) / items, kLeastRows);
}

}  // namespace dsa::cpu
