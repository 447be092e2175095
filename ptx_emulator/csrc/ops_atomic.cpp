// Atomic read-modify-writes.
#include <bit>
#include <cstring>
#include <functional>

#include "access.h"
#include "barriers.h"
#include "encoding.h"
#include "formats.h"
#include "integers.h"
#include "machine.h"

namespace ptx {
namespace {

constexpr int kMostBytes = 16;

// An operation that takes no third operand.
template <class F>
struct OfTwo {
  template <class T>
  T operator()(T old, T b, T) const {
    return F{}(old, b);
  }
};
struct AddFloat {
  template <class T>
  T operator()(T old, T b) const {
    return canonical(old + b);
  }
};
struct Exchange {
  template <class T>
  T operator()(T, T b, T) const {
    return b;
  }
};
struct CompareAndSwap {
  template <class T>
  T operator()(T old, T b, T c) const {
    return old == b ? c : old;
  }
};
// f32 in global memory: subnormal inputs and results are flushed.
struct AddFlushed {
  float operator()(float old, float b, float) const {
    return flush(canonical(flush(old) + flush(b)));
  }
};

// Sixteen-bit floats by their codes.
template <bool kBf16>
float value_of(uint16_t code) {
  return kBf16 ? float_of_bf16(code) : float_of_f16(code);
}
enum class Half : uint8_t { add, minimum, maximum };
template <bool kBf16, Half kOp>
struct HalfOp {
  uint16_t operator()(uint16_t old, uint16_t b, uint16_t) const {
    const float x = value_of<kBf16>(old), y = value_of<kBf16>(b);
    if (kOp == Half::add) {
      const float sum = x + y;
      return kBf16 ? bf16_of(sum) : f16_of(sum);
    }
    // A NaN loses to a number; -0 is below +0.
    if (x != x) return y != y ? 0x7fff : b;
    if (y != y) return old;
    const bool less = x < y || (x == y && std::signbit(x));
    return less == (kOp == Half::minimum) ? old : b;
  }
};

// d: the first of `count` results in refs, then as many b, then one c. extra: elements of T in a
// register, 2 for f16x2.
template <class T, class F, bool kFlushes = false>
Flow atomic(Warp& w, const Instr& in, Mask mask) {
  const int elements = in.count, each = static_cast<int>(in.extra), parts = elements * each;
  Access a;
  find_addresses(w, in, mask, static_cast<uint32_t>(parts * sizeof(T)), a);
  const Ref* refs = program_of(w).refs.data() + in.more;
  T old[kLanes][kMostBytes / sizeof(T)];
  bool changed = false;
  const auto apply = [&](int l, uint8_t* at, bool global) {
    for (int i = 0; i < parts; ++i) {
      T before, after;
      std::memcpy(&before, at + i * sizeof(T), sizeof(T));
      const T b = w.in<T>(refs[elements + i / each])[l * each + i % each];
      const T c = in.c != kNoRef ? w.in<T>(in.c)[l * each + i % each] : T{};
      if constexpr (kFlushes) {
        after = global ? AddFlushed{}(before, b, c) : F{}(before, b, c);
      } else {
        after = F{}(before, b, c);
      }
      changed |= std::memcmp(&before, &after, sizeof(T)) != 0;
      std::memcpy(at + i * sizeof(T), &after, sizeof(T));
      old[l][i] = before;
    }
  };
  access_memory(
      w, a, {true, true, in.order, in.scope}, a.bytes,
      [&](const Block& block, const Access& part) {
        const bool global = block.begin < kSharedWindow;
        for_each_lane(part.mask, [&](int l) { apply(l, block.at(part.at[l]), global); });
      },
      [&](int l, uint8_t* at) { apply(l, at, false); });
  w.machine->polls(w);
  if (changed) w.machine->progress();
  for (int v = 0; v < elements; ++v) {
    if (refs[v] == kNoRef) continue;
    T* d = w.out<T>(refs[v]);
    for_each_lane(mask, [&](int l) {
      for (int i = 0; i < each; ++i) d[l * each + i] = old[l][v * each + i];
    });
  }
  return Flow::next;
}

enum Op : int { kAdd, kMin, kMax, kAnd, kOr, kXor, kExch, kCas, kInc, kDec };

template <class T>
Handler pick_number(Op op) {
  switch (op) {
    case kAdd: return &atomic<T, OfTwo<Add>>;
    case kMin: return &atomic<T, OfTwo<Min>>;
    case kMax: return &atomic<T, OfTwo<Max>>;
    default: return nullptr;
  }
}
template <class T>
Handler pick_bits(Op op) {
  switch (op) {
    case kAnd: return &atomic<T, OfTwo<std::bit_and<>>>;
    case kOr: return &atomic<T, OfTwo<std::bit_or<>>>;
    case kXor: return &atomic<T, OfTwo<std::bit_xor<>>>;
    case kExch: return &atomic<T, Exchange>;
    case kCas: return &atomic<T, CompareAndSwap>;
    default: return nullptr;
  }
}
template <bool kBf16>
Handler pick_half(Op op) {
  switch (op) {
    case kAdd: return &atomic<uint16_t, HalfOp<kBf16, Half::add>>;
    case kMin: return &atomic<uint16_t, HalfOp<kBf16, Half::minimum>>;
    case kMax: return &atomic<uint16_t, HalfOp<kBf16, Half::maximum>>;
    default: return nullptr;
  }
}

Handler pick(Op op, Type type) {
  switch (type) {
    case Type::u32:
      if (op == kInc) return &atomic<uint32_t, OfTwo<Increment>>;
      if (op == kDec) return &atomic<uint32_t, OfTwo<Decrement>>;
      return pick_number<uint32_t>(op);
    case Type::s32: return pick_number<int32_t>(op);
    case Type::u64: return pick_number<uint64_t>(op);
    case Type::s64: return op != kAdd ? pick_number<int64_t>(op) : nullptr;
    case Type::b16: return op == kCas ? &atomic<uint16_t, CompareAndSwap> : nullptr;
    case Type::b32: return pick_bits<uint32_t>(op);
    case Type::b64: return pick_bits<uint64_t>(op);
    case Type::b128: return op == kExch || op == kCas ? pick_bits<unsigned __int128>(op) : nullptr;
    case Type::f32: return op == kAdd ? &atomic<float, OfTwo<AddFloat>, true> : nullptr;
    case Type::f64: return op == kAdd ? &atomic<double, OfTwo<AddFloat>> : nullptr;
    case Type::f16:
    case Type::f16x2: return pick_half<false>(op);
    case Type::bf16:
    case Type::bf16x2: return pick_half<true>(op);
    default: return nullptr;
  }
}

void encode_atomic(Encoding& e, bool has_result) {
  constexpr Order kOrders[] = {Order::relaxed, Order::acquire, Order::release, Order::acq_rel};
  e.out.order = kOrders[e.take_one_of({"relaxed", "acquire", "release", "acq_rel"}, 0)];
  e.out.scope = static_cast<Scope>(e.take_one_of({"cta", "cluster", "gpu", "sys"}, 2));
  take_state_space(e);
  const int op =
      e.take_one_of({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"});
  if (op < 0) e.fail("this operation is not modelled");
  if (!has_result && (op == kExch || op == kCas)) e.fail("red has no such operation");
  const bool policy = e.take("L2::cache_hint");
  const int vector = 1 << (e.take_one_of({"v2", "v4", "v8"}) + 1);
  const Type type = e.take_type();
  const bool half =
      type == Type::f16 || type == Type::bf16 || type == Type::f16x2 || type == Type::bf16x2;
  if (e.take("noftz") != (half && op == kAdd)) e.fail(".noftz goes with sixteen-bit floats");
  e.out.run = pick(static_cast<Op>(op), type);
  if (!e.out.run) e.fail(std::string("not modelled for .") + name_of(type));
  if (half && vector == 1 && op != kAdd) e.fail("min and max of sixteen-bit floats are vectors'");
  if (vector > 1 && ((!half && type != Type::f32) || op > kMax || vector * bytes_of(type) > 16))
    e.fail("a vector of this type is not modelled");
  const int first = has_result ? 1 : 0, count = first + 2 + (op == kCas) + policy;
  e.expect_operands(count, count);
  encode_address(e, first);
  const auto items = [&](int i) {
    const Operand& o = e.operand(i);
    std::vector<Operand> all{o};
    if (o.kind == Operand::vector) all = o.items;
    if (static_cast<int>(all.size()) != vector) e.fail("wrong number of elements");
    return all;
  };
  std::vector<Ref> refs(vector, kNoRef);
  if (has_result) {
    refs.clear();
    for (const Operand& o : items(0)) refs.push_back(e.destination(o, type));
  }
  for (const Operand& o : items(first + 1)) refs.push_back(e.source(o, type));
  if (op == kCas) e.out.c = e.source(first + 2, type);
  if (policy) e.source(count - 1, Type::b64);
  e.further(refs);
  e.out.count = static_cast<uint16_t>(vector);
  e.out.extra = type == Type::f16x2 || type == Type::bf16x2 ? 2 : 1;
}

}  // namespace

void add_atomic_opcodes(Opcodes& ops) {
  ops["atom"] = [](Encoding& e) { encode_atomic(e, true); };
  ops["red"] = [](Encoding& e) { encode_atomic(e, false); };
}

}  // namespace ptx
