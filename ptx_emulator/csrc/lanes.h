// Arithmetic on 32 lanes at once.
#pragma once

#include <cstring>

#include "program.h"
#include "warp.h"

namespace ptx {

// d[lane] = out[lane] for the lanes of the mask.
template <class T>
[[gnu::always_inline]] inline void blend(T* d, const T (&out)[kLanes], Mask mask) {
  if (mask == kAllLanes) {
    std::memcpy(d, out, sizeof(out));
    return;
  }
#pragma GCC ivdep
  for (int l = 0; l < kLanes; ++l) d[l] = mask >> l & 1 ? out[l] : d[l];
}

// d[lane] = f(lane) for the lanes of the mask. f runs for all lanes, so it must be defined for any
// input; d may be one of its inputs. The loops have no branches and vectorise.
template <class T, class F>
[[gnu::always_inline]] inline void write_lanes(T* d, Mask mask, F f) {
  T out[kLanes];
#pragma GCC ivdep
  for (int l = 0; l < kLanes; ++l) out[l] = f(l);
  blend(d, out, mask);
}

// The lanes for which f(lane) holds.
template <class F>
[[gnu::always_inline]] inline Mask lanes_where(F f) {
  uint8_t hit[kLanes];
#pragma GCC ivdep
  for (int l = 0; l < kLanes; ++l) hit[l] = f(l) ? 1 : 0;
  Mask mask = 0;
  for (int byte = 0; byte < 4; ++byte) {
    uint64_t eight;
    std::memcpy(&eight, hit + 8 * byte, 8);
    mask |= static_cast<Mask>((eight * 0x0102040810204080ull) >> 56) << (8 * byte);
  }
  return mask;
}

inline void write_pred(Mask& d, Mask mask, Mask value) {
  d = (d & ~mask) | (value & mask);
}

template <class F>
inline void for_each_lane(Mask mask, F f) {
  for (; mask; mask &= mask - 1) f(__builtin_ctz(mask));
}

// Handlers of the common shapes. F{}(a, b) is the operation on one lane.
template <class T, class F, class D = T>
Flow unary(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  write_lanes(w.out<D>(in.d), mask, [=](int l) { return static_cast<D>(F{}(a[l])); });
  return Flow::next;
}

template <class T, class F, class D = T>
Flow binary(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const T* b = w.in<T>(in.b);
  write_lanes(w.out<D>(in.d), mask, [=](int l) { return static_cast<D>(F{}(a[l], b[l])); });
  return Flow::next;
}

template <class T, class F, class D = T>
Flow ternary(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const T* b = w.in<T>(in.b);
  const D* c = w.in<D>(in.c);
  write_lanes(w.out<D>(in.d), mask, [=](int l) { return static_cast<D>(F{}(a[l], b[l], c[l])); });
  return Flow::next;
}

}  // namespace ptx
