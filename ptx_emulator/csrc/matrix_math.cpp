#include "matrix_math.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "formats.h"
#ifdef __AVX__
#include <immintrin.h>
#endif

namespace ptx {
namespace {

#if defined(__AVX512F__)
constexpr int kVector = 16;
#elif defined(__AVX__)
constexpr int kVector = 8;
#else
constexpr int kVector = 4;
#endif
using Vector = float __attribute__((vector_size(4 * kVector)));

Vector load(const void* p) {
  Vector v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
void store(void* p, Vector v) {
  std::memcpy(p, &v, sizeof(v));
}
// Products of the narrow types are exact in fp32, so it does not matter whether these are fused.
Vector multiply_add(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_fmadd_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__FMA__)
  return reinterpret_cast<Vector>(_mm256_fmadd_ps(
      reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}
Vector canonical_lanes(Vector v) {
  using Bits = int32_t __attribute__((vector_size(4 * kVector)));
  const Bits nan = Bits{} + static_cast<int32_t>(kNan32);
  return v == v ? v : reinterpret_cast<Vector>(nan);
}
Vector repeat4(const float* p) {
#if defined(__AVX512F__)
  // The form without a mask draws a false warning of g++ 12.
  return reinterpret_cast<Vector>(_mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(p)));
#elif defined(__AVX__)
  return reinterpret_cast<Vector>(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p)));
#else
  return load(p);
#endif
}

// Sums of 16 rows by n columns: a row of 32 lanes for each [block of eight columns][row half]
// [column parity], as registers hold them.
inline int part_of(int column, int half) {  // column: 2 * block + parity
  return column / 2 * 4 + half * 2 + column % 2;
}

// Adds a * b to kColumns columns of `from`, or to zero if that is null, for a half of the rows,
// each in four lanes. The sums stay in registers, so the inner loops must be unrolled.
template <int kColumns>
void accumulate(int k_total, const float* a, const float* b, const uint32_t* const* from,
                uint32_t* const* to) {
  constexpr int kRows = std::min(4, kLanes / kVector);  // vectors of rows at a time
  for (int lane = 0; lane < kLanes; lane += kRows * kVector) {
    Vector sum[kColumns][kRows] = {};
    if (from) {
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; ++j)
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) sum[j][i] = load(from[part_of(j, 0)] + lane + i * kVector);
    }
    const float *row = a + lane, *column = b;
#pragma GCC unroll 4
    for (int k = 0; k < k_total; ++k, row += kLanes, column += 4) {
      Vector rows[kRows];
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) rows[i] = load(row + i * kVector);
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; ++j) {
        const Vector all = repeat4(column + j * k_total * 4);
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) sum[j][i] = multiply_add(rows[i], all, sum[j][i]);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j)
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i)
        store(to[part_of(j, 0)] + lane + i * kVector, canonical_lanes(sum[j][i]));
  }
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
                       const uint32_t* const* from, uint32_t* const* to) {
  const int least_a = op.a == Type::e4m3 ? -6 : -14, least_b = op.b == Type::e4m3 ? -6 : -14;
  for (int column = 0; column < op.n / 4; ++column)
    for (int h = 0; h < 2; ++h) {
      const int r = part_of(column, h);
      for (int l = 0; l < kLanes; ++l) {
        const float old = from ? std::bit_cast<float>(from[r][l]) : 0.0f;
        const float sum = coarse_sum(op.k, a + h * op.k * kLanes + l, kLanes,
                                     b + column * op.k * 4 + l % 4, least_a, least_b, old);
        to[r][l] = std::bit_cast<uint32_t>(canonical(sum));
      }
    }
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

// d = c + the sums, which are exact in fp32: at most 32 products of 16 bits.
void add_integers(const MatrixOp& op, const uint32_t* const* sum, uint32_t* const* d,
                  const uint32_t* const* c) {
  for (int r = 0; r < op.n / 2; ++r)
    for (int l = 0; l < kLanes; ++l) {
      const int64_t old = op.accumulate ? static_cast<int32_t>(c[r][l]) : 0;
      int64_t value = old + static_cast<int32_t>(std::bit_cast<float>(sum[r][l]));
      if (op.saturate) value = std::clamp<int64_t>(value, INT32_MIN, INT32_MAX);
      d[r][l] = static_cast<uint32_t>(value);
    }
}

void unpack_halves(const MatrixOp& op, const uint32_t* const* packed, uint32_t* const* out) {
  for (int r = 0; r < op.n / 4; ++r)
    for (int l = 0; l < kLanes; ++l) {
      out[2 * r][l] = std::bit_cast<uint32_t>(float_of_f16(packed[r][l] & 0xffff));
      out[2 * r + 1][l] = std::bit_cast<uint32_t>(float_of_f16(packed[r][l] >> 16));
    }
}

void pack_halves(const MatrixOp& op, const uint32_t* const* in, uint32_t* const* packed) {
  for (int r = 0; r < op.n / 4; ++r)
    for (int l = 0; l < kLanes; ++l)
      packed[r][l] = f16_of(std::bit_cast<float>(in[2 * r][l])) |
                     uint32_t{f16_of(std::bit_cast<float>(in[2 * r + 1][l]))} << 16;
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

// Adds a * b to registers of fp32, or to zero if there are none; `to` may be `from`.
static void accumulate(const MatrixOp& op, const OperandA& a, const OperandB& b,
                       const uint32_t* const* from, uint32_t* const* to) {
  if (op.coarse_fp8 && is_fp8(op.a)) return accumulate_coarse(op, a.values, b.values, from, to);
  // As many columns as the machine has registers for the sums.
  constexpr int kWide = kVector == 16 ? 8 : 2;
  const int columns = op.n / 4;
  for (int half = 0; half < 2; ++half)
    for (int column = 0, wide; column < columns; column += wide) {
      const int part = part_of(column, half);
      const float* rows = a.values + half * op.k * kLanes;
      const float* first = b.values + column * op.k * 4;
      const uint32_t* const* old = from ? from + part : nullptr;
      wide = column + kWide <= columns ? kWide : 2;
      wide == kWide ? accumulate<kWide>(op.k, rows, first, old, to + part)
                    : accumulate<2>(op.k, rows, first, old, to + part);
    }
}

void multiply(const MatrixOp& op, const OperandA& a, const OperandB& b, uint32_t* const* d,
              const uint32_t* const* c) {
  if (op.d == Type::f32 && (d == c || !op.accumulate))
    return accumulate(op, a, b, op.accumulate ? c : nullptr, d);
  // The registers of d may be those of c in another order.
  alignas(64) uint32_t values[kMaxN / 2][kLanes];
  uint32_t* sum[kMaxN / 2];
  for (int r = 0; r < op.n / 2; ++r) sum[r] = values[r];
  if (op.d == Type::s32) {
    accumulate(op, a, b, nullptr, sum);
    return add_integers(op, sum, d, c);
  }
  if (op.d == Type::f32) {
    for (int r = 0; r < op.n / 2; ++r) std::memcpy(sum[r], c[r], sizeof(values[r]));
    return accumulate(op, a, b, sum, d);
  }
  if (op.accumulate) unpack_halves(op, c, sum);
  accumulate(op, a, b, op.accumulate ? sum : nullptr, sum);
  pack_halves(op, sum, d);
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
