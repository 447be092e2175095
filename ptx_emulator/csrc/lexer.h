// PTX text to tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ptx {

struct Token {
  enum Kind : uint8_t { word, integer, real, text, symbol, end } kind;
  int line;
  std::string_view spelling;  // words keep their dots: "ld.global.f32", "%tid.x", ".reg"
  uint64_t value = 0;         // integer; the bits of an fp32 (real_bits 32) or an fp64 (64)
  int real_bits = 0;
};

// The tokens point into `text`, which must outlive them. The last one is of kind `end`.
std::vector<Token> tokenize(std::string_view text);

}  // namespace ptx
