// Operations on two integers: of arithmetic, of redux, of atomics and of copies that reduce.
#pragma once

#include <cstdint>
#include <type_traits>

namespace ptx {

// 16-bit operands promote to int, where products of unsigned ones could overflow.
template <class T>
using Unsigned = std::conditional_t<sizeof(T) < 4, uint32_t, std::make_unsigned_t<T>>;

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(Unsigned<T>(a) + Unsigned<T>(b));
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
// Up to b and then from 0 on; down to 0 and then from b on.
struct Increment {
  template <class T>
  T operator()(T a, T b) const {
    return a >= b ? 0 : a + 1;
  }
};
struct Decrement {
  template <class T>
  T operator()(T a, T b) const {
    return a == 0 || a > b ? b : a - 1;
  }
};

}  // namespace ptx
