// Matrix products of words: the two of sparse MLA, and the indexer's fused score.
//
//   register block    M rows of a (one or two words broadcast) x V vectors of b
//                     512 bit: 24 accumulators, 4 x b, 1 broadcast = 29 of 32 registers
//                     256 bit: 12 accumulators, 2 x b, 1 broadcast = 15 of 16
//
// Every element of a result sums the words in an order of its own, whatever block it falls into:
// that is what makes results independent of tiles, batch and threads.
#pragma once

#include "vec.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

constexpr int kMaxVectors = kLanes == 16 ? 4 : 2;
constexpr int kAccumulators = kLanes == 16 ? 24 : 12;
constexpr int kPanel = kMaxVectors * kLanes;

struct Fp32 {
  static constexpr int kDimsPerWord = 1;
  static constexpr int kChunk = 64;  // words that one chain sums: bounds the rounding error
  static VecF multiply_add(VecI a, VecI b, VecF c) {
    return DSA_ISA_NAMESPACE::multiply_add(floats(a), floats(b), c);
  }
};

#if defined(__AVX512BF16__)
// bfloat16 subnormals count as zero in these products (and subnormal results become zero).
struct Bf16 {
  static constexpr int kDimsPerWord = 2;
  static constexpr int kChunk = 96;
  static VecF multiply_add(VecI a, VecI b, VecF c) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
  }
};
#endif

// M rows of a, `row` words apart, whose words are `column` apart. From few registers: one for every
// eight rows, and multiples of the stride, which x86 scales by 2 and 4. Left alone, compilers keep
// an offset for each row, in memory.
template <int M>
class EvenRows {
 public:
  EvenRows(const uint32_t* a, int64_t row, int64_t column) : column_(column * kBytes) {
    by1_ = row * kBytes, by3_ = 3 * by1_, by5_ = 5 * by1_, by7_ = 7 * by1_;
    for (int i = 0; i < M; i += kGroup) {
      first_[i / kGroup] = reinterpret_cast<const char*>(a + i * row);
    }
#if defined(__x86_64__)
    asm("" : "+r"(by1_), "+r"(by3_), "+r"(by5_), "+r"(by7_));  // unrelated, as far as it knows
#endif
  }
  void advance() {
    for (const char*& p : first_) p += column_;
  }
  uint32_t word(int i) const {
    const int64_t by[kGroup] = {0, by1_, 2 * by1_, by3_, 4 * by1_, by5_, 2 * by3_, by7_};
    return *reinterpret_cast<const uint32_t*>(first_[i / kGroup] + by[i % kGroup]);
  }

 private:
  static constexpr int kGroup = 8;
  static constexpr int64_t kBytes = sizeof(uint32_t);
  const char* first_[(M + kGroup - 1) / kGroup];
  int64_t by1_, by3_, by5_, by7_, column_;
};

// M rows of a at addresses of their own, from word `begin` on, two words at a time: M pointers that
// share an offset.
template <int M>
class ListedRows {
 public:
  ListedRows(const uint32_t* const* rows, int64_t begin) : at_(begin) {
    for (int i = 0; i < M; ++i) rows_[i] = rows[i];
#if defined(__x86_64__)
    for (const uint32_t*& row : rows_) asm("" : "+r"(row));  // else each gets its own offset
#endif
  }
  void advance() { at_ += 2; }
  uint64_t word(int i) const {
    typedef uint64_t Pair __attribute__((aligned(4), may_alias));
    return *reinterpret_cast<const Pair*>(rows_[i] + at_);
  }

 private:
  const uint32_t* rows_[M];
  int64_t at_;
};

// Rows of b, one after the other.
struct EvenColumns {
  const uint32_t* b;
  int64_t row;
  const uint32_t* next() {
    const uint32_t* now = b;
    b += row;
    return now;
  }
};
struct ListedColumns {
  const uint32_t* const* rows;
  int64_t first;
  const uint32_t* next() {
    const uint32_t* now = *rows++ + first;
#if defined(__x86_64__)
    asm("" : "+r"(now));  // else each vector gets its own offset
#endif
    return now;
  }
};

