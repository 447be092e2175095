// A row of the indexer's q or k on its way to the quantiser, in the registers of eight lanes:
// LayerNorm, RoPE, Hadamard. Repeats dsa_kernels/reference/indexer_input.py bitwise, but for the
// order of LayerNorm's sums: each operation is rounded, so none may be contracted, and each step's
// result is rounded to the input's dtype.
#pragma once

#include "../indexer_input.h"
#include "quantize.cuh"

namespace dsa {

constexpr int kLanesPerRow = cuda::kLanesPerIndexerRow, kRowsPerWarp = kWarp / kLanesPerRow;

__device__ __forceinline__ int lane_in_row() {
  return threadIdx.x % kLanesPerRow;
}

// Element e of vector v of lane l is dim 64 v + 8 l + e.
template <int head_dim>
struct IndexerRow {
  static constexpr int kVectors = head_dim / 64;
  float x[kVectors][8];

  static __device__ __forceinline__ int dim_of(int vector) {
    return 64 * vector + 8 * lane_in_row();
  }

  template <class T>
  __device__ __forceinline__ void round_vector(int v) {
    if constexpr (sizeof(T) == 2) to_float<T>(from_float<T>(x[v]), x[v]);
  }

  template <class T>
  __device__ __forceinline__ void round() {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) round_vector<T>(v);
  }

  __device__ __forceinline__ void fill(float value) {
#pragma unroll
    for (auto& vector : x)
#pragma unroll
      for (float& element : vector) element = value;
  }

  template <class F>
  __device__ __forceinline__ float sum(F term) const {
    float total = 0.0f;
#pragma unroll
    for (auto& vector : x)
#pragma unroll
      for (float element : vector) total += term(element);
#pragma unroll
    for (int stride = kLanesPerRow / 2; stride > 0; stride /= 2)
      total += __shfl_xor_sync(0xffffffff, total, stride);
    return total;
  }

  // With biased variance.
  __device__ __forceinline__ void layer_norm(const IndexerRow& weight, const IndexerRow& bias,
                                             float eps) {
    const float mean = sum([](float element) { return element; }) / head_dim;
#pragma unroll
    for (auto& vector : x)
#pragma unroll
      for (float& element : vector) element = __fsub_rn(element, mean);
    const float variance =
        sum([](float element) { return __fmul_rn(element, element); }) / head_dim;
    const float inverse = __frcp_rn(__fsqrt_rn(variance + eps));
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const float scaled = __fmul_rn(__fmul_rn(x[v][e], inverse), weight.x[v][e]);
        x[v][e] = __fadd_rn(scaled, bias.x[v][e]);
      }
  }

  // Orthonormal Walsh-Hadamard transform: butterflies of stride 1, 2, 4, ...
  __device__ __forceinline__ void hadamard() {
#pragma unroll
    for (auto& vector : x)
#pragma unroll
      for (int stride = 1; stride < 8; stride *= 2)
#pragma unroll
        for (int e = 0; e < 8; ++e)
          if ((e & stride) == 0) butterfly(vector[e], vector[e + stride]);
#pragma unroll
    for (int stride = 1; stride < kLanesPerRow; stride *= 2) {
      const float sign = lane_in_row() & stride ? -1.0f : 1.0f;
#pragma unroll
      for (auto& vector : x)
#pragma unroll
        for (float& element : vector) {
          const float partner = __shfl_xor_sync(0xffffffff, element, stride);
          element = __fmaf_rn(element, sign, partner);  // the product is exact
        }
    }
    constexpr float kScale = head_dim == 64 ? 0.125f : 0.08838834764831845f;  // head_dim^-1/2
    if constexpr (kVectors == 2)
#pragma unroll
      for (int e = 0; e < 8; ++e) butterfly(x[0][e], x[1][e]);
#pragma unroll
    for (auto& vector : x)
#pragma unroll
      for (float& element : vector) element = __fmul_rn(element, kScale);
  }

  // The scale of the row; its codes go to `codes`, [head_dim], where `valid`.
  template <int access>
  __device__ __forceinline__ float quantize(bool ue8m0, bool valid, void* codes) const {
    float amax = kAmaxFloor;
#pragma unroll
    for (auto& vector : x) amax = max_magnitude(vector, amax);
    const Scale scale(max_of_lanes<kLanesPerRow>(amax), ue8m0);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const Words<8> eight = scale.codes(x[v]);
      if (valid) store<access>(static_cast<uint8_t*>(codes) + dim_of(v), eight);
    }
    return scale.scale;
  }

 private:
  static __device__ __forceinline__ void butterfly(float& a, float& b) {
    const float sum = __fadd_rn(a, b);
    b = __fsub_rn(a, b);
    a = sum;
  }
};

