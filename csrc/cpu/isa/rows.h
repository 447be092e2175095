// Rows of 64 or 128 elements held in registers, for the quantisers.
#pragma once

#include "vec.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

#define DSA_INLINE inline __attribute__((always_inline))

typedef uint32_t VecU __attribute__((vector_size(DSA_VECTOR_BYTES)));
typedef uint16_t Half __attribute__((vector_size(DSA_VECTOR_BYTES / 2)));
typedef uint16_t HalfU __attribute__((vector_size(DSA_VECTOR_BYTES / 2), aligned(2), may_alias));
typedef float HalfF __attribute__((vector_size(DSA_VECTOR_BYTES / 2)));
typedef float HalfFU __attribute__((vector_size(DSA_VECTOR_BYTES / 2), aligned(4), may_alias));

template <int N>
struct Row {
  static constexpr int kVectors = N / kLanes;
  VecF v[kVectors];
};

DSA_INLINE VecU unsigned_bits(VecF v) {
  return reinterpret_cast<VecU>(v);
}
DSA_INLINE VecF floats(VecU v) {
  return reinterpret_cast<VecF>(v);
}

// A vector of bfloat16 as float.
DSA_INLINE VecF widen(const uint16_t* in) {
#if DSA_VECTOR_BYTES == 64  // GCC 12 halves the conversion of its generic vectors
  return floats((VecU)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)in)) << 16);
#else
  return floats(__builtin_convertvector(Half(*reinterpret_cast<const HalfU*>(in)), VecU) << 16);
#endif
}

template <int N>
DSA_INLINE void load_row(const uint16_t* in, Row<N>& x) {
#pragma GCC unroll 32
  for (int i = 0; i < Row<N>::kVectors; ++i) x.v[i] = widen(in + i * kLanes);
}

template <int N>
DSA_INLINE void load_row(const float* in, Row<N>& x) {
#pragma GCC unroll 32
  for (int i = 0; i < Row<N>::kVectors; ++i) x.v[i] = load(in + i * kLanes);
}

// Lane l of the result is lane l ^ S.
template <int S>
DSA_INLINE VecF partner(VecF v) {
#define DSA_PARTNER(l) ((l) ^ S)
  return __builtin_shufflevector(v, v, DSA_EACH_LANE(DSA_PARTNER));
#undef DSA_PARTNER
}

// The low half of mask's bits from a, the rest from b.
DSA_INLINE VecU select_bits(uint32_t mask, VecU a, VecU b) {
#if DSA_VECTOR_BYTES == 64
  return (VecU)_mm512_ternarylogic_epi32(_mm512_set1_epi32(static_cast<int>(mask)), (__m512i)a,
                                         (__m512i)b, 0xca);
#else
  return (a & mask) | (b & ~mask);
#endif
}

DSA_INLINE VecI max_of(VecI a, VecI b) {
  return a > b ? a : b;
}

// The largest lane.
DSA_INLINE int32_t lane_max(VecI v) {
#if DSA_VECTOR_BYTES == 64
  const __m256i a = _mm256_max_epi32(_mm512_castsi512_si256((__m512i)v),
                                     _mm512_extracti64x4_epi64((__m512i)v, 1));
  __m128i b = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
#elif DSA_VECTOR_BYTES == 32
  __m128i b =
      _mm_max_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
#endif
#if DSA_VECTOR_BYTES > 16
  b = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0x4e));
  b = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0xb1));
  return _mm_cvtsi128_si32(b);
#else
  const auto larger = [](int32_t a, int32_t b) { return a > b ? a : b; };
  return larger(larger(v[0], v[1]), larger(v[2], v[3]));
#endif
}

// Low bytes of the lanes of four vectors, each in 0..255.
DSA_INLINE void store_bytes(uint8_t* out, VecU a, VecU b, VecU c, VecU d) {
#if DSA_VECTOR_BYTES == 64
  const __m512i ab = _mm512_packus_epi32((__m512i)a, (__m512i)b);
  const __m512i cd = _mm512_packus_epi32((__m512i)c, (__m512i)d);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(ab, cd)));
#elif DSA_VECTOR_BYTES == 32
  const __m256i ab = _mm256_packus_epi32((__m256i)a, (__m256i)b);
  const __m256i cd = _mm256_packus_epi32((__m256i)c, (__m256i)d);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                      _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), order));
#elif defined(__SSE2__)
  const __m128i ab = _mm_packs_epi32((__m128i)a, (__m128i)b);
  const __m128i cd = _mm_packs_epi32((__m128i)c, (__m128i)d);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(ab, cd));
#else
  for (int l = 0; l < kLanes; ++l) {
    out[l] = static_cast<uint8_t>(a[l]);
    out[kLanes + l] = static_cast<uint8_t>(b[l]);
    out[2 * kLanes + l] = static_cast<uint8_t>(c[l]);
    out[3 * kLanes + l] = static_cast<uint8_t>(d[l]);
  }
#endif
}

// The sum of a row by halving: x[i] += x[i + n/2], x[i] += x[i + n/4], ...: one order, whatever
// the width of a vector.
template <int N>
DSA_INLINE float row_sum(Row<N> x) {
#pragma GCC unroll 8
  for (int width = Row<N>::kVectors / 2; width > 0; width /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) x.v[i] += x.v[i + width];
  VecF v = x.v[0];
  if constexpr (kLanes > 8) v += partner<8>(v);
  if constexpr (kLanes > 4) v += partner<4>(v);
  v += partner<2>(v);
  v += partner<1>(v);
  return v[0];
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
