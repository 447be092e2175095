// Microkernels of the CPU backend: one table per ISA level, picked once at run time.
//
// isa/{vec,dots,softmax,codecs,select,peaks}.h hold the bodies. Each level is one translation unit
// that compiles them with its own flags (isa/<level>.cpp); nothing else is compiled with ISA flags,
// so the library loads on any machine. Levels may differ in the last bits of dot products and exp;
// conversions, selection and quantisation are bitwise the same.
#pragma once

#include <cstdint>

namespace dsa::cpu {

// Widest vector of any level, in floats: what buffers that kernels write whole vectors into are
// padded to.
constexpr int kMaxLanes = 16;

constexpr int kMaxScoreKeys = 96;  // of a call of Arithmetic::score

// How products are formed. Operands are matrices of 32-bit words: a float each (fp32), or two
// bfloat16 of neighbouring dims (bf16), whose product pairs are summed in fp32.
struct Arithmetic {
  int dims_per_word;

  // out[i, lane] = keys[i] . q[lane]: [num_keys, lanes], lanes a multiple of the level's. keys:
  // where the words of each begin; q: [words / 2, lanes, 2].
  void (*dots)(const uint32_t* const* keys, int num_keys, const uint32_t* q, int lanes, int words,
               float* out);

  // out[h, :] (+)= sum over x < words of p[x, h] . values[x], for `dims` of the values, a multiple
  // of 64; p: [words, lanes], out: [heads, dims].
  void (*combine)(const uint32_t* p, int heads, int lanes, const uint32_t* const* values, int words,
                  float* out, int dims, bool accumulate);

  // out[i] = scales[i] * sum over h < heads of weights[h] * relu(q[:, h] . keys[i, :]), with
  // relu(NaN) = NaN, for up to kMaxScoreKeys keys. q: a panel [words, n] for each Isa::panel heads,
  // the last one's heads padded to 1, 2 or 4 whole vectors, as are weights.
  void (*score)(const uint32_t* keys, int num_keys, const uint32_t* q, int heads, int words,
                const float* weights, const float* scales, float* out);

  // rows x n elements, rows `stride` apart -> rows of n / dims_per_word words, packed.
  void (*load_fp8)(const uint8_t* in, int64_t stride, int rows, int n, uint32_t* out);
  void (*load_bf16)(const uint16_t* in, int64_t stride, int rows, int n, uint32_t* out);
  // As Isa::dequantize_bf16, to words.
  void (*dequantize)(const uint8_t* in, const float* scales, int groups, int n, uint32_t* out);

  // The first `dims` dims of keys as values for combine, [ceil(num_keys / dims_per_word), dims];
  // null where the keys already are that.
  void (*pair_values)(const uint32_t* const* keys, int num_keys, int dims, uint32_t* out);

  // Softmax weights of one key tile as combine takes them: scores [num_keys, lanes] are multiplied
  // by sm_scale; max and sum [lanes] go on; alpha is what earlier results are to be multiplied by;
  // p: [ceil(num_keys / dims_per_word), lanes].
  void (*softmax)(float* scores, int num_keys, int lanes, float sm_scale, float* max, float* sum,
                  float* alpha, uint32_t* p);
};

// Passes over n floats for topk_indices.cpp. Comparisons are ordered: -0 equals +0, and NaN is
// below every threshold.
constexpr int kPivots = 3;
constexpr int kCollectSlack = 68;

struct SelectPasses {
  // How many are >= pivot; and that for kPivots pivots in one pass.
  int64_t (*count)(const float* x, int64_t n, float pivot);
  void (*count_each)(const float* x, int64_t n, const float* pivots, int64_t* counts);

  // Values and indices of those >= threshold, in order. Stops once there are more than `capacity`;
  // both outputs have room for capacity + kCollectSlack. Returns how many there are.
  int64_t (*collect)(const float* x, int64_t n, float threshold, int64_t capacity, float* values,
                     int32_t* indices);

  // ids (null: positions, and always with a NaN threshold) of those > threshold and of the first
  // `ties` equal to it, in order; with a NaN threshold, of all numbers and of the first `ties`
  // NaNs. Stops after `limit`; out has room for limit + kMaxLanes. Returns how many were written.
  int64_t (*emit)(const float* x, const int32_t* ids, int64_t n, float threshold, int64_t ties,
                  int64_t limit, int32_t* out);
};

// What rows go through before they are quantised. Every step's result is rounded to their dtype.
struct RowSteps {
  const float* norm_weight = nullptr;  // [n], or no LayerNorm; NaN only as 0x7fc00000
  const float* norm_bias = nullptr;
  float norm_eps = 0.0f;
  int rope_dim = 0;  // 0: no RoPE
  bool interleaved = false;
  bool hadamard = false;
  bool ue8m0 = true;  // the scale is a power of two

  bool any() const { return norm_weight != nullptr || rope_dim != 0 || hadamard; }
};

// Rows of n = 64 or 128 elements; codes and scales are contiguous.
template <class T>
struct QuantizeRows {
  const T* in;
  int64_t stride;  // of in
  int count, n;
  // With RoPE, each row's rope_dim / 2 cosines, then sines; null: all codes and the scale are NaN.
  const float* const* cos_sin;
  uint8_t* codes;
  float* scales;
};

struct Isa {
  const char* name;
  int lanes;  // floats in a vector
  int panel;  // heads that score takes side by side

  Arithmetic fp32;
  const Arithmetic* bf16;  // null without bf16 dot products

  // Conversions to and from float of n elements.
  void (*from_bfloat16)(const uint16_t* in, float* out, int64_t n);
  void (*from_float8)(const uint8_t* in, float* out, int64_t n);
  void (*to_bfloat16)(const float* in, uint16_t* out, int64_t n);
  // Every NaN becomes 0x7fc0; neither side need be aligned.
  void (*copy_bfloat16)(const void* in, void* out, int64_t n);

  void (*quantize_bf16)(const RowSteps& steps, const QuantizeRows<uint16_t>& rows);
  void (*quantize_fp32)(const RowSteps& steps, const QuantizeRows<float>& rows);
  // bf16 round-to-nearest of code * scale, for groups of n = 64 or 128 codes with a scale each;
  // every NaN is 0x7fc0.
  void (*dequantize_bf16)(const uint8_t* in, const float* scales, int groups, int n, uint16_t* out);
  // memcpy whose whole cache lines go around the caches; finish_streams() (stream.h) must follow.
  void (*stream)(const void* from, void* to, int64_t bytes);

  SelectPasses select;

  // Of n floats, a multiple of the lanes: exp(x) for x <= 0, to 2 ulp; y *= alpha; and
  // y = y * alpha + x * beta.
  void (*exp_nonpositive)(float* x, int n);
  void (*scale)(float* y, float alpha, int n);
  void (*scale_add)(float* y, float alpha, const float* x, float beta, int n);

  int padded(int heads) const { return (heads + lanes - 1) / lanes * lanes; }
};

extern const Isa kScalar;
#if defined(__x86_64__)
extern const Isa kAvx2, kAvx512, kAvx512Bf16;
#endif

// The best level that this machine supports, or the one that DSA_CPU_ISA names. Throws
// std::runtime_error if that one is unknown or unsupported.
const Isa& current_isa();

}  // namespace dsa::cpu
