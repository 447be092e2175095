// The online softmax of sparse MLA: keys in rows, heads in lanes, so nothing is shuffled.
#pragma once

#include "dots.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

// exp(x) for x <= 0 to 2 ulp, 0 below -87, NaN for NaN: 2^n * p(r), r = x - n ln 2.
inline VecF exp_nonpositive(VecF x) {
  const VecF clamped = x < -87.0f ? splat(-87.0f) : x;
  const VecF shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const VecF n = multiply_add(clamped, splat(1.44269504f), shifter) - shifter;
  VecF r = multiply_add(n, splat(-0.693359375f), clamped);
  r = multiply_add(n, splat(2.12194440e-4f), r);
  VecF p = splat(1.9875691500e-4f);
  p = multiply_add(p, r, splat(1.3981999507e-3f));
  p = multiply_add(p, r, splat(8.3334519073e-3f));
  p = multiply_add(p, r, splat(4.1665795894e-2f));
  p = multiply_add(p, r, splat(1.6666665459e-1f));
  p = multiply_add(p, r, splat(5.0000001201e-1f));
  p = multiply_add(p * r, r, r) + 1.0f;
  const VecI exponent = (__builtin_convertvector(n, VecI) + 127) << 23;
  const VecF y = p * floats(exponent);
  return x < -87.0f ? VecF{} : (x != x ? x : y);
}

void exp_nonpositive_all(float* x, int n) {
  for (int i = 0; i < n; i += kLanes) store(x + i, exp_nonpositive(load(x + i)));
}

void scale(float* y, float alpha, int n) {
  for (int i = 0; i < n; i += kLanes) store(y + i, load(y + i) * alpha);
}

void scale_add(float* y, float alpha, const float* x, float beta, int n) {
  for (int i = 0; i < n; i += kLanes) store(y + i, load(y + i) * alpha + load(x + i) * beta);
}

#if defined(__AVX512BF16__)
// Two rows of floats as one row of words: the first in the low halves.
inline VecI pair_words(VecF first, VecF second) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
  const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
  return (VecI)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// See Arithmetic::pair_values. An odd last key is paired with zeros; dims: a multiple of 32.
void pair_values_bf16(const uint32_t* const* keys, int num_keys, int dims, uint32_t* out) {
  // Word i of the first key, then of the second, as vpermt2w numbers them.
#define DSA_PAIR(l) (l) | (32 + (l)) << 16
#define DSA_NEXT_PAIR(l) (16 + (l)) | (48 + (l)) << 16
  const __m512i pairs = (__m512i)VecI{DSA_EACH_LANE(DSA_PAIR)};
  const __m512i next_pairs = (__m512i)VecI{DSA_EACH_LANE(DSA_NEXT_PAIR)};
#undef DSA_PAIR
#undef DSA_NEXT_PAIR
  for (int key = 0; key < num_keys; key += 2) {
    const bool paired = key + 1 < num_keys;
    const uint32_t *one = keys[key], *other = keys[key + paired];
    for (int d = 0; d < dims; d += 2 * kLanes, out += 2 * kLanes) {
      const __m512i first = _mm512_loadu_si512(one + d / 2);
      const __m512i second = paired ? _mm512_loadu_si512(other + d / 2) : _mm512_setzero_si512();
      _mm512_storeu_si512(out, _mm512_permutex2var_epi16(first, pairs, second));
      _mm512_storeu_si512(out + kLanes, _mm512_permutex2var_epi16(first, next_pairs, second));
    }
  }
}
#endif

// See Arithmetic::softmax.
template <class Unit>
void softmax(float* scores, int num_keys, int lanes, float sm_scale, float* max, float* sum,
             float* alpha, uint32_t* p) {
  for (int j = 0; j < lanes; j += kLanes) {
    VecF m = load(max + j);
    for (int i = 0; i < num_keys; ++i) {
      const VecF s = load(scores + i * lanes + j) * sm_scale;
      store(scores + i * lanes + j, s);
      m = (s > m) | (s != s) ? s : m;  // NaN sticks
    }
    const VecF shift = m == -__builtin_inff() ? VecF{} : m;
    const VecF a = exp_nonpositive(load(max + j) - shift);
    store(max + j, m);
    store(alpha + j, a);
    VecF total{};
    const auto weight = [&](int i) {
      const VecF e = exp_nonpositive(load(scores + i * lanes + j) - shift);
      total += e;
      return e;
    };
    if constexpr (Unit::kDimsPerWord == 1) {
      for (int i = 0; i < num_keys; ++i) store(p + i * lanes + j, bits(weight(i)));
    } else {
#if defined(__AVX512BF16__)
      for (int i = 0; i < num_keys; i += 2) {
        const VecF first = weight(i);
        const VecF second = i + 1 < num_keys ? weight(i + 1) : VecF{};
        store(p + i / 2 * lanes + j, pair_words(first, second));
      }
#endif
    }
    store(sum + j, load(sum + j) * a + total);
  }
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
