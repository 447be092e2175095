// Matrix products of words: the GEMM of sparse MLA and the indexer's fused score.
//
//   register block    M rows of a (one word broadcast each) x V vectors of b
//                     512 bit: 24 accumulators, 4 x b, 1 broadcast = 29 of 32 registers
//                     256 bit: 12 accumulators, 2 x b, 1 broadcast = 15 of 16
//
// Every element of a result is one chain of multiply-adds over the words in their order, whatever
// block it falls into: that is what makes results independent of tiles, batch and threads.
#pragma once

#include "vec.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

constexpr int kMaxVectors = kLanes == 16 ? 4 : 2;
constexpr int kAccumulators = kLanes == 16 ? 24 : 12;

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

// Addresses of M rows of a from few registers: one for every eight rows, and multiples of the
// stride, which x86 scales by 2 and 4. Left alone, compilers keep an offset for each row, in
// memory.
template <int M>
struct RowPointers {
  static constexpr int kGroup = 8;
  const char* first[(M + kGroup - 1) / kGroup];
  int64_t by1, by3, by5, by7;

  RowPointers(const uint32_t* a, int64_t row) {
    by1 = row * static_cast<int64_t>(sizeof *a), by3 = 3 * by1, by5 = 5 * by1, by7 = 7 * by1;
    for (int i = 0; i < M; i += kGroup) {
      first[i / kGroup] = reinterpret_cast<const char*>(a + i * row);
    }
#if defined(__x86_64__)
    asm("" : "+r"(by1), "+r"(by3), "+r"(by5), "+r"(by7));  // unrelated, as far as it knows
#endif
  }
  void advance(int64_t words) {
    for (const char*& p : first) p += words * static_cast<int64_t>(sizeof(uint32_t));
  }
  uint32_t word(int i) const {
    const int64_t by[kGroup] = {0, by1, 2 * by1, by3, 4 * by1, by5, 2 * by3, by7};
    return *reinterpret_cast<const uint32_t*>(first[i / kGroup] + by[i % kGroup]);
  }
};

// acc[i][v] += a[i, :] . b[:, v]
template <class Unit, int M, int V>
inline __attribute__((always_inline)) void accumulate(VecF (&acc)[M][V], const uint32_t* a,
                                                      int64_t a_row, int64_t a_col,
                                                      const uint32_t* b, int64_t b_row, int words) {
  RowPointers<M> rows(a, a_row);
  for (int x = 0; x < words; ++x, rows.advance(a_col), b += b_row) {
    VecI row[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) row[v] = load(b + v * kLanes);
#pragma GCC unroll 24
    for (int i = 0; i < M; ++i) {
      const VecI ai = splat(rows.word(i));
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

template <class Unit, int M, int V>
void gemm_rows(const uint32_t* a, int64_t a_row, int64_t a_col, const uint32_t* b, int64_t b_row,
               float* c, int64_t c_row, int m, int words, bool add) {
  for (; m >= M; m -= M, a += M * a_row, c += M * c_row) {
    VecF acc[M][V] = {};
    accumulate<Unit, M, V>(acc, a, a_row, a_col, b, b_row, words);
#pragma GCC unroll 24
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        float* to = c + i * c_row + v * kLanes;
        store(to, add ? load(to) + acc[i][v] : acc[i][v]);
      }
    }
  }
  if constexpr (M > 1) {
    if (m > 0) {
      gemm_rows<Unit, smaller(M), V>(a, a_row, a_col, b, b_row, c, c_row, m, words, add);
    }
  }
}

template <class Unit>
void gemm(const uint32_t* a, int64_t a_row, int64_t a_col, const uint32_t* b, int64_t b_row,
          float* c, int64_t c_row, int m, int n, int words, bool add) {
  for (int x = 0; x < words; x += Unit::kChunk) {
    const int chunk = words - x < Unit::kChunk ? words - x : Unit::kChunk;
    const uint32_t *ax = a + x * a_col, *bx = b + x * b_row;
    int j = 0;
    const auto columns = [&](auto vectors) {
      constexpr int V = decltype(vectors)::value;
      for (; n - j >= V * kLanes; j += V * kLanes) {
        gemm_rows<Unit, kAccumulators / V, V>(ax, a_row, a_col, bx + j, b_row, c + j, c_row, m,
                                              chunk, add || x > 0);
      }
    };
    if constexpr (kMaxVectors == 4) columns(Int<4>{});
    columns(Int<2>{});
    columns(Int<1>{});
  }
}

struct ScoreHeads {
  const uint32_t* q;     // [words, lanes]
  const float* weights;  // [lanes]
  int heads, lanes, words;
};

// part[i] += sum over the heads of vectors [first, first + V) of weight * relu(q . key i)
template <class Unit, int M, int V>
inline __attribute__((always_inline)) void score_vectors(const uint32_t* keys, const ScoreHeads& h,
                                                         int first, VecF (&part)[M]) {
  VecF acc[M][V] = {};
  accumulate<Unit, M, V>(acc, keys, h.words, 1, h.q + first * kLanes, h.lanes, h.words);
  // Lanes past the last head are zero, whatever their dot product is (0 * inf is NaN).
  VecI last{};
  for (int l = 0; l < kLanes; ++l) last[l] = (first + V - 1) * kLanes + l < h.heads ? -1 : 0;
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const VecF w = load(h.weights + (first + v) * kLanes);
#pragma GCC unroll 24
    for (int i = 0; i < M; ++i) {
      VecF dots = relu(acc[i][v]);
      if (v == V - 1) dots = floats(bits(dots) & last);
      part[i] = multiply_add(dots, w, part[i]);
    }
  }
}

template <class Unit, int M, int V>
void score_keys(const uint32_t* keys, int num_keys, const ScoreHeads& h, const float* scales,
                float* out) {
  for (; num_keys >= M; num_keys -= M, keys += M * h.words, scales += M, out += M) {
    VecF part[M] = {};
    int first = 0;
    const int vectors = h.lanes / kLanes;
    for (; vectors - first >= V; first += V) score_vectors<Unit, M, V>(keys, h, first, part);
    if constexpr (V == 4) {
      if (vectors - first >= 2) {
        score_vectors<Unit, M, 2>(keys, h, first, part);
        first += 2;
      }
    }
    if constexpr (V > 1) {
      if (vectors > first) score_vectors<Unit, M, 1>(keys, h, first, part);
    }
#pragma GCC unroll 6
    for (int i = 0; i < M; i += 4) {
      const auto at = [&](int j) { return part[j < M ? j : M - 1]; };
      const Vec4 sums = lane_sums(at(i), at(i + 1), at(i + 2), at(i + 3));
      for (int j = 0; j < 4 && i + j < M; ++j) out[i + j] = scales[i + j] * sums[j];
    }
  }
  if constexpr (M > 1) {
    if (num_keys > 0) score_keys<Unit, smaller(M), V>(keys, num_keys, h, scales, out);
  }
}

template <class Unit>
void score(const uint32_t* keys, int num_keys, const uint32_t* q, int heads, int words,
           const float* weights, const float* scales, float* out) {
  const int vectors = (heads + kLanes - 1) / kLanes;
  const ScoreHeads h{q, weights, heads, vectors * kLanes, words};
  if (kMaxVectors == 4 && vectors > 2) {
    score_keys<Unit, kAccumulators / kMaxVectors, kMaxVectors>(keys, num_keys, h, scales, out);
  } else if (vectors > 1) {
    score_keys<Unit, kAccumulators / 2, 2>(keys, num_keys, h, scales, out);
  } else {
    score_keys<Unit, kAccumulators, 1>(keys, num_keys, h, scales, out);
  }
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
