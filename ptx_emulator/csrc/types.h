// Scalar types of PTX.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace ptx {

enum class Type : uint8_t {
  none,
  pred,
  b8,
  b16,
  b32,
  b64,
  b128,
  u8,
  u16,
  u32,
  u64,
  s8,
  s16,
  s32,
  s64,
  f16,
  f16x2,
  bf16,
  bf16x2,
  tf32,
  f32,
  f32x2,
  f64,
  e4m3,
  e5m2,
  e4m3x2,
  e5m2x2,
  u16x2,
  s16x2,
};

std::optional<Type> parse_type(std::string_view name);  // without the dot
const char* name_of(Type type);
int bits_of(Type type);  // 1 for pred
inline int bytes_of(Type type) {
  return (bits_of(type) + 7) / 8;
}
bool is_signed(Type type);   // s8 .. s64
bool is_integer(Type type);  // u8 .. s64
bool is_float(Type type);    // f16 and its kin
bool is_untyped(Type type);  // b8 .. b128

enum class Space : uint8_t { generic, global, shared, local, param, constant, reg };
const char* name_of(Space space);

}  // namespace ptx