// acc[i][v] += a[i, :] . b[:, v]
template <class Unit, int M, int V, class Rows, class Columns>
inline __attribute__((always_inline)) void accumulate(VecF (&acc)[M][V], Rows a, Columns b,
                                                      int words) {
  for (int x = 0; x < words; ++x, a.advance()) {
    const uint32_t* columns = b.next();
    VecI row[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) row[v] = load(columns + v * kLanes);
#pragma GCC unroll 24
    for (int i = 0; i < M; ++i) {
      const VecI ai = splat(a.word(i));
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[i][v] = Unit::multiply_add(ai, row[v], acc[i][v]);
    }
  }
}

// The next smaller block for what a block of M rows leaves over.
constexpr int smaller(int m) {
  int half = 1;
  while (2 * half < m) half *= 2;
  return half;
}

// Calls finish(i, a[i, :] . V vectors of b) for i in [i, m); rows(Int<M>, i) are a's rows
// [i, i + M).
template <class Unit, int M, int V, class MakeRows, class Columns, class Finish>
void product(const MakeRows& rows, const Columns& b, int i, int m, int words,
             const Finish& finish) {
  for (; m - i >= M; i += M) {
    VecF acc[M][V] = {};
    accumulate<Unit, M, V>(acc, rows(Int<M>{}, i), b, words);
#pragma GCC unroll 24
    for (int j = 0; j < M; ++j) finish(i + j, acc[j]);
  }
  if constexpr (M > 1) {
    if (i < m) product<Unit, smaller(M), V>(rows, b, i, m, words, finish);
  }
}

// Calls f(begin, size) for each chunk of the words.
template <class F>
void for_each_chunk(int words, int chunk, F f) {
  for (int x = 0; x < words; x += chunk) f(x, words - x < chunk ? words - x : chunk);
}

inline void put(float* to, VecF x, bool add) {
  store(to, add ? load(to) + x : x);
}

// Sums of neighbouring lanes of a, then of b.
inline VecF pair_sums(VecF a, VecF b) {
#define DSA_EVEN(l) 2 * (l)
#define DSA_ODD(l) 2 * (l) + 1
  return __builtin_shufflevector(a, b, DSA_EACH_LANE(DSA_EVEN)) +
         __builtin_shufflevector(a, b, DSA_EACH_LANE(DSA_ODD));
#undef DSA_EVEN
#undef DSA_ODD
}

// See Arithmetic::dots. Two words of a key are broadcast at once, and even and odd words are summed
// apart: with one vector of heads, a broadcast for every product would keep the load ports busy
// longer than the products take.
template <class Unit>
void dots(const uint32_t* const* keys, int num_keys, const uint32_t* q, int lanes, int words,
          float* out) {
  for_each_chunk(words, 2 * Unit::kChunk, [&](int begin, int size) {
    const auto rows = [&](auto count, int i) {
      return ListedRows<decltype(count)::value>(keys + i, begin);
    };
    int j = 0;  // of the lanes
    const auto columns = [&](auto vectors) {
      constexpr int V = decltype(vectors)::value;
      for (; lanes - j >= V / 2 * kLanes; j += V / 2 * kLanes) {
        const EvenColumns b{q + int64_t{begin} * lanes + 2 * j, 2 * lanes};
        const auto finish = [&](int key, const VecF(&acc)[V]) {
          float* to = out + int64_t{key} * lanes + j;
#pragma GCC unroll 2
          for (int v = 0; v < V; v += 2) {
            put(to + v / 2 * kLanes, pair_sums(acc[v], acc[v + 1]), begin > 0);
          }
        };
        product<Unit, kAccumulators / V, V>(rows, b, 0, num_keys, size / 2, finish);
      }
    };
    if constexpr (kMaxVectors == 4) columns(Int<4>{});
    columns(Int<2>{});
  });
}

// See Arithmetic::combine.
template <class Unit>
void combine(const uint32_t* p, int heads, int lanes, const uint32_t* const* values, int words,
             float* out, int dims, bool add) {
  constexpr int V = kMaxVectors;
  for_each_chunk(words, Unit::kChunk, [&](int begin, int size) {
    const auto rows = [&](auto count, int i) {
      return EvenRows<decltype(count)::value>(p + int64_t{begin} * lanes + i, 1, lanes);
    };
    for (int d = 0; d < dims; d += V * kLanes) {
      const auto finish = [&](int head, const VecF(&acc)[V]) {
        float* to = out + int64_t{head} * dims + d;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) put(to + v * kLanes, acc[v], add || begin > 0);
      };
      product<Unit, kAccumulators / V, V>(rows, ListedColumns{values + begin, d}, 0, heads, size,
                                          finish);
    }
  });
}

