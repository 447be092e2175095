// Bodies of the microkernels, compiled once per ISA level. Include only from isa/<level>.cpp.
//
// Written on the compilers' generic vectors. Standard headers stay out (but for <cstdint> and the
// level's intrinsics): an inline function compiled here with ISA flags could be the copy that the
// linker keeps for the whole library.
#include <cstdint>

#include "isa.h"

#if defined(__FMA__)
#include <immintrin.h>
#endif

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

constexpr int kLanes = DSA_VECTOR_BYTES / 4;
static_assert(kLanePad % kLanes == 0);

typedef float VecF __attribute__((vector_size(DSA_VECTOR_BYTES)));
typedef int32_t VecI __attribute__((vector_size(DSA_VECTOR_BYTES)));
// The same, loadable from any float address and allowed to alias.
typedef float VecFU __attribute__((vector_size(DSA_VECTOR_BYTES), aligned(4), may_alias));

inline VecF load(const float* p) {
  return *reinterpret_cast<const VecFU*>(p);
}
inline void store(float* p, VecF v) {
  *reinterpret_cast<VecFU*>(p) = v;
}
inline VecF splat(float x) {
  return x - VecF{};
}
inline VecI bits(VecF v) {
  return reinterpret_cast<VecI>(v);
}
inline VecF floats(VecI v) {
  return reinterpret_cast<VecF>(v);
}

inline VecF multiply_add(VecF a, VecF b, VecF c) {
#if defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// M x (V vectors) of c: the sum over k is formed in registers, then stored or added.
template <int M, int V>
inline void gemm_block(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                       float* c, int64_t c_row, int k, bool accumulate) {
  VecF acc[M][V] = {};
  for (int x = 0; x < k; ++x) {
    VecF row[V];
    for (int v = 0; v < V; ++v) row[v] = load(b + x * b_row + v * kLanes);
    for (int i = 0; i < M; ++i) {
      const VecF ai = splat(a[i * a_row + x * a_col]);
      for (int v = 0; v < V; ++v) acc[i][v] = multiply_add(ai, row[v], acc[i][v]);
    }
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) {
      float* to = c + i * c_row + v * kLanes;
      store(to, accumulate ? load(to) + acc[i][v] : acc[i][v]);
    }
}

template <int V>
void gemm_columns(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                  float* c, int64_t c_row, int m, int k, bool accumulate) {
  constexpr int kM = 6;
  for (; m >= kM; m -= kM, a += kM * a_row, c += kM * c_row) {
    gemm_block<kM, V>(a, a_row, a_col, b, b_row, c, c_row, k, accumulate);
  }
  switch (m) {
    case 5: gemm_block<5, V>(a, a_row, a_col, b, b_row, c, c_row, k, accumulate); break;
    case 4: gemm_block<4, V>(a, a_row, a_col, b, b_row, c, c_row, k, accumulate); break;
    case 3: gemm_block<3, V>(a, a_row, a_col, b, b_row, c, c_row, k, accumulate); break;
    case 2: gemm_block<2, V>(a, a_row, a_col, b, b_row, c, c_row, k, accumulate); break;
    case 1: gemm_block<1, V>(a, a_row, a_col, b, b_row, c, c_row, k, accumulate); break;
    default: break;
  }
}

void gemm(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c,
          int64_t c_row, int m, int n, int k, bool accumulate) {
  for (int j = 0; j < n; j += 2 * kLanes) {
    const auto columns = n - j >= 2 * kLanes ? gemm_columns<2> : gemm_columns<1>;
    // Partial sums of 64 keep the rounding error of long dot products near that of short ones.
    for (int x = 0; x < k; x += 64) {
      columns(a + x * a_col, a_row, a_col, b + x * b_row + j, b_row, c + j, c_row, m,
              k - x < 64 ? k - x : 64, accumulate || x > 0);
    }
  }
}

float relu_head_sum(const float* dots, const float* weights, int heads) {
  VecF sum{};
  for (int h = 0; h < heads; h += kLanes) {
    const VecF d = load(dots + h);
    sum = multiply_add(d < 0.0f ? VecF{} : d, load(weights + h), sum);  // NaN < 0 is false
  }
  float total = 0.0f;
  for (int i = 0; i < kLanes; ++i) total += sum[i];
  return total;
}

// exp(x) for x <= 0 to 2 ulp, 0 below -87, NaN for NaN: 2^n * p(r), r = x - n ln 2.
inline VecF exp_nonpositive(VecF x) {
  const VecF clamped = x < -87.0f ? splat(-87.0f) : x;
  const VecF shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const VecF n = (multiply_add(clamped, splat(1.44269504f), shifter)) - shifter;
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

void exp_shifted(float* x, const float* shift, int rows, int n) {
  for (int i = 0; i < rows; ++i, x += n)
    for (int j = 0; j < n; j += kLanes) {
      store(x + j, exp_nonpositive(load(x + j) - load(shift + j)));
    }
}

void from_bfloat16(const uint16_t* in, float* out, int64_t n) {
  uint32_t* o = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < n; ++i) o[i] = static_cast<uint32_t>(in[i]) << 16;
}

// e4m3fn as float: the 7 magnitude bits placed at float's exponent are the value times 2^-120,
// subnormals included; 0x7f is NaN.
inline uint32_t float8_bits(uint32_t code) {
  union {
    uint32_t u;
    float f;
  } x;
  x.u = (code & 0x7f) << 20;
  x.f *= 0x1p120f;
  const uint32_t magnitude = (code & 0x7f) == 0x7f ? 0x7fc00000u : x.u;
  return magnitude | (code & 0x80) << 24;
}

void from_float8(const uint8_t* in, float* out, int64_t n) {
  uint32_t* o = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < n; ++i) o[i] = float8_bits(in[i]);
}

