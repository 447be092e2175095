// Loads and stores.
#include <cstring>

#include "access.h"
#include "barriers.h"
#include "decoder.h"
#include "encoding.h"
#include "machine.h"

namespace ptx {
namespace {

constexpr int kMostBytes = 32;  // of one lane's access

template <int kBytes>
void gather_lanes(const Block& b, const Access& a, uint8_t* out) {
  for_each_lane(a.mask, [&](int l) { std::memcpy(out + l * kBytes, b.at(a.at[l]), kBytes); });
}
template <int kBytes>
void scatter_lanes(const Block& b, const Access& a, const uint8_t* from) {
  for_each_lane(a.mask, [&](int l) { std::memcpy(b.at(a.at[l]), from + l * kBytes, kBytes); });
}

void copy_in(const Block& b, const Access& a, uint8_t* out) {
  const int first = __builtin_ctz(a.mask);
  if (a.shape == Access::contiguous) {
    const size_t bytes = size_t{a.bytes} * __builtin_popcount(a.mask);
    // Only lanes in a row lie in a row in the buffer.
    if ((a.mask >> first) + 1 == 0 || ((a.mask >> first) & ((a.mask >> first) + 1)) == 0) {
      std::memcpy(out + first * a.bytes, b.at(a.at[first]), bytes);
      return;
    }
  }
  switch (a.bytes) {
    case 1: return gather_lanes<1>(b, a, out);
    case 2: return gather_lanes<2>(b, a, out);
    case 4: return gather_lanes<4>(b, a, out);
    case 8: return gather_lanes<8>(b, a, out);
    case 16: return gather_lanes<16>(b, a, out);
    default: return gather_lanes<32>(b, a, out);
  }
}

void copy_out(const Block& b, const Access& a, const uint8_t* from) {
  if (a.shape == Access::contiguous && a.mask == kAllLanes) {
    std::memcpy(b.at(a.at[0]), from, size_t{a.bytes} * kLanes);
    return;
  }
  switch (a.bytes) {
    case 1: return scatter_lanes<1>(b, a, from);
    case 2: return scatter_lanes<2>(b, a, from);
    case 4: return scatter_lanes<4>(b, a, from);
    case 8: return scatter_lanes<8>(b, a, from);
    case 16: return scatter_lanes<16>(b, a, from);
    default: return scatter_lanes<32>(b, a, from);
  }
}

// extra: bytes of a lane's access; more, count: the registers. M is the element in memory, R in
// the register, which may be wider.
template <class M, class R>
Flow load(Warp& w, const Instr& in, Mask mask) {
  Access a;
  find_addresses(w, in, mask, in.extra, a);
  if (in.order != Order::weak) w.machine->polls(w);
  alignas(64) uint8_t buffer[kLanes * kMostBytes];
  access_memory(
      w, a, {true, false, in.order, in.scope}, in.extra,
      [&](const Block& b, const Access& part) { copy_in(b, part, buffer); },
      [&](int l, const uint8_t* from) { std::memcpy(buffer + l * in.extra, from, in.extra); });
  const int count = in.count;
  const Ref* refs = program_of(w).refs.data() + in.more;
  for (int v = 0; v < count; ++v) {
    if (refs[v] == kNoRef) continue;
    const M* from = reinterpret_cast<const M*>(buffer) + v;
    write_lanes(w.out<R>(refs[v]), mask, [=](int l) { return static_cast<R>(from[l * count]); });
  }
  return Flow::next;
}

template <class M, class R>
Flow store(Warp& w, const Instr& in, Mask mask) {
  Access a;
  find_addresses(w, in, mask, in.extra, a);
  alignas(64) uint8_t buffer[kLanes * kMostBytes];
  const int count = in.count;
  const Ref* refs = program_of(w).refs.data() + in.more;
  for (int v = 0; v < count; ++v) {
    M* to = reinterpret_cast<M*>(buffer) + v;
    const R* from = w.in<R>(refs[v]);
    for (int l = 0; l < kLanes; ++l) to[l * count] = static_cast<M>(from[l]);
  }
  access_memory(
      w, a, {false, true, in.order, in.scope}, in.extra,
      [&](const Block& b, const Access& part) { copy_out(b, part, buffer); },
      [&](int l, uint8_t* to) { std::memcpy(to, buffer + l * in.extra, in.extra); });
  if (in.space != Space::local) w.machine->progress();
  return Flow::next;
}

using Wide = unsigned __int128;

template <class M>
Handler pick_register(Encoding& e, bool loads, int bytes) {
  const auto pick = [&]<class R>(R) -> Handler {
    if constexpr (sizeof(R) >= sizeof(M)) {
      return loads ? &load<M, R> : &store<M, R>;
    } else {
      e.fail("the register is narrower than the type");
    }
  };
  switch (bytes) {
    case 1: return pick(uint8_t{});
    case 2: return pick(uint16_t{});
    case 4: return pick(uint32_t{});
    case 8: return pick(uint64_t{});
    default: return pick(Wide{});
  }
}

Handler pick_memory(Encoding& e, Type type, bool loads, int register_bytes) {
  const bool sign = loads && is_signed(type);
  switch (bytes_of(type)) {
    case 1:
      return sign ? pick_register<int8_t>(e, loads, register_bytes)
                  : pick_register<uint8_t>(e, loads, register_bytes);
    case 2:
      return sign ? pick_register<int16_t>(e, loads, register_bytes)
                  : pick_register<uint16_t>(e, loads, register_bytes);
    case 4:
      return sign ? pick_register<int32_t>(e, loads, register_bytes)
                  : pick_register<uint32_t>(e, loads, register_bytes);
    case 8: return pick_register<uint64_t>(e, loads, register_bytes);
    default: return pick_register<Wide>(e, loads, register_bytes);
  }
}

// Hints change nothing that can be seen; a cache policy is one more operand.
bool take_hints(Encoding& e, bool loads) {
  if (loads) {
    e.take_one_of({"ca", "cg", "cs", "lu", "cv"});
    e.take("nc");
  } else {
    e.take_one_of({"wb", "cg", "cs", "wt"});
  }
  e.take_one_of({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
                 "L1::no_allocate"});
  e.take_one_of({"L2::evict_normal", "L2::evict_first", "L2::evict_last"});
  e.take_one_of({"L2::64B", "L2::128B", "L2::256B"});
  return e.take("L2::cache_hint");
}

void encode_access(Encoding& e, bool loads) {
  take_order(e, loads ? Order::acquire : Order::release);
  take_state_space(e);
  const bool policy = take_hints(e, loads);
  const int vector = 1 << (e.take_one_of({"v2", "v4", "v8"}) + 1);
  const Type type = e.take_type();
  if (!is_integer(type) && !is_untyped(type) && type != Type::f32 && type != Type::f64)
    e.fail(std::string("type .") + name_of(type) + " cannot be in memory");
  e.expect_operands(policy ? 3 : 2, policy ? 3 : 2);
  if (policy) e.source(2, Type::b64);
  encode_address(e, loads ? 1 : 0);
  const Operand& value = e.operand(loads ? 0 : 1);
  std::vector<Operand> items{value};
  if (value.kind == Operand::vector) items = value.items;
  if (static_cast<int>(items.size()) != vector) e.fail("wrong number of elements");
  if (vector * bytes_of(type) > kMostBytes) e.fail("more than 32 bytes");
  std::vector<Ref> refs;
  int register_bytes = 0;
  for (const Operand& o : items) {
    int bytes = 0;
    refs.push_back(loads ? e.wide_destination(o, type, bytes) : e.wide_source(o, type, bytes));
    if (refs.back() == kNoRef) continue;
    if (register_bytes && bytes != register_bytes) e.fail("elements of different widths");
    register_bytes = bytes;
  }
  if (!register_bytes) register_bytes = bytes_of(type);
  e.further(refs);
  e.out.extra = static_cast<uint32_t>(vector * bytes_of(type));
  e.out.run = pick_memory(e, type, loads, register_bytes);
}

Flow nothing(Warp&, const Instr&, Mask) {
  return Flow::next;
}

void prefetch(Encoding& e) {
  take_state_space(e);
  if (e.take_one_of({"L1", "L2", "L2::evict_last", "L2::evict_normal", "tensormap"}) < 0)
    e.fail("a cache is missing");
  e.expect_operands(1, 1);
  e.address(0);
  e.out.run = nothing;
}

Flow make_policy(Warp& w, const Instr& in, Mask mask) {
  write_lanes(w.out<uint64_t>(in.d), mask, [](int) { return uint64_t{0}; });
  return Flow::next;
}

void createpolicy(Encoding& e) {
  if (!e.take("fractional")) e.fail("only createpolicy.fractional is modelled");
  const std::initializer_list<std::string_view> kPriorities = {
      "L2::evict_last", "L2::evict_normal", "L2::evict_first", "L2::evict_unchanged"};
  while (e.take_one_of(kPriorities) >= 0) {
  }
  e.take_type();
  e.expect_operands(1, 2);
  e.out.d = e.destination(0, Type::b64);
  if (e.operands() > 1) e.source(1, Type::f32);
  e.out.run = make_policy;
}

}  // namespace

void take_order(Encoding& e, Order strongest) {
  Instr& out = e.out;
  if (e.take("volatile")) {
    out.order = Order::relaxed;
    out.scope = Scope::sys;
    return;
  }
  const bool mmio = e.take("mmio");
  switch (e.take_one_of({"weak", "relaxed", strongest == Order::acquire ? "acquire" : "release"})) {
    case 1: out.order = Order::relaxed; break;
    case 2: out.order = strongest; break;
    default:
      if (mmio) e.fail(".mmio is without .relaxed");
      out.order = Order::weak;
      return;
  }
  const int scope = e.take_one_of({"cta", "cluster", "gpu", "sys"});
  if (scope < 0) e.fail("a scope is missing");
  out.scope = static_cast<Scope>(scope);
}

void take_state_space(Encoding& e) {
  switch (e.take_one_of({"const", "global", "local", "shared", "shared::cta", "shared::cluster",
                         "param", "param::entry", "param::func"})) {
    case 0: e.out.space = Space::constant; break;
    case 1: e.out.space = Space::global; break;
    case 2: e.out.space = Space::local; break;
    case 3:
    case 4:
    case 5: e.out.space = Space::shared; break;
    case 6:
    case 7:
    case 8: e.out.space = Space::param; break;
    default: e.out.space = Space::generic;
  }
}

void encode_address(Encoding& e, int operand) {
  e.address(operand);
  // Parameters of device functions lie in local memory.
  if (e.out.space == Space::param && !e.decoder().in_kernel()) e.out.space = Space::local;
}

void add_memory_opcodes(Opcodes& ops) {
  ops["ld"] = [](Encoding& e) { encode_access(e, true); };
  ops["ldu"] = [](Encoding& e) { encode_access(e, true); };
  ops["st"] = [](Encoding& e) { encode_access(e, false); };
  ops["prefetch"] = prefetch;
  ops["prefetchu"] = prefetch;
  ops["createpolicy"] = createpolicy;
}

}  // namespace ptx