// One panel of the heads; see Arithmetic::score.
struct ScorePanel {
  const uint32_t* q;     // [words, lanes]
  const float* weights;  // [lanes]
  int lanes, words;
  VecI heads;        // of the last vector: all ones, but zero in lanes past the last head
  bool first, last;  // of the panels
};

// part[i] = sums[i * step] + sum over the panel's heads of weight * relu(q . key i)
template <class Unit, int M, int V>
inline __attribute__((always_inline)) void score_panel(const uint32_t* keys, const ScorePanel& p,
                                                       const float* sums, int step,
                                                       VecF (&part)[M]) {
  VecF acc[M][V] = {};
  accumulate<Unit, M, V>(acc, EvenRows<M>(keys, p.words, 1), EvenColumns{p.q, p.lanes}, p.words);
#pragma GCC unroll 24
  for (int i = 0; i < M; ++i) {
    part[i] = load(sums + i * step);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      VecF dots = relu(acc[i][v]);
      // A lane without a head counts as zero, whatever its dot product is (0 * inf is NaN).
      if (v == V - 1) dots = floats(bits(dots) & p.heads);
      part[i] = multiply_add(dots, load(p.weights + v * kLanes), part[i]);
    }
  }
}

// parts: of each key, what the panels so far sum to; [num_keys, kLanes].
template <class Unit, int M, int V>
void score_keys(const uint32_t* keys, int num_keys, const ScorePanel& p, float* parts,
                const float* scales, float* out) {
  constexpr float kZeros[kLanes] = {};
  for (; num_keys >= M; num_keys -= M, keys += M * p.words, scales += M, out += M) {
    VecF part[M];
    score_panel<Unit, M, V>(keys, p, p.first ? kZeros : parts, p.first ? 0 : kLanes, part);
    if (p.last) {
#pragma GCC unroll 6
      for (int i = 0; i < M; i += 4) {
        const auto at = [&](int j) { return part[j < M ? j : M - 1]; };
        const Vec4 sums = lane_sums(at(i), at(i + 1), at(i + 2), at(i + 3));
        for (int j = 0; j < 4 && i + j < M; ++j) out[i + j] = scales[i + j] * sums[j];
      }
    } else {
#pragma GCC unroll 24
      for (int i = 0; i < M; ++i) store(parts + i * kLanes, part[i]);
    }
    parts += M * kLanes;
  }
  if constexpr (M > 1) {
    if (num_keys > 0) score_keys<Unit, smaller(M), V>(keys, num_keys, p, parts, scales, out);
  }
}

// A panel of the heads after the other, so that it stays in the L1 cache while all keys pass by.
template <class Unit>
void score(const uint32_t* keys, int num_keys, const uint32_t* q, int heads, int words,
           const float* weights, const float* scales, float* out) {
  float parts[kMaxScoreKeys * kLanes];
  for (int first = 0; first < heads; first += kPanel, q += int64_t{kPanel} * words) {
    const int here = heads - first < kPanel ? heads - first : kPanel;
    const int vectors = (here + kLanes - 1) / kLanes;
    VecI last{};
    for (int l = 0; l < kLanes; ++l) last[l] = (vectors - 1) * kLanes + l < here ? -1 : 0;
    const ScorePanel p{q,    weights + first, vectors * kLanes,     words,
                       last, first == 0,      first + here == heads};
    const auto run = [&](auto v) {
      constexpr int V = decltype(v)::value;
      score_keys<Unit, kAccumulators / V, V>(keys, num_keys, p, parts, scales, out);
    };
    if (vectors == 1) run(Int<1>{});
    if (vectors == 2) run(Int<2>{});
    if constexpr (kMaxVectors == 4) {
      if (vectors == 4) run(Int<4>{});
    }
  }
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
