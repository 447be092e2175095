// Selects from one row, by all threads of a CTA or of a cluster together.
//
//   guess      a sample gives a threshold that slightly more than k entries should reach
//   collect    one pass over the row keeps those in shared memory
//   threshold  the k-th key by radix, among what was collected
//   emit       the selected indices in rising order
//
// Where a plateau of equal keys lies at the k-th place, what is above it is collected, and its ties
// are read from the row again, as far as they are needed. Where the guess was wrong the row takes
// the place of what was collected. No buffer decides about the result. See docs/selection.md.
#pragma once

#include "collect.cuh"
#include "emit.cuh"
#include "group.cuh"

namespace dsa {

constexpr int kMaxSample = 8192, kMinStride = 64;

struct SelectShared {
  HistogramShared histogram;
  union {
    uint32_t sample[kMaxSample];
    Staged staged;
    uint32_t reduced[kBins];
    EmitShared emit;
  };
  CollectShared collect;
  OfCtas candidates, ties;  // what each CTA has collected
  OfCtas above, tied;       // what each CTA selects from
};

template <class G>
class RowSelector {
 public:
  __device__ __forceinline__ RowSelector(const G& group, SelectShared& s, uint2* candidates,
                                         uint32_t* all_keys, int capacity)
      : group_(group), s_(s), candidates_(candidates), all_keys_(all_keys), capacity_(capacity) {}

  // Of n candidates, `row` being the first.
  __device__ __forceinline__ void select(const float* row, int n, int k, int* out) {
    if (n <= k) return take_all(n, k, out);
    const Slice whole(row, 0, n), slice = whole.share(group_.rank, group_.size);
    if (threadIdx.x == 0) s_.collect = {0, 0};
    group_.sync();  // also: the other CTAs run
    const Guess guess = n <= capacity_ ? Guess{kNanKey, true} : guess_threshold(whole, k);
    if (guess.strict)
      collect<true>(s_.collect, s_.staged, candidates_, capacity_, slice, guess.low);
    else
      collect<false>(s_.collect, s_.staged, candidates_, capacity_, slice, guess.low);
    __syncthreads();
    share_counts(slice, guess);
    const int count = sum_of(s_.candidates, group_.size), ties = sum_of(s_.ties, group_.size);
    if ((DSA_FAULT != 203 && count > capacity_) || count + ties < k)
      select_from_row(slice, k, out);
    else if (count < k)
      select_with_ties(slice, {guess.low, 0, k - count, ties}, k, out);
    else
      select_from_candidates(slice, count, k, out);
  }

 private:
  __device__ __forceinline__ void take_all(int n, int k, int* out) const {
    for (int i = group_.rank * kTopkThreads + threadIdx.x; i < k; i += group_.size * kTopkThreads)
      out[i] = i < n ? i : -1;
  }

  // An entry of every `stride`, at an offset that is no function of the position modulo anything
  // short. About 16 of the sample are among the k best, so that their number is known to a quarter.
  __device__ __forceinline__ Guess guess_threshold(const Slice& row, int k) {
    const int stride = max(max(kMinStride, k / 16), ceil_div(row.size, kMaxSample));
    const int size = row.size / stride;
    const int step = group_.size * kTopkThreads;
    for (int i = group_.rank * kTopkThreads + threadIdx.x; i < size; i += step) {
      const int offset = __umulhi(i * 0x9e3779b1u, stride);
      group_.store_to_all(&s_.sample[i],
                          key_of(row.data[static_cast<int64_t>(i) * stride + offset]));
    }
    group_.sync();
    const float expected = static_cast<float>(k) / stride;
    const int rank = min(size, static_cast<int>(expected + 3.5f * sqrtf(expected)) + 2);
    const Threshold t = find_threshold(s_.histogram, rank, keys(s_.sample, size), [] {});
    const int64_t at_least = rank - t.need + t.count;
    const uint32_t low = t.prefix << t.shift;
    return {low, low == kNanKey || at_least * stride > capacity_ / 4 * 3};
  }

  __device__ __forceinline__ void share_counts(const Slice& slice, const Guess& guess) const {
    const uint32_t count = s_.collect.count;
    group_.publish(s_.candidates, count);
    group_.publish(s_.ties,
                   guess.strict && guess.low == kNanKey ? slice.size - count : s_.collect.ties);
    group_.sync();
  }