inline uint32_t round_to_bfloat16(uint32_t u) {
  const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return (u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

void dequantize(const uint8_t* in, float scale, float* out, int64_t n) {
  uint32_t* o = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < n; ++i) {
    union {
      uint32_t u;
      float f;
    } x;
    x.u = float8_bits(in[i]);
    x.f *= scale;
    o[i] = round_to_bfloat16(x.u) << 16;
  }
}

void to_bfloat16(const float* in, uint16_t* out, int64_t n) {
  const uint32_t* u = reinterpret_cast<const uint32_t*>(in);
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint16_t>(round_to_bfloat16(u[i]));
}

inline int32_t total_order_key(float score) {
  union {
    float f;
    int32_t i;
  } x;
  x.f = score + 0.0f;  // -0 becomes +0
  const int32_t key = x.i ^ ((x.i >> 31) & 0x7fffffff);
  return score != score ? INT32_MIN : key;
}

int64_t count_at_least(const float* scores, int64_t n, int32_t threshold) {
  int64_t count = 0;
  for (int64_t begin = 0; begin < n; begin += 1 << 20) {
    const int64_t end = n - begin < (1 << 20) ? n : begin + (1 << 20);
    int32_t part = 0;  // 32 bits so that it vectorises at full width
    for (int64_t i = begin; i < end; ++i) part += total_order_key(scores[i]) >= threshold;
    count += part;
  }
  return count;
}

int64_t emit_selected(const float* scores, int64_t n, int32_t threshold, int64_t ties,
                      int32_t* out) {
  int64_t written = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t key = total_order_key(scores[i]);
    const bool take = key > threshold || (key == threshold && ties > 0);
    ties -= key == threshold && take;
    if (take) out[written++] = static_cast<int32_t>(i);
  }
  return written;
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE

#define DSA_ISA_TABLE(NAME)                                                \
  Isa {                                                                    \
    NAME, DSA_ISA_NAMESPACE::gemm, DSA_ISA_NAMESPACE::relu_head_sum,       \
        DSA_ISA_NAMESPACE::exp_shifted, DSA_ISA_NAMESPACE::from_bfloat16,  \
        DSA_ISA_NAMESPACE::from_float8, DSA_ISA_NAMESPACE::dequantize,     \
        DSA_ISA_NAMESPACE::to_bfloat16, DSA_ISA_NAMESPACE::count_at_least, \
        DSA_ISA_NAMESPACE::emit_selected                                   \
  }
