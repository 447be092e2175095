// Passes over a row of scores for topk_indices.cpp. They compare floats as ordered values, so that
// -0 equals +0 and NaN is below every threshold.
#pragma once

#include "vec.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

// A step of collect and emit_selected: kStep entries at a time, bit i of a mask standing for entry
// i. `put` stores the ids of the mask's entries side by side, and may store up to kStep of them.
#if DSA_VECTOR_BYTES == 64
constexpr int kStep = 16;
typedef VecF Step;
typedef VecI StepIds;

inline uint32_t at_least(Step x, Step t) {
  return _mm512_cmp_ps_mask(x, t, _CMP_GE_OQ);
}
inline uint32_t above(Step x, Step t) {
  return _mm512_cmp_ps_mask(x, t, _CMP_GT_OQ);
}
inline uint32_t equal(Step x, Step t) {
  return _mm512_cmp_ps_mask(x, t, _CMP_EQ_OQ);
}
inline uint32_t is_nan(Step x) {
  return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
}
// Compressed in the register: vpcompressd to memory is microcoded on Zen 4.
inline void put(int32_t* out, uint32_t mask, StepIds ids) {
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask),
                                                       reinterpret_cast<__m512i>(ids)));
}
inline int size(uint32_t mask) {
  return __builtin_popcount(mask);
}
#elif DSA_VECTOR_BYTES == 32
constexpr int kStep = 8;
typedef VecF Step;
typedef VecI StepIds;

inline uint32_t at_least(Step x, Step t) {
  return _mm256_movemask_ps(_mm256_cmp_ps(x, t, _CMP_GE_OQ));
}
inline uint32_t above(Step x, Step t) {
  return _mm256_movemask_ps(_mm256_cmp_ps(x, t, _CMP_GT_OQ));
}
inline uint32_t equal(Step x, Step t) {
  return _mm256_movemask_ps(_mm256_cmp_ps(x, t, _CMP_EQ_OQ));
}
inline uint32_t is_nan(Step x) {
  return _mm256_movemask_ps(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

// Of each mask, the numbers of its bits as bytes, lowest first.
struct Lanes {
  uint64_t of[256];
  constexpr Lanes() : of{} {
    for (int mask = 0; mask < 256; ++mask) {
      int shift = 0;
      for (uint64_t lane = 0; lane < 8; ++lane) {
        if (mask >> lane & 1) of[mask] |= lane << shift, shift += 8;
      }
    }
  }
};
constexpr Lanes kSelectedLanes;

inline __m256i selected_lanes(uint32_t mask) {
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(kSelectedLanes.of[mask])));
}
inline void put(int32_t* out, uint32_t mask, StepIds ids) {
  _mm256_storeu_si256(
      reinterpret_cast<__m256i_u*>(out),
      _mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(ids), selected_lanes(mask)));
}
inline int size(uint32_t mask) {
  return __builtin_popcount(mask);
}
#else
constexpr int kStep = 1;
typedef float Step;
typedef int32_t StepIds;

inline uint32_t at_least(Step x, Step t) {
  return x >= t;
}
inline uint32_t above(Step x, Step t) {
  return x > t;
}
inline uint32_t equal(Step x, Step t) {
  return x == t;
}
inline uint32_t is_nan(Step x) {
  return x != x;
}
inline void put(int32_t* out, uint32_t, StepIds ids) {
  *out = ids;
}
inline int size(uint32_t mask) {
  return static_cast<int>(mask);
}
#endif

// A pass over a row prefetches by hand: hardware stops at the end of each page. In floats.
constexpr int kLine = 16, kAhead = 2048;

constexpr uint32_t kAllOfStep = (1u << kStep) - 1;

template <class T>
struct Loadable {
  typedef T type __attribute__((aligned(4), may_alias));
};

template <class Wide, class T>
inline Wide load_step(const T* p) {
  return *reinterpret_cast<const typename Loadable<Wide>::type*>(p);
}

// The `n` < kStep entries left at the end of a row, without reading past it.
template <class Wide, class T>
inline Wide load_rest(const T* p, int64_t n) {
  alignas(64) T rest[kStep] = {};
  for (int64_t i = 0; i < n; ++i) rest[i] = p[i];
  return load_step<Wide>(rest);
}

inline Step splat_step(float x) {
  return x - Step{};
}

inline StepIds first_ids() {
  alignas(64) int32_t ids[kStep];
  for (int i = 0; i < kStep; ++i) ids[i] = i;
  return load_step<StepIds>(ids);
}

// counts += 1 in the lanes where x >= t.
inline void count_lanes(VecI& counts, VecF x, VecF t) {
#if DSA_VECTOR_BYTES == 64
  const __mmask16 mask = _mm512_cmp_ps_mask(x, t, _CMP_GE_OQ);
  const __m512i old = reinterpret_cast<__m512i>(counts);
  counts = reinterpret_cast<VecI>(_mm512_mask_add_epi32(old, mask, old, _mm512_set1_epi32(1)));
#else
  counts -= x >= t;
#endif
}

