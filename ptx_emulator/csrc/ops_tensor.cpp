// cp.async.bulk.tensor and its kin, and the tensormap instructions.
#include <algorithm>
#include <cstring>
#include <utility>

#include "bulk.h"

namespace ptx {
namespace {

// small: dimensions | flags; imm: the reduction, or -1. Further operands: the map's address, shared
// memory's, the mbarrier's, coordinates, CTA mask.
enum Flag : uint8_t { kLoads = 8, kMulticast = 16, kPrefetches = 32 };
constexpr int kCoordinatesAt = 3 * AddressCode::kWords;

TensorMap read_map(Warp& w, uint64_t address, int lane) {
  if (address % 64) throw Fault(Fault::memory, "a tensor map: " + misaligned(w, address, 64), lane);
  const Block& block = locate(w, address, kTensorMapBytes, lane, "a read of a tensor map");
  if (!block.all_written(address, kTensorMapBytes))
    never_written(w, address, kTensorMapBytes, lane);
  TensorMap map;
  std::memcpy(&map, block.at(address), sizeof(map));
  const std::string wrong = check(map);
  if (!wrong.empty()) throw Fault(Fault::memory, wrong, lane);
  return map;
}

// The type that a reduction takes elements for.
Type reduction_type(const TensorMap& map, Reduction r) {
  constexpr Type kTypes[] = {Type::u8,  Type::u16,  Type::u32, Type::s32, Type::u64,
                             Type::s64, Type::f16,  Type::f32, Type::f64, Type::bf16,
                             Type::f32, Type::tf32, Type::tf32};
  const Type type = kTypes[map.data_type];
  const bool bits = r >= Reduction::bit_and;
  if (bits && (type == Type::u32 || type == Type::s32)) return Type::b32;
  if (bits && (type == Type::u64 || type == Type::s64)) return Type::b64;
  return type;
}

Flow copy(Warp& w, const Instr& in, Mask mask) {
  const Ref* refs = program_of(w).refs.data() + in.more;
  const AddressCode map_at(w, refs), shared_at(w, refs + AddressCode::kWords),
      barrier_at(w, refs + 2 * AddressCode::kWords);
  const int rank = in.small & 7;
  for_each_lane(mask, [&](int l) {
    const TensorMap map = read_map(w, map_at(l), l);
    if (map.rank != rank)
      throw Fault(Fault::memory,
                  "a copy of " + std::to_string(rank) + " dimensions with a tensor map of " +
                      std::to_string(map.rank),
                  l);
    int32_t at[kMaxRank] = {};
    for (int d = 0; d < rank; ++d) at[d] = w.in<int32_t>(refs[kCoordinatesAt + d])[l];
    if (in.small & kPrefetches) {
      for_each_run(map, at, 0, [&](const Run& r) {
        if (r.in_bounds) locate(w, r.global, r.bytes, l, "a prefetch");
      });
      return;
    }
    const uint64_t shared = shared_at(l);
    if (shared % 128) throw Fault(Fault::memory, "a tensor copy: " + misaligned(w, shared, 128), l);
    if (in.small & kLoads) {
      const uint16_t ctas =
          in.small & kMulticast ? w.in<uint16_t>(refs[kCoordinatesAt + rank])[l] : uint16_t{0};
      bool again = false;
      for_each_destination(w, l, ctas, shared, barrier_at(l), [&](uint64_t to, uint64_t signal) {
        auto transfer = std::make_shared<Transfer>();
        transfer->again = std::exchange(again, true);
        transfer->fill = map.fill();
        transfer->on_load = map.on_load();
        for_each_run(map, at, to,
                     [&](const Run& r) { transfer->add(w, l, r.shared, r.global, r.bytes); });
        issue_to_barrier(w, l, kBulkName, std::move(transfer), signal, map.box_bytes());
      });
      return;
    }
    auto transfer = std::make_shared<Transfer>();
    if (in.imm >= 0) {
      transfer->reduction = static_cast<Reduction>(in.imm);
      transfer->type = reduction_type(map, *transfer->reduction);
      if (!can_reduce(*transfer->reduction, transfer->type))
        throw Fault(Fault::unsupported,
                    std::string("no such reduction of ") + name_of(transfer->type), l);
    }
    for_each_run(map, at, shared, [&](const Run& r) {
      if (r.in_bounds) transfer->add(w, l, r.global, r.shared, r.bytes);
    });
    issue_to_group(w, l, std::move(transfer));
  });
  return Flow::next;
}

// [map, {coordinates}]
void encode_map(Encoding& e, const Operand& o, int rank, std::vector<Ref>& words,
                std::vector<Ref>& coordinates) {
  if (o.kind != Operand::address || o.items.size() != 1) e.fail("a tensor map is expected");
  Operand map = o;
  map.items.clear();
  AddressCode::encode(e, map, Space::generic, words);
  const auto items = elements_of(o.items[0]);
  if (static_cast<int>(items.size()) != rank) e.fail("wrong number of coordinates");
  for (const Operand& c : items) coordinates.push_back(e.source(c, Type::s32));
}

// tensormap.replace. small: Field; extra: ordinal; b: the value
enum Field : uint8_t {
  kAddress,
  kRank,
  kBoxDim,
  kGlobalDim,
  kGlobalStride,
  kElementStride,
  kElementType,
  kInterleave,
  kSwizzle,
  kFillMode
};

void set_field(TensorMap& m, Field field, uint32_t i, uint64_t value, int lane) {
  // The numbers that PTX gives the types, as the driver's.
  constexpr uint8_t kTypes[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 8, 9, 11, 12};
  constexpr uint8_t kBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 4, 8, 2, 4, 4};
  const auto limit = [&](uint64_t most) {
    if (value > most)
      throw Fault(Fault::unsupported,
                  "tensormap.replace with the value " + std::to_string(value) +
                      " is not modelled for this field",
                  lane);
  };
  switch (field) {
    case kAddress: m.address = value; break;
    case kRank:
      limit(kMaxRank - 1);
      m.rank = static_cast<uint8_t>(value + 1);
      break;
    case kBoxDim:
      limit(256);
      m.box[i] = static_cast<uint16_t>(value);
      break;
    case kGlobalDim: m.last[i] = static_cast<uint32_t>(value - 1); break;
    case kGlobalStride: m.strides[i + 1] = value; break;
    case kElementStride:
      limit(8);
      m.step[i] = i == 0 ? 1 : static_cast<uint8_t>(value);
      break;
    case kElementType:
      limit(12);
      m.data_type = kTypes[value];
      m.element_bytes = kBytes[value];
      m.strides[0] = kBytes[value];
      break;
    case kInterleave: limit(0); break;
    case kSwizzle:
      limit(3);
      m.swizzle = static_cast<Swizzle>(value);
      break;
    case kFillMode:
      limit(1);
      m.oob_fill = static_cast<uint8_t>(value);
      break;
  }
}

// A map may be made from zeros, field by field.
Flow replace(Warp& w, const Instr& in, Mask mask) {
  Access a;
  find_addresses(w, in, mask, kTensorMapBytes, a);
  const bool wide = in.small == kAddress || in.small == kGlobalStride;
  uint8_t buffer[kTensorMapBytes];
  for_each_lane(mask, [&](int l) {
    Access one = a;
    one.mask = Mask{1} << l;
    one.shape = Access::uniform;
    access_memory(
        w, one, {true, true, Order::weak, Scope::cta}, 64,
        [&](const Block& b, const Access&) {
          uint8_t* bytes = b.at(a.at[l]);
          std::memcpy(buffer, bytes, sizeof(buffer));
          TensorMap map;
          std::memcpy(&map, buffer, sizeof(map));
          if (map.magic != TensorMap::kMagic) {
            if (std::any_of(buffer, buffer + sizeof(buffer), [](uint8_t x) { return x != 0; }))
              throw Fault(Fault::memory, "these bytes are neither a tensor map nor zeros", l);
            map.magic = TensorMap::kMagic;
          }
          const uint64_t value = wide ? w.in<uint64_t>(in.b)[l] : uint64_t{w.in<uint32_t>(in.b)[l]};
          set_field(map, static_cast<Field>(in.small), in.extra, value, l);
          std::memcpy(bytes, &map, sizeof(map));
        },
        [&](int lane, uint8_t*) {
          throw Fault(Fault::memory, "a tensor map in local memory", lane);
        });
  });
  return Flow::next;
}

void encode_replace(Encoding& e) {
  if (!e.take("tile")) e.fail("only .tile is modelled");
  const int field = e.take_one_of({"global_address", "rank", "box_dim", "global_dim",
                                   "global_stride", "element_stride", "elemtype",
                                   "interleave_layout", "swizzle_mode", "fill_mode"});
  if (field < 0) e.fail("this field is not modelled");
  take_state_space(e);
  if (!e.take("b1024")) e.fail("a tensor map is .b1024");
  const bool wide = field == kAddress || field == kGlobalStride;
  const Type type = e.take_type();
  if (type != (wide ? Type::b64 : Type::b32)) e.fail("a value of another width");
  const bool has_ordinal = field >= kBoxDim && field <= kElementStride;
  e.expect_operands(has_ordinal ? 3 : 2, has_ordinal ? 3 : 2);
  e.address(0);
  if (has_ordinal) {
    const uint64_t ordinal = e.integer(1);
    if (ordinal >= static_cast<uint64_t>(field == kGlobalStride ? kMaxRank - 1 : kMaxRank))
      e.fail("no such dimension");
    e.out.extra = static_cast<uint32_t>(ordinal);
  }
  e.out.b = e.source(has_ordinal ? 2 : 1, type);
  e.out.small = static_cast<uint8_t>(field);
  e.out.run = replace;
}

// tensormap.cp_fenceproxy: one copy for the warp. Further operands: destination, source.
Flow copy_map(Warp& w, const Instr& in, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  const Ref* refs = program_of(w).refs.data() + in.more;
  const AddressCode to(w, refs), from(w, refs + AddressCode::kWords);
  const int l = __builtin_ctz(mask);
  Access a;
  a.mask = Mask{1} << l;
  a.bytes = kTensorMapBytes;
  a.shape = Access::uniform;
  uint8_t buffer[kTensorMapBytes];
  const auto local = [](int lane, uint8_t*) {
    throw Fault(Fault::memory, "a tensor map in local memory", lane);
  };
  a.at[l] = from(l);
  access_memory(
      w, a, {true, false, Order::weak, Scope::cta}, 128,
      [&](const Block& b, const Access&) { std::memcpy(buffer, b.at(a.at[l]), sizeof(buffer)); },
      local);
  a.at[l] = to(l);
  access_memory(
      w, a, {false, true, Order::weak, Scope::cta}, 128,
      [&](const Block& b, const Access&) { std::memcpy(b.at(a.at[l]), buffer, sizeof(buffer)); },
      local);
  w.machine->progress();
  return Flow::next;
}

void encode_copy_map(Encoding& e) {
  for (const char* m :
       {"global", "shared::cta", "tensormap::generic", "release", "sync", "aligned"})
    if (!e.take(m)) e.fail(std::string(".") + m + " is expected");
  if (e.take_one_of({"cta", "cluster", "gpu", "sys"}) < 0) e.fail("a scope is missing");
  e.expect_operands(3, 3);
  if (e.integer(2) != kTensorMapBytes) e.fail("a tensor map has 128 bytes");
  std::vector<Ref> words;
  AddressCode::encode(e, e.operand(0), Space::global, words);
  AddressCode::encode(e, e.operand(1), Space::shared, words);
  e.further(words);
  e.out.run = copy_map;
}

void tensormap(Encoding& e) {
  if (e.take("replace")) return encode_replace(e);
  if (e.take("cp_fenceproxy")) return encode_copy_map(e);
  e.fail("this tensormap instruction is not modelled");
}

}  // namespace

