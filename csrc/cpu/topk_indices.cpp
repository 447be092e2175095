// Exact top-k of a row: find the k-th largest value T, then emit in index order every entry above
// T and the first ties at T until k are out.
//
// A sample gives a threshold that slightly more than k entries should reach; one pass over the row
// collects those, and T is bisected among them. Where the sample does not help (a plateau at T,
// NaNs, data that defeats it), passes that count entries above a few pivots close in on T in the
// row itself. They halve the space of floats twice each, so the number of passes is bounded for any
// data, and no buffer has a size that depends on the data.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "isa/isa.h"
#include "ops.h"
#include "parallel.h"
#include "scratch.h"

namespace dsa::cpu {
namespace {

// Keys number the floats in their order, -inf to inf; the one below -inf stands for NaN.
constexpr int64_t kHighest = 0x7f800000, kLowest = -kHighest - 1, kNan = kLowest - 1;

float value_of(int64_t key) {
  const auto low = static_cast<int32_t>(key);
  const int32_t bits = low ^ ((low >> 31) & 0x7fffffff);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// What is known of the key of the k-th largest of n entries: it is in [low, high).
class Bracket {
 public:
  Bracket(int64_t k, int64_t n) : k_(k), at_low_(n) {}

  // That `count` entries are >= key. Keys outside tell nothing new.
  void learn(int64_t key, int64_t count) {
    if (key <= low_ || key >= high_) return;
    if (count >= k_) {
      low_ = key, at_low_ = count;
    } else {
      high_ = key, at_high_ = count;
    }
  }

  int64_t low() const { return low_; }
  int64_t at_low() const { return at_low_; }
  bool single() const { return high_ - low_ == 1; }
  bool found() const { return at_low_ == k_ || single(); }

  // How many entries equal to low are among the k.
  int64_t ties() const { return at_low_ == k_ ? k_ : k_ - at_high_; }

  // The key at i / 4 of the way; for i = 2 it is inside as long as the bracket is not single.
  int64_t quarter(int i) const { return low_ + (high_ - low_) * i / 4; }

 private:
  int64_t k_, at_low_, at_high_ = 0;
  int64_t low_ = kNan, high_ = kHighest + 1;
};

// Which entries to look at first, by a sample.
constexpr int kMaxSample = 2048;

// A power of two, and no more than pay for themselves: of a row in memory, each costs a cache line
// by itself.
int sample_size(int64_t n) {
  return n < 524288 ? 1024 : kMaxSample;
}

// One entry of each of `size` cells, as good as equal, that cover the row; at an offset that is no
// function of the position modulo anything short, so that periodic data is sampled fairly.
// testing/generators.py knows these places. They are found first, so that little but misses is in
// flight while the entries are read.
void take_sample(const float* x, int64_t n, uint32_t seed, int size, float* sample) {
  const int shift = std::countr_zero(static_cast<unsigned>(size));
  int64_t places[kMaxSample];
  for (int i = 0; i < size; ++i) {
    const int64_t begin = i * n >> shift, end = (i + 1) * n >> shift;
    uint32_t hash = (static_cast<uint32_t>(i) ^ seed) * 0x9e3779b1u;
    hash = (hash ^ hash >> 15) * 0x85ebca6bu;
    const uint64_t width = end - begin;
    places[i] = begin + static_cast<int64_t>(hash * width >> 32);
  }
  for (int i = 0; i < size; ++i) sample[i] = x[places[i]];
}

// At least k entries should be >= low and fewer >= high. Heavy: so many entries of the sample equal
// low that collecting them would take too many.
struct Guess {
  int64_t low, high;
  bool heavy;
};

Guess guess_threshold(const SelectPasses& passes, const float* x, int64_t n, int64_t k,
                      uint32_t seed) {
  alignas(64) float sample[kMaxSample];
  const int size = sample_size(n);
  take_sample(x, n, seed, size, sample);

  const double share = static_cast<double>(k) / n, expected = size * share;
  const double margin = 3.5 * std::sqrt(expected * (1 - share)) + 2;
  const auto rank = std::min<int64_t>(size, static_cast<int64_t>(expected + margin));
  const int64_t slack = rank / 8;

  Bracket bracket(rank, size);
  Guess guess{0, kHighest, false};
  while (!bracket.single() && bracket.at_low() > rank + slack) {
    const int64_t key = bracket.quarter(2);
    const int64_t count = passes.count(sample, size, value_of(key));
    bracket.learn(key, count);
    if (count <= expected - margin) guess.high = std::min(guess.high, key);
  }
  guess.low = bracket.low();
  guess.heavy = bracket.at_low() > rank + slack;
  return guess;
}

void count_and_learn(const SelectPasses& passes, const float* x, int64_t n,
                     const int64_t (&keys)[kPivots], Bracket& bracket) {
  float pivots[kPivots];
  int64_t counts[kPivots];
  for (int i = 0; i < kPivots; ++i) pivots[i] = value_of(keys[i]);
  passes.count_each(x, n, pivots, counts);
  for (int i = 0; i < kPivots; ++i) bracket.learn(keys[i], counts[i]);
}

void bisect(const SelectPasses& passes, const float* x, int64_t n, int64_t first_key,
            Bracket& bracket) {
  for (int64_t key = first_key; !bracket.found(); key = bracket.quarter(2)) {
    bracket.learn(key, passes.count(x, n, value_of(key)));
  }
}

// Narrows the bracket of a row that the first sample did not settle, until T is found or no more
// than `capacity` entries are >= low, a number: a pass collects none for a NaN.
void search_row(const SelectPasses& passes, const float* x, int64_t n, int64_t k,
                const Guess& guess, int64_t capacity, Bracket& bracket) {
  const auto settled = [&] {
    return bracket.found() || (bracket.low() > kNan && bracket.at_low() <= capacity);
  };
  if (guess.heavy) {
    count_and_learn(passes, x, n, {kLowest, guess.low, guess.low + 1}, bracket);
  }
  if (!settled()) {
    const Guess second = guess_threshold(passes, x, n, k, 0x5bd1e995u);
    const int64_t above = second.heavy ? second.low + 1 : second.high;
    count_and_learn(passes, x, n, {kLowest, second.low, above}, bracket);
  }
  while (!settled()) {
    count_and_learn(passes, x, n, {bracket.quarter(1), bracket.quarter(2), bracket.quarter(3)},
                    bracket);
  }
}

// The indices of n > k candidates, k of them, with room for kMaxLanes more in `out`.
class RowSelector {
 public:
  RowSelector(const SelectPasses& passes, int64_t k) : passes_(passes), k_(k) {}

  void select(const float* x, int64_t n, int32_t* out) {
    Bracket bracket(k_, n);
    if (n <= std::max<int64_t>(4096, 3 * k_)) {
      bisect(passes_, x, n, 0, bracket);
      return emit(x, nullptr, n, bracket, out);
    }
    const Guess guess = guess_threshold(passes_, x, n, k_, 0);
    reserve(n);
    if (!guess.heavy) {
      const int64_t count = collect(x, n, guess.low);
      if (count >= k_ && count <= capacity_) return select_collected(count, guess, out);
      if (count < k_) bracket.learn(guess.low, count);
    }
    search_row(passes_, x, n, k_, guess, capacity_, bracket);
    if (bracket.found()) return emit(x, nullptr, n, bracket, out);
    const int64_t count = collect(x, n, bracket.low());
    select_collected(count, {bracket.low(), kHighest, false}, out);
  }

 private:
  // Room for what a good guess collects, several times over.
  void reserve(int64_t n) {
    capacity_ = 4 * k_ + 4096 + n / 128;
    values_ = value_scratch_.take(capacity_ + kCollectSlack);
    indices_ = index_scratch_.take(capacity_ + kCollectSlack);
  }

  int64_t collect(const float* x, int64_t n, int64_t key) {
    return passes_.collect(x, n, value_of(key), capacity_, values_, indices_);
  }

  void select_collected(int64_t count, const Guess& guess, int32_t* out) {
    // NaN up to a whole vector: no pass selects it, and none has a rest to go through singly.
    const int64_t padded = (count + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
    for (int64_t i = count; i < padded; ++i) values_[i] = value_of(kNan), indices_[i] = 0;
    Bracket bracket(k_, count);
    bracket.learn(guess.low, count);
    bisect(passes_, values_, padded, guess.high, bracket);
    emit(values_, indices_, padded, bracket, out);
  }

  void emit(const float* x, const int32_t* ids, int64_t n, const Bracket& bracket, int32_t* out) {
    passes_.emit(x, ids, n, value_of(bracket.low()), bracket.ties(), k_, out);
  }

  static thread_local Scratch<float> value_scratch_;
  static thread_local Scratch<int32_t> index_scratch_;

  const SelectPasses& passes_;
  const int64_t k_;
  int64_t capacity_ = 0;
  float* values_ = nullptr;
  int32_t* indices_ = nullptr;
};

thread_local Scratch<float> RowSelector::value_scratch_;
thread_local Scratch<int32_t> RowSelector::index_scratch_;

void select_row(const float* scores, int64_t n, int64_t topk, int32_t* out) {
  if (n > topk) {
    static thread_local Scratch<int32_t> scratch;
    int32_t* selected = scratch.take(topk + kMaxLanes);
    RowSelector(current_isa().select, topk).select(scores, n, selected);
    std::memcpy(out, selected, topk * sizeof *out);
    return;
  }
  for (int64_t i = 0; i < topk; ++i) out[i] = i < n ? static_cast<int32_t>(i) : -1;
}

}  // namespace

void topk_indices(const TopkIndicesParams& p) {
  parallel_items(p.scores.size[0], [&](int64_t row) {
    const Range range = row_range(p.row_start, p.row_end, row, p.scores.size[1]);
    select_row(p.scores.as<const float>() + row * p.scores.stride[0] + range.start, range.size(),
               p.topk, p.out.as<int32_t>() + row * p.out.stride[0]);
  });
}

}  // namespace dsa::cpu