template <int kPivotCount>
inline void count_pivots(const float* x, int64_t n, const float* pivots, int64_t* counts) {
  constexpr int kUnroll = kPivotCount == 1 ? 4 : 2;
  VecI lanes[kUnroll][kPivotCount] = {};
  int64_t i = 0;
  for (; i + kUnroll * kLanes <= n; i += kUnroll * kLanes) {
    for (int u = 0; u < kUnroll; ++u) {
      const VecF v = load(x + i + u * kLanes);
      for (int p = 0; p < kPivotCount; ++p) count_lanes(lanes[u][p], v, splat(pivots[p]));
    }
  }
  for (int p = 0; p < kPivotCount; ++p) {
    counts[p] = 0;
    for (int u = 0; u < kUnroll; ++u) {
      for (int lane = 0; lane < kLanes; ++lane) counts[p] += lanes[u][p][lane];
    }
    for (int64_t j = i; j < n; ++j) counts[p] += x[j] >= pivots[p];
  }
}

int64_t count_at_least(const float* x, int64_t n, float pivot) {
  int64_t count;
  count_pivots<1>(x, n, &pivot, &count);
  return count;
}

void count_at_least_each(const float* x, int64_t n, const float* pivots, int64_t* counts) {
  count_pivots<kPivots>(x, n, pivots, counts);
}

// Few entries of a good guess are taken: of each block of 64, its mask's bits give them, four at a
// time whether or not there are as many, which no branch has to guess.
int64_t collect(const float* x, int64_t n, float threshold, int64_t capacity, float* values,
                int32_t* indices) {
  constexpr int kBlock = 64, kAtOnce = 4;
  static_assert(kBlock + kAtOnce <= kCollectSlack);
  const Step t = splat_step(threshold);
  int64_t count = 0, i = 0;
  for (; i + kBlock <= n && count <= capacity; i += kBlock) {
    for (int s = 0; s < kBlock; s += kLine) __builtin_prefetch(x + i + s + kAhead);
    uint64_t take = 0;
#pragma GCC unroll 8
    for (int s = 0; s < kBlock; s += kStep) {
      take |= uint64_t{at_least(load_step<Step>(x + i + s), t)} << s;
    }
    int64_t to = count;
    count += __builtin_popcountll(take);
    do {
#pragma GCC unroll 4
      for (int j = 0; j < kAtOnce; ++j, ++to) {
        const int64_t entry = i + __builtin_ctzll(take | uint64_t{1} << (kBlock - 1));
        values[to] = x[entry];
        indices[to] = static_cast<int32_t>(entry);
        take &= take - 1;
      }
    } while (take != 0);
  }
  for (; i < n && count <= capacity; ++i) {
    values[count] = x[i];
    indices[count] = static_cast<int32_t>(i);
    count += x[i] >= threshold;
  }
  return count;
}

// The lowest `n` bits of the mask that are set.
inline uint32_t first_of(uint32_t mask, int64_t n) {
  if (size(mask) <= n) return mask;
  uint32_t rest = mask;
  for (; n > 0 && rest != 0; --n) rest &= rest - 1;
  return mask ^ rest;
}

template <bool kNanTies, bool kHasIds>
int64_t emit(const float* x, const int32_t* ids, int64_t n, float threshold, int64_t ties,
             int64_t limit, int32_t* out) {
  const Step t = splat_step(threshold);
  StepIds positions = first_ids();
  int64_t written = 0;
  const auto step = [&](Step v, StepIds id, uint32_t inside) {
    const uint32_t tied = (kNanTies ? is_nan(v) : equal(v, t)) & inside;
    uint32_t take = (kNanTies ? ~is_nan(v) : above(v, t)) & inside;
    if (tied != 0 && ties > 0) {
      const uint32_t chosen = first_of(tied, ties);
      ties -= size(chosen);
      take |= chosen;
    }
    put(out + written, take, id);
    written += size(take);
  };
  int64_t i = 0;
  for (; i + kStep <= n && written < limit; i += kStep) {
    step(load_step<Step>(x + i), kHasIds ? load_step<StepIds>(ids + i) : positions, kAllOfStep);
    positions += kStep;
  }
  if (i < n && written < limit) {
    const int64_t rest = n - i;
    step(load_rest<Step>(x + i, rest), kHasIds ? load_rest<StepIds>(ids + i, rest) : positions,
         (1u << rest) - 1);
  }
  return written;
}

int64_t emit_selected(const float* x, const int32_t* ids, int64_t n, float threshold, int64_t ties,
                      int64_t limit, int32_t* out) {
  if (threshold != threshold) return emit<true, false>(x, nullptr, n, threshold, ties, limit, out);
  return ids == nullptr ? emit<false, false>(x, nullptr, n, threshold, ties, limit, out)
                        : emit<false, true>(x, ids, n, threshold, ties, limit, out);
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