void encode_tensor(Encoding& e, TensorCopy kind) {
  const int rank = e.take_one_of({"1d", "2d", "3d", "4d", "5d"}) + 1;
  if (rank == 0) e.fail("the number of dimensions is missing");
  e.take("tile");  // gathers and im2col are left over, and so refused
  const bool policy_possible = e.take("L2::cache_hint");
  std::vector<Ref> words, coordinates;
  uint8_t flags = static_cast<uint8_t>(rank);
  int used;
  e.out.imm = -1;
  if (kind == TensorCopy::prefetch) {
    if (!e.take("L2") || !e.take("global")) e.fail(".L2.global is expected");
    flags |= kPrefetches;
    encode_map(e, e.operand(0), rank, words, coordinates);
    words.insert(words.end(), 2 * AddressCode::kWords, kNoRef);
    for (int i = 1; i < 4; ++i)
      words[AddressCode::kWords + i] = words[2 * AddressCode::kWords + i] = 0;
    used = 1;
  } else if (e.take("bulk_group")) {
    if (!e.take("global") || !e.take("shared::cta")) e.fail(".global.shared::cta is expected");
    if (kind == TensorCopy::reduce) {
      e.out.imm = e.take_one_of({"add", "min", "max", "inc", "dec", "and", "or", "xor"});
      if (e.out.imm < 0) e.fail("an operation is missing");
    }
    encode_map(e, e.operand(0), rank, words, coordinates);
    AddressCode::encode(e, e.operand(1), Space::shared, words);
    words.insert(words.end(), {kNoRef, 0, 0, 0});
    used = 2;
  } else {
    if (kind == TensorCopy::reduce || !e.take("mbarrier::complete_tx::bytes"))
      e.fail("a completion mechanism is missing");
    if (e.take_one_of({"shared::cluster", "shared::cta"}) < 0 || !e.take("global"))
      e.fail("a direction is missing");
    flags |= kLoads;
    encode_map(e, e.operand(1), rank, words, coordinates);
    AddressCode::encode(e, e.operand(0), Space::shared, words);
    AddressCode::encode(e, e.operand(2), Space::shared, words);
    used = 3;
    if (e.take("multicast::cluster")) {
      flags |= kMulticast;
      coordinates.push_back(e.source(used++, Type::u16));
    }
  }
  if (policy_possible) e.source(used++, Type::b64);
  e.expect_operands(used, used);
  words.insert(words.end(), coordinates.begin(), coordinates.end());
  e.further(words);
  e.out.small = flags;
  e.out.run = copy;
}

void add_bulk_opcodes(Opcodes& ops) {
  ops["tensormap"] = tensormap;
}

}  // namespace ptx
