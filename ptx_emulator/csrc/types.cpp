#include "types.h"

#include <iterator>

namespace ptx {
namespace {

struct TypeInfo {
  Type type;
  const char* name;
  int bits;
};

constexpr TypeInfo kTypes[] = {
    {Type::none, "none", 0},      {Type::pred, "pred", 1},      {Type::b8, "b8", 8},
    {Type::b16, "b16", 16},       {Type::b32, "b32", 32},       {Type::b64, "b64", 64},
    {Type::b128, "b128", 128},    {Type::u8, "u8", 8},          {Type::u16, "u16", 16},
    {Type::u32, "u32", 32},       {Type::u64, "u64", 64},       {Type::s8, "s8", 8},
    {Type::s16, "s16", 16},       {Type::s32, "s32", 32},       {Type::s64, "s64", 64},
    {Type::f16, "f16", 16},       {Type::f16x2, "f16x2", 32},   {Type::bf16, "bf16", 16},
    {Type::bf16x2, "bf16x2", 32}, {Type::tf32, "tf32", 32},     {Type::f32, "f32", 32},
    {Type::f32x2, "f32x2", 64},   {Type::f64, "f64", 64},       {Type::e4m3, "e4m3", 8},
    {Type::e5m2, "e5m2", 8},      {Type::e4m3x2, "e4m3x2", 16}, {Type::e5m2x2, "e5m2x2", 16},
    {Type::u16x2, "u16x2", 32},   {Type::s16x2, "s16x2", 32},
};
static_assert(kTypes[std::size(kTypes) - 1].type == Type::s16x2 &&
              std::size(kTypes) == static_cast<size_t>(Type::s16x2) + 1);

}  // namespace

std::optional<Type> parse_type(std::string_view name) {
  for (const TypeInfo& t : kTypes)
    if (t.type != Type::none && name == t.name) return t.type;
  return std::nullopt;
}

const char* name_of(Type type) {
  return kTypes[static_cast<int>(type)].name;
}
int bits_of(Type type) {
  return kTypes[static_cast<int>(type)].bits;
}
bool is_signed(Type type) {
  return type >= Type::s8 && type <= Type::s64;
}
bool is_integer(Type type) {
  return type >= Type::u8 && type <= Type::s64;
}
bool is_float(Type type) {
  return type >= Type::f16 && type <= Type::e5m2x2;
}
bool is_untyped(Type type) {
  return type >= Type::b8 && type <= Type::b128;
}

const char* name_of(Space space) {
  constexpr const char* kNames[] = {"generic", "global", "shared", "local",
                                    "param",   "const",  "reg"};
  return kNames[static_cast<int>(space)];
}

}  // namespace ptx
