// Vectors of the level being compiled. Include only from isa/<level>.cpp.
//
// Written on the compilers' generic vectors, with intrinsics where those fall short. Standard
// headers stay out (but for <cstdint>): an inline function compiled here with ISA flags could be
// the copy that the linker keeps for the whole library.
#pragma once

#include <cstdint>

#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

constexpr int kLanes = DSA_VECTOR_BYTES / 4;
static_assert(kLanes <= kMaxLanes);

typedef float VecF __attribute__((vector_size(DSA_VECTOR_BYTES)));
typedef int32_t VecI __attribute__((vector_size(DSA_VECTOR_BYTES)));
typedef float Vec4 __attribute__((vector_size(16)));
// The same, loadable from any address of an element and allowed to alias.
typedef float VecFU __attribute__((vector_size(DSA_VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t VecIU __attribute__((vector_size(DSA_VECTOR_BYTES), aligned(4), may_alias));

// F(0), F(1), ..., one for each lane.
#if DSA_VECTOR_BYTES == 64
#define DSA_EACH_LANE(F)                                                                         \
  F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12), F(13), F(14), \
      F(15)
#elif DSA_VECTOR_BYTES == 32
#define DSA_EACH_LANE(F) F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7)
#else
#define DSA_EACH_LANE(F) F(0), F(1), F(2), F(3)
#endif

inline VecF load(const float* p) {
  return *reinterpret_cast<const VecFU*>(p);
}
inline VecI load(const uint32_t* p) {
  return *reinterpret_cast<const VecIU*>(p);
}
inline void store(float* p, VecF v) {
  *reinterpret_cast<VecFU*>(p) = v;
}
inline void store(uint32_t* p, VecI v) {
  *reinterpret_cast<VecIU*>(p) = v;
}
inline VecF splat(float x) {
  return x - VecF{};
}
inline VecI splat(uint32_t x) {
  return static_cast<int32_t>(x) - VecI{};
}
inline VecI splat(uint64_t x) {
  typedef int64_t VecL __attribute__((vector_size(DSA_VECTOR_BYTES)));
  return reinterpret_cast<VecI>(static_cast<int64_t>(x) - VecL{});
}
inline VecI bits(VecF v) {
  return reinterpret_cast<VecI>(v);
}
inline VecF floats(VecI v) {
  return reinterpret_cast<VecF>(v);
}

template <int N>
struct Int {
  static constexpr int value = N;
};

inline float bits_to_float(uint32_t u) {
  union {
    uint32_t u;
    float f;
  } x = {u};
  return x.f;
}
inline uint32_t float_to_bits(float f) {
  union {
    float f;
    uint32_t u;
  } x = {f};
  return x.u;
}

// a * b + c, fused where the level can.
inline VecF multiply_add(VecF a, VecF b, VecF c) {
#if DSA_VECTOR_BYTES == 64
  return _mm512_fmadd_ps(a, b, c);
#elif DSA_VECTOR_BYTES == 32
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// max(x, 0), NaN for NaN: x86's max gives its second operand where one is NaN.
inline VecF relu(VecF x) {
#if DSA_VECTOR_BYTES == 64
  return _mm512_max_ps(VecF{}, x);
#elif DSA_VECTOR_BYTES == 32
  return _mm256_max_ps(VecF{}, x);
#else
  return x < 0.0f ? VecF{} : x;
#endif
}

// The sum of the lanes of each operand, by the same tree for all four.
inline Vec4 lane_sums(VecF a, VecF b, VecF c, VecF d) {
#if DSA_VECTOR_BYTES == 64
  const VecF ab = _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b);
  const VecF cd = _mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d);
  const __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
  const VecF sums =
      _mm512_castpd_ps(_mm512_unpacklo_pd(x, y)) + _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
  const __m256 half = _mm512_castps512_ps256(sums) + _mm512_extractf32x8_ps(sums, 1);
  return _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
#elif DSA_VECTOR_BYTES == 32
  const VecF ab = _mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b);
  const VecF cd = _mm256_unpacklo_ps(c, d) + _mm256_unpackhi_ps(c, d);
  const __m256d x = _mm256_castps_pd(ab), y = _mm256_castps_pd(cd);
  const VecF sums =
      _mm256_castpd_ps(_mm256_unpacklo_pd(x, y)) + _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
  return _mm256_castps256_ps128(sums) + _mm256_extractf128_ps(sums, 1);
#else
  const auto sum = [](VecF v) { return (v[0] + v[2]) + (v[1] + v[3]); };
  return Vec4{sum(a), sum(b), sum(c), sum(d)};
#endif
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