// RoPE of a row's first rope_dim dims. A pair is dims (i, i + rope_dim / 2), or (2 i, 2 i + 1).
template <int head_dim>
struct Rope {
  using Row = IndexerRow<head_dim>;

  const float* table = nullptr;    // rope_dim / 2 cosines, then as many sines; null if invalid
  float cos[8] = {}, sin[8] = {};  // of this lane's part of vector 0; sin has its term's sign

  // Where a token that exists has its row of the table.
  __device__ __forceinline__ void find(const cuda::IndexerInput& p, int64_t token, bool exists) {
    table = nullptr;
    if (p.rope_dim == 0 || !exists) return;
    const int64_t position = integer_at(p.positions, p.wide_positions, token);
    if (position >= 0 && position < p.max_position) table = p.cos_sin + position * p.cos_sin_stride;
  }

  template <int access>
  __device__ __forceinline__ void load(const cuda::IndexerInput& p) {
    if (table != nullptr && p.rope_dim == cuda::kRopeInRegisters)
      load_registers<access>(p.interleaved);
  }

  // No position in the table: the row is NaN.
  __device__ __forceinline__ bool invalid(const cuda::IndexerInput& p) const {
    return p.rope_dim != 0 && table == nullptr;
  }

  // `shared` holds the rows of the warp, one after the other.
  template <class T>
  __device__ __forceinline__ void apply(const cuda::IndexerInput& p, Row& row,
                                        float* shared) const {
    if (p.rope_dim == 0) return;
    if (p.rope_dim == cuda::kRopeInRegisters) {
      rotate_registers(p.interleaved, row.x[0]);
      row.template round_vector<T>(0);
    } else {
      rotate_shared(p, row, shared + lane_index() / kLanesPerRow * head_dim);
      row.template round<T>();
    }
    if (invalid(p)) row.fill(__int_as_float(0x7fc00000));
  }

 private:
  static constexpr int kHalf = cuda::kRopeInRegisters / 2;

  template <int access>
  __device__ __forceinline__ void load_registers(bool interleaved) {
    const int lane = lane_in_row();
    if (interleaved) {
      const auto c = dsa::load<16, access>(table + 4 * lane);
      const auto s = dsa::load<16, access>(table + kHalf + 4 * lane);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        cos[e] = __uint_as_float(c.at[e / 2]);
        sin[e] = e % 2 == 0 ? -__uint_as_float(s.at[e / 2]) : __uint_as_float(s.at[e / 2]);
      }
    } else {
      const auto c = dsa::load<32, access>(table + 8 * (lane % 4));
      const auto s = dsa::load<32, access>(table + kHalf + 8 * (lane % 4));
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        cos[e] = __uint_as_float(c.at[e]);
        sin[e] =
            (lane < 4) == (DSA_FAULT != 514) ? -__uint_as_float(s.at[e]) : __uint_as_float(s.at[e]);
      }
    }
  }

  __device__ __forceinline__ void rotate_registers(bool interleaved, float (&x)[8]) const {
    float partner[8];
#pragma unroll
    for (int e = 0; e < 8; ++e)
      partner[e] = interleaved ? x[e ^ 1] : __shfl_xor_sync(0xffffffff, x[e], 4);
#pragma unroll
    for (int e = 0; e < 8; ++e)
      x[e] = __fadd_rn(__fmul_rn(x[e], cos[e]), __fmul_rn(partner[e], sin[e]));
  }

  // Of any width: partners lie anywhere in the row. A thread writes and reads back its own dims, so
  // nothing need be waited for before the next row.
  __device__ __forceinline__ void rotate_shared(const cuda::IndexerInput& p, Row& row,
                                                float* values) const {
#pragma unroll
    for (int v = 0; v < Row::kVectors; ++v)
#pragma unroll
      for (int e = 0; e < 8; ++e) values[Row::dim_of(v) + e] = row.x[v][e];
    __syncwarp();
    const int half = p.rope_dim / 2, step = p.interleaved ? 2 : 1,
              to_partner = p.interleaved ? 1 : half;
#pragma unroll 1
    for (int pair = lane_in_row(); pair < half && table != nullptr; pair += kLanesPerRow) {
      float &first = values[pair * step], &second = values[pair * step + to_partner];
      const float c = __ldg(table + pair), s = __ldg(table + half + pair);
      const float rotated = __fsub_rn(__fmul_rn(first, c), __fmul_rn(second, s));
      second = __fadd_rn(__fmul_rn(second, c), __fmul_rn(first, s));
      first = rotated;
    }
    __syncwarp();
#pragma unroll
    for (int v = 0; v < Row::kVectors; ++v)
#pragma unroll
      for (int e = 0; e < 8; ++e) row.x[v][e] = values[Row::dim_of(v) + e];
  }
};

}  // namespace dsa
