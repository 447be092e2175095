#include "matrix_math.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "formats.h"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace ptx {
namespace {

using Float16 = float __attribute__((vector_size(64)));  // 16 lanes

Float16 load16(const float* p) {
  Float16 v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
void store16(float* p, Float16 v) {
  std::memcpy(p, &v, sizeof(v));
}
// Products of the narrow types are exact in fp32, so it does not matter whether these are fused.
Float16 multiply_add(Float16 a, Float16 b, Float16 c) {
#ifdef __AVX512F__
  return reinterpret_cast<Float16>(_mm512_fmadd_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#else
  return a * b + c;
#endif
}
Float16 repeat4(const float* p) {
#ifdef __AVX512F__
  // The form without a mask draws a false warning of g++ 12.
  return reinterpret_cast<Float16>(_mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(p)));
#else
  return Float16{p[0], p[1], p[2], p[3], p[0], p[1], p[2], p[3],
                 p[0], p[1], p[2], p[3], p[0], p[1], p[2], p[3]};
#endif
}

// c[block][row half][column parity][lane] += a * b over `blocks` blocks of eight columns. The sums
// stay in registers, so the inner loops must be unrolled.
template <int kBlocks>
void accumulate(int k_total, const float* a, const float* b, float (*c)[2][2][kLanes]) {
  Float16 sum[kBlocks * 8];  // [block][column parity][row half][half of the lanes]
  const auto at = [&](int i) { return c[i / 8][i / 2 % 2][i / 4 % 2] + i % 2 * 16; };
#pragma GCC unroll 16
  for (int i = 0; i < kBlocks * 8; ++i) sum[i] = load16(at(i));
  for (int k = 0; k < k_total; ++k) {
    Float16 rows[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) rows[i] = load16(a + (i / 2 * k_total + k) * kLanes + i % 2 * 16);
#pragma GCC unroll 16
    for (int i = 0; i < kBlocks * 8; ++i)
      sum[i] = multiply_add(rows[i % 4], repeat4(b + (i / 4 * k_total + k) * 4), sum[i]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kBlocks * 8; ++i) store16(at(i), sum[i]);
}

int exponent_of(float x, int least) {
  const int e = static_cast<int>(std::bit_cast<uint32_t>(x) >> 23 & 255) - 127;
  return std::max(e, least);
}

// Hopper's wgmma of fp8, as MMA-Sim (arXiv 2511.10909) found by experiment: products and the
// accumulator are cut off 13 bits below the greatest exponent among them, and so is the sum's own
// significand (which DeepSeek-V3's report calls 14 bits).
float coarse_sum(int k_total, const float* a, int a_step, const float* b, int least_exponent_a,
                 int least_exponent_b, float c) {
  constexpr int kFraction = 13, kLeast = -126;
  int greatest = c == 0 ? kLeast : exponent_of(c, kLeast);
  float plain = c;
  for (int k = 0; k < k_total; ++k) {
    const float x = a[k * a_step], y = b[k * 4];
    plain += x * y;
    if (x != 0 && y != 0)
      greatest =
          std::max(greatest, exponent_of(x, least_exponent_a) + exponent_of(y, least_exponent_b));
  }
  if (!std::isfinite(plain)) return plain;
  const double unit = std::ldexp(1.0, kFraction - greatest);
  int64_t sum = static_cast<int64_t>(c * unit);
  for (int k = 0; k < k_total; ++k)
    sum += static_cast<int64_t>(double{a[k * a_step]} * b[k * 4] * unit);
  const float exact = static_cast<float>(sum);  // at most 21 bits
  const uint32_t cut = std::bit_cast<uint32_t>(exact) & ~((1u << (23 - kFraction)) - 1);
  return static_cast<float>(std::bit_cast<float>(cut) / unit);
}

void accumulate_coarse(const MatrixOp& op, const float* a, const float* b,
                       float (*c)[2][2][kLanes]) {
  const int least_a = op.a == Type::e4m3 ? -6 : -14, least_b = op.b == Type::e4m3 ? -6 : -14;
  for (int j = 0; j < op.n / 8; ++j)
    for (int h = 0; h < 2; ++h)
      for (int p = 0; p < 2; ++p)
        for (int l = 0; l < kLanes; ++l)
          c[j][h][p][l] =
              coarse_sum(op.k, a + h * op.k * kLanes + l, kLanes,
                         b + (j * 2 + p) * op.k * 4 + l % 4, least_a, least_b, c[j][h][p][l]);
}

const std::array<float, 256>& table_of(Type type) {
  static const auto make = [](const Format& f) {
    std::array<float, 256> t;
    for (int i = 0; i < 256; ++i) t[i] = static_cast<float>(decode(i, f));
    return t;
  };
  static const std::array<float, 256> e4m3 = make(kE4M3), e5m2 = make(kE5M2);
  return type == Type::e4m3 ? e4m3 : e5m2;
}

template <class T, class F>
void decode_each(const uint8_t* bytes, int count, float* out, F f) {
  for (int i = 0; i < count; ++i) {
    T code;
    std::memcpy(&code, bytes + i * sizeof(T), sizeof(T));
    out[i] = f(code);
  }
}

bool is_fp8(Type t) {
  return t == Type::e4m3 || t == Type::e5m2;
}

// Register r of the accumulator's 32-bit registers: [block][row half][column parity].
float* part(float (*c)[2][2][kLanes], int r) {
  return c[r / 4][r / 2 % 2][r % 2];
}

void load_accumulator(const MatrixOp& op, const uint32_t* const* registers,
                      float (*c)[2][2][kLanes]) {
  if (!op.accumulate || op.d == Type::s32) {
    std::memset(c, 0, op.n / 8 * sizeof(*c));
  } else if (op.d == Type::f32) {
    for (int r = 0; r < op.n / 2; ++r) std::memcpy(part(c, r), registers[r], 4 * kLanes);
  } else {
    for (int r = 0; r < op.n / 4; ++r)
      for (int l = 0; l < kLanes; ++l) {
        part(c, 2 * r)[l] = float_of_f16(registers[r][l] & 0xffff);
        part(c, 2 * r + 1)[l] = float_of_f16(registers[r][l] >> 16);
      }
  }
}

// The sums of products are exact in fp32: at most 32 of 16 bits.
void store_integers(const MatrixOp& op, float (*sum)[2][2][kLanes], uint32_t* const* d,
                    const uint32_t* const* c) {
  for (int r = 0; r < op.n / 2; ++r)
    for (int l = 0; l < kLanes; ++l) {
      const int64_t old = op.accumulate ? static_cast<int32_t>(c[r][l]) : 0;
      int64_t value = old + static_cast<int32_t>(part(sum, r)[l]);
      if (op.saturate) value = std::clamp<int64_t>(value, INT32_MIN, INT32_MAX);
      d[r][l] = static_cast<uint32_t>(value);
    }
}

void store_floats(const MatrixOp& op, float (*c)[2][2][kLanes], uint32_t* const* d) {
  if (op.d == Type::f32) {
    for (int r = 0; r < op.n / 2; ++r) {
      const float* from = part(c, r);
      float out[kLanes];
      for (int l = 0; l < kLanes; ++l) out[l] = canonical(from[l]);
      std::memcpy(d[r], out, sizeof(out));
    }
  } else {
    for (int r = 0; r < op.n / 4; ++r)
      for (int l = 0; l < kLanes; ++l)
        d[r][l] = f16_of(part(c, 2 * r)[l]) | uint32_t{f16_of(part(c, 2 * r + 1)[l])} << 16;
  }
}

}  // namespace

void decode_elements(Type type, const uint8_t* bytes, int count, float* out) {
  switch (type) {
    case Type::bf16: return decode_each<uint16_t>(bytes, count, out, float_of_bf16);
    case Type::f16: return decode_each<uint16_t>(bytes, count, out, float_of_f16);
    case Type::tf32:  // the low 13 bits are not looked at
      return decode_each<uint32_t>(
          bytes, count, out, [](uint32_t code) { return std::bit_cast<float>(code & 0xffffe000); });
    case Type::s8:
      return decode_each<int8_t>(bytes, count, out, [](int8_t x) -> float { return x; });
    case Type::u8:
      return decode_each<uint8_t>(bytes, count, out, [](uint8_t x) -> float { return x; });
    default: {
      const float* table = table_of(type).data();
      return decode_each<uint8_t>(bytes, count, out, [=](uint8_t x) { return table[x]; });
    }
  }
}

void load_fragment_a(const MatrixOp& op, const uint32_t* const* registers, OperandA& out) {
  const int element = bytes_of(op.a), each = 4 / element;
  const int count = op.k * element / 8;
  for (int g = 0; g < count; ++g) {
    float values[4 * kLanes];
    decode_elements(op.a, reinterpret_cast<const uint8_t*>(registers[g]), each * kLanes, values);
    for (int l = 0; l < kLanes; ++l)
      for (int i = 0; i < each; ++i) {
        const float v = values[l * each + i];
        out.set(op.k, l / 4 + 8 * (g % 2), (l % 4 * 4 + g / 2 * 16) / element + i,
                op.negate_a ? -v : v);
      }
  }
}

void load_fragment_b(const MatrixOp& op, const uint32_t* const* registers, OperandB& out) {
  const int element = bytes_of(op.b), each = 4 / element;
  const int count = op.k * element / 16;
  for (int g = 0; g < count; ++g) {
    float values[4 * kLanes];
    decode_elements(op.b, reinterpret_cast<const uint8_t*>(registers[g]), each * kLanes, values);
    for (int l = 0; l < kLanes; ++l)
      for (int i = 0; i < each; ++i) {
        const float v = values[l * each + i];
        out.set(op.k, l / 4, (l % 4 * 4 + g * 16) / element + i, op.negate_b ? -v : v);
      }
  }
}

void multiply(const MatrixOp& op, const OperandA& a, const OperandB& b, uint32_t* const* d,
              const uint32_t* const* c) {
  alignas(64) float sum[kMaxN / 8][2][2][kLanes];
  load_accumulator(op, c, sum);
  if (op.coarse_fp8 && is_fp8(op.a)) {
    accumulate_coarse(op, a.values, b.values, sum);
  } else {
    const int blocks = op.n / 8;
    int j = 0;
    for (; j + 2 <= blocks; j += 2) accumulate<2>(op.k, a.values, b.values + j * 8 * op.k, sum + j);
    if (j < blocks) accumulate<1>(op.k, a.values, b.values + j * 8 * op.k, sum + j);
  }
  if (op.d == Type::s32)
    store_integers(op, sum, d, c);
  else
    store_floats(op, sum, d);
}

void multiply_f64(double* const* d, const double* a, const double* b, const double* const* c) {
  double out[2][kLanes];
  for (int i = 0; i < 2; ++i)
    for (int l = 0; l < kLanes; ++l) {
      double sum = c[i][l];
      for (int k = 0; k < 4; ++k) sum = std::fma(a[l / 4 * 4 + k], b[(l % 4 * 2 + i) * 4 + k], sum);
      out[i][l] = sum;
    }
  for (int i = 0; i < 2; ++i) std::memcpy(d[i], out[i], sizeof(out[i]));
}

}  // namespace ptx
