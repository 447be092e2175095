#include "reduction.h"

#include <cstring>

#include "formats.h"
#include "integers.h"

namespace ptx {
namespace {

template <class T, class F>
void each(uint8_t* d, const uint8_t* s, uint32_t bytes, F f) {
  for (uint32_t i = 0; i + sizeof(T) <= bytes; i += sizeof(T)) {
    T x, y;
    std::memcpy(&x, d + i, sizeof(T));
    std::memcpy(&y, s + i, sizeof(T));
    x = f(x, y);
    std::memcpy(d + i, &x, sizeof(T));
  }
}

template <class T>
T combine(Reduction r, T a, T b) {
  switch (r) {
    case Reduction::add: return Add{}(a, b);
    case Reduction::min: return Min{}(a, b);
    case Reduction::max: return Max{}(a, b);
    case Reduction::inc: return Increment{}(a, b);
    case Reduction::dec: return Decrement{}(a, b);
    case Reduction::bit_and: return a & b;
    case Reduction::bit_or: return a | b;
    default: return a ^ b;
  }
}

// A NaN loses against a number.
float least(float a, float b) {
  if (a != a) return canonical(b);
  if (b != b) return a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
float greatest(float a, float b) {
  return -least(-a, -b);
}

float combine_floats(Reduction r, float a, float b) {
  if (r == Reduction::min) return least(a, b);
  if (r == Reduction::max) return greatest(a, b);
  return canonical(a + b);
}

}  // namespace

bool can_reduce(Reduction r, Type type) {
  const bool wide = type == Type::u64 || type == Type::s64;
  const bool integer = type == Type::u32 || type == Type::s32 || wide;
  switch (r) {
    case Reduction::add:
      return integer || type == Type::f16 || type == Type::bf16 || type == Type::f32 ||
             type == Type::f64;
    case Reduction::min:
    case Reduction::max: return integer || type == Type::f16 || type == Type::bf16;
    case Reduction::inc:
    case Reduction::dec: return type == Type::u32;
    default: return type == Type::b32 || type == Type::b64;
  }
}

void reduce(Reduction r, Type type, uint8_t* d, const uint8_t* s, uint32_t bytes) {
  switch (type) {
    case Type::s32:
      return each<int32_t>(d, s, bytes, [=](auto a, auto b) { return combine(r, a, b); });
    case Type::b32:
    case Type::u32:
      return each<uint32_t>(d, s, bytes, [=](auto a, auto b) { return combine(r, a, b); });
    case Type::s64:
      return each<int64_t>(d, s, bytes, [=](auto a, auto b) { return combine(r, a, b); });
    case Type::b64:
    case Type::u64:
      return each<uint64_t>(d, s, bytes, [=](auto a, auto b) { return combine(r, a, b); });
    case Type::f16:
      return each<uint16_t>(d, s, bytes, [=](auto a, auto b) {
        return f16_of(combine_floats(r, float_of_f16(a), float_of_f16(b)));
      });
    case Type::bf16:
      return each<uint16_t>(d, s, bytes, [=](auto a, auto b) {
        return bf16_of(combine_floats(r, float_of_bf16(a), float_of_bf16(b)));
      });
    case Type::f32:  // subnormals are flushed
      return each<float>(d, s, bytes,
                         [](float a, float b) { return canonical(flush(flush(a) + flush(b))); });
    default: return each<double>(d, s, bytes, [](double a, double b) { return a + b; });
  }
}

}  // namespace ptx