  __device__ __forceinline__ void select_from_candidates(const Slice& slice, int count, int k,
                                                         int* out) {
    const int mine = s_.candidates[group_.rank];
    const auto visit_mine = [&](auto f) { visit_candidates(mine, f); };
    Threshold t;
    if constexpr (G::kClustered) {
      const int first = sum_of(s_.candidates, group_.rank);
      for (int i = threadIdx.x; i < mine; i += kTopkThreads)
        group_.store_to_all(&all_keys_[first + i], key_of(__uint_as_float(candidates_[i].x)));
      group_.sync();
      t = find_threshold(s_.histogram, k, keys(all_keys_, count), [] {});
    } else {
      t = find_threshold(s_.histogram, k, visit_mine, [] {});
    }
    const Selected before = selected_before(t, visit_mine);
    emit(s_.emit, slice, t, k, before, out,
         [&](int window, int, int) { mark_candidates(s_.emit, candidates_, mine, window, t); });
  }

  // All candidates, and the first ties in the row.
  __device__ __forceinline__ void select_with_ties(const Slice& slice, const Threshold& t, int k,
                                                   int* out) {
    const int mine = s_.candidates[group_.rank];
    const Selected before{sum_of(s_.candidates, group_.rank), sum_of(s_.ties, group_.rank)};
    emit(s_.emit, slice, t, k, before, out, [&](int window, int words, int ties) {
      mark_candidates(s_.emit, candidates_, mine, window, t);
      mark_row<false>(s_.emit, slice, window, words, t, ties);
    });
  }

  __device__ __forceinline__ void select_from_row(const Slice& slice, int k, int* out) {
    const auto visit = [&](auto f) {
      slice.for_each_tile<1>([&](const float (&x)[kVector], int i) {
#pragma unroll
        for (int j = 0; j < kVector; ++j) f(slice.contains(i + j), key_of(x[j]));
      });
    };
    const Threshold t = find_threshold(s_.histogram, k, visit, [&] { add_up_histograms(); });
    const Selected before = selected_before(t, visit);
    emit(s_.emit, slice, t, k, before, out, [&](int window, int words, int ties) {
      mark_row<true>(s_.emit, slice, window, words, t, ties);
    });
  }

  // How many the CTAs before this one select from.
  template <class Visit>
  __device__ __forceinline__ Selected selected_before(const Threshold& t, Visit visit) {
    if constexpr (!G::kClustered) return {0, 0};
    if (threadIdx.x == 0) s_.collect = {0, 0};
    __syncthreads();
    int above = 0, tied = 0;
    visit([&](bool counted, uint32_t key) {
      above += counted && t.above(key);
      tied += counted && t.tied(key);
    });
    above = __reduce_add_sync(0xffffffff, above), tied = __reduce_add_sync(0xffffffff, tied);
    if (lane_index() == 0) atomicAdd(&s_.collect.count, above), atomicAdd(&s_.collect.ties, tied);
    __syncthreads();
    group_.publish(s_.above, s_.collect.count);
    group_.publish(s_.tied, s_.collect.ties);
    group_.sync();
    return {sum_of(s_.above, group_.rank), DSA_FAULT == 204 ? 0 : sum_of(s_.tied, group_.rank)};
  }

  // Each CTA adds up its share of the bins, and stores the sums to all.
  __device__ __forceinline__ void add_up_histograms() const {
    if constexpr (!G::kClustered) return;
    group_.sync();
    const int step = group_.size * kTopkThreads;
    for (int bin = group_.rank * kTopkThreads + threadIdx.x; bin < kBins; bin += step) {
      uint32_t sum = 0;
      for (int cta = 0; cta < group_.size; ++cta)
        sum += remote_load(remote_address(&s_.histogram.counts[bin], cta));
      group_.store_to_all(&s_.reduced[bin], sum);
    }
    group_.sync();
    for (int bin = threadIdx.x; bin < kBins; bin += kTopkThreads)
      s_.histogram.counts[bin] = s_.reduced[bin];
    __syncthreads();
  }

  template <class F>
  __device__ __forceinline__ void visit_candidates(int count, F f) const {
    for (int i = 0; i < count; i += kTopkThreads) {
      const bool valid = i + threadIdx.x < count;
      f(valid, valid ? key_of(__uint_as_float(candidates_[i + threadIdx.x].x)) : 0);
    }
  }

  __device__ __forceinline__ static auto keys(const uint32_t* keys, int count) {
    return [=](auto f) {
      for (int i = 0; i < count; i += kTopkThreads) {
        const bool valid = i + threadIdx.x < count;
        f(valid, valid ? keys[i + threadIdx.x] : 0);
      }
    };
  }

  const G& group_;
  SelectShared& s_;
  uint2* const candidates_;
  uint32_t* const all_keys_;
  const int capacity_;
};

}  // namespace dsa
