// Microkernels of the CPU backend: one table per ISA level, picked once at run time.
//
// isa/kernels.h holds the portable bodies. Each level is one translation unit that compiles them
// with its own flags (isa/<level>.cpp); nothing else is compiled with ISA flags, so the library
// loads on any machine. Levels may differ in the last bits of float results (avx2 fuses
// multiply-add); conversions, selection and quantisation are bitwise the same.
#pragma once

#include <cstdint>

namespace dsa::cpu {

// Row-major float panels that `gemm` reads have their lane dimension padded to this many floats.
constexpr int kLanePad = 8;

struct Isa {
  const char* name;

  // c[m, n] (+)= sum over k of a[m, k] * b[k, n], in an order that depends on k alone. n is a
  // multiple of kLanePad; a has strides (a_row, a_col), b and c have unit stride along n.
  void (*gemm)(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
               float* c, int64_t c_row, int m, int n, int k, bool accumulate);

  // sum over h of weights[h] * relu(dots[h]), with relu(NaN) = NaN. heads is a multiple of 8.
  float (*relu_head_sum)(const float* dots, const float* weights, int heads);

  // x[i][j] = exp(x[i][j] - shift[j]) for i < rows, j < n; n is a multiple of kLanePad, rows are n
  // apart. To 2 ulp for x <= shift, 0 below shift - 87, NaN for NaN.
  void (*exp_shifted)(float* x, const float* shift, int rows, int n);

  // Conversions to float of n elements.
  void (*from_bfloat16)(const uint16_t* in, float* out, int64_t n);
  void (*from_float8)(const uint8_t* in, float* out, int64_t n);
  // Dequantised key: bf16 round-to-nearest of code * scale, as float.
  void (*dequantize)(const uint8_t* in, float scale, float* out, int64_t n);
  void (*to_bfloat16)(const float* in, uint16_t* out, int64_t n);

  // Total-order keys (topk_indices.cpp): how many are >= threshold; and the indices, ascending, of
  // all keys > threshold and of the first `ties` keys equal to it. Returns how many were written.
  int64_t (*count_at_least)(const float* scores, int64_t n, int32_t threshold);
  int64_t (*emit_selected)(const float* scores, int64_t n, int32_t threshold, int64_t ties,
                           int32_t* out);
};

extern const Isa kScalar;
#if defined(__x86_64__)
extern const Isa kAvx2;
#endif

// The best level that this machine supports, or the one that DSA_CPU_ISA names. Throws
// std::runtime_error if that one is unknown or unsupported.
const Isa& current_isa();

}  // namespace dsa::cpu
