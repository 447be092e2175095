// The table of the level being compiled, made of the bodies beside this file.
#pragma once

#include "codecs.h"
#include "dots.h"
#include "row.h"
#include "select.h"
#include "softmax.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

#if defined(__AVX512BF16__)
constexpr Arithmetic kBf16{2,
                           dots<Bf16>,
                           combine<Bf16>,
                           score<Bf16>,
                           load_fp8_bf16,
                           load_bf16_bf16,
                           dequantize_words_bf16,
                           pair_values_bf16,
                           softmax<Bf16>};
constexpr const Arithmetic* kBf16OrNull = &kBf16;
#else
constexpr const Arithmetic* kBf16OrNull = nullptr;
#endif

constexpr Isa make_table(const char* name) {
  return {name,
          kLanes,
          kPanel,
          {1, dots<Fp32>, combine<Fp32>, score<Fp32>, load_fp8_fp32, load_bf16_fp32,
           dequantize_fp32, nullptr, softmax<Fp32>},
          kBf16OrNull,
          from_bfloat16,
          from_float8,
          to_bfloat16,
          copy_bfloat16,
          quantize<uint16_t>,
          quantize<float>,
          dequantize_bf16,
          stream,
          {count_at_least, count_at_least_each, collect, emit_selected},
          exp_nonpositive_all,
          scale,
          scale_add};
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
