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

// Calls fn(begin, end) for runs of n rows that are moved: long ones, for what hardware and kernels
// read ahead of a run's end is lost on its thread; and several a thread, for some may be slower.
template <class F>
void parallel_runs(int64_t n, const F& fn) {
  constexpr int64_t kRunsPerThread = 8, kLeastRows = 64;
  const int64_t runs = torch::stable::get_num_threads() * kRunsPerThread;
  const int64_t rows = std::max((n + runs - 1) / runs, kLeastRows);
  parallel_items((n + rows - 1) / rows,
                 [&](int64_t i) { fn(i * rows, std::min((i + 1) * rows, n)); });
}

}  // namespace dsa::cpu
