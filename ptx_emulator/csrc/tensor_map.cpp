#include "tensor_map.h"

namespace ptx {
namespace {

// The driver's CUtensorMapDataType.
enum DataType {
  kUint8,
  kUint16,
  kUint32,
  kInt32,
  kUint64,
  kInt64,
  kFloat16,
  kFloat32,
  kFloat64,
  kBFloat16,
  kFloat32Ftz,
  kTFloat32,
  kTFloat32Ftz,
  k16U4Align8,
  k16U4Align16,
  k16U6Align16,
  kDataTypes
};
// CUtensorMapSwizzle has three more modes, of sm_100.
enum { kSwizzles = 4, kDriverSwizzles = 7 };
enum { kInterleaveNone, kInterleave16, kInterleave32, kInterleaves };
enum { kPromotions = 4, kFills = 2 };

bool is_packed(int type) {
  return type >= k16U4Align8;
}
bool is_float(int type) {
  return type >= kFloat16 && type <= kTFloat32Ftz;
}
int bits_of(int type) {
  constexpr uint8_t kBits[kDataTypes] = {8,  16, 32, 32, 64, 64, 16, 32,
                                         64, 16, 32, 32, 32, 4,  4,  6};
  return kBits[type];
}

std::string text(const char* argument, int index, const char* what, uint64_t value) {
  std::string out = argument;
  if (index >= 0) out.append("[").append(std::to_string(index)).append("]");
  return out.append(" ").append(what).append(" (").append(std::to_string(value)).append(")");
}

std::string check_sizes(const TensorMapArguments& a) {
  const bool wide =
      a.interleave == kInterleave32 || a.data_type == k16U4Align16 || a.data_type == k16U6Align16;
  const uint64_t unit = wide ? 32 : 16;
  const char* multiple = wide ? "must be a multiple of 32" : "must be a multiple of 16";
  if (a.address % unit) return text("globalAddress", -1, multiple, a.address);
  for (int d = 0; d < a.rank; ++d) {
    if (a.dims[d] == 0 || a.dims[d] > uint64_t{1} << 32)
      return text("globalDim", d, "must be in 1 .. 2^32", a.dims[d]);
    if (a.box[d] == 0 || a.box[d] > 256) return text("boxDim", d, "must be in 1 .. 256", a.box[d]);
    if ((d > 0 || a.interleave != kInterleaveNone) &&
        (a.element_strides[d] == 0 || a.element_strides[d] > 8))
      return text("elementStrides", d, "must be in 1 .. 8", a.element_strides[d]);
  }
  for (int d = 0; d + 1 < a.rank; ++d) {
    if (a.strides[d] % unit) return text("globalStrides", d, multiple, a.strides[d]);
    if (a.strides[d] >= uint64_t{1} << 40)
      return text("globalStrides", d, "must be less than 2^40", a.strides[d]);
  }
  return {};
}

std::string check_packed(const TensorMapArguments& a) {
  if (a.data_type == k16U4Align8)
    return a.dims[0] % 2 ? text("globalDim", 0, "must be even for 16U4_ALIGN8B", a.dims[0]) : "";
  if (a.dims[0] % 128)
    return text("globalDim", 0, "must be a multiple of 128 for this type", a.dims[0]);
  if (a.box[0] != 128) return text("boxDim", 0, "must be 128 for this type", a.box[0]);
  if (a.data_type == k16U6Align16 && a.interleave != kInterleaveNone)
    return text("interleave", -1, "must be NONE for 16U6_ALIGN16B", a.interleave);
  return {};
}

std::string check_box(const TensorMapArguments& a) {
  if (a.interleave != kInterleaveNone)
    return a.interleave == kInterleave32 && a.swizzle != 1
               ? text("swizzle", -1, "must be 32B with an interleave of 32B", a.swizzle)
               : "";
  const uint64_t row_bits = uint64_t{a.box[0]} * bits_of(a.data_type);
  if (row_bits % 128) return text("boxDim", 0, "must span a multiple of 16 bytes", row_bits / 8);
  const uint64_t span = a.swizzle == 0 ? 0 : a.swizzle < 3 ? 16u << a.swizzle : 128;
  if (span && row_bits / 8 > span)
    return text("boxDim", 0, "spans more bytes than the swizzle", row_bits / 8);
  return {};
}

}  // namespace

std::string check(const TensorMapArguments& a) {
  const auto outside = [](int32_t value, int count) { return value < 0 || value >= count; };
  if (outside(a.data_type, kDataTypes))
    return text("tensorDataType", -1, "is no CUtensorMapDataType", a.data_type);
  if (outside(a.interleave, kInterleaves))
    return text("interleave", -1, "is no CUtensorMapInterleave", a.interleave);
  if (outside(a.swizzle, kDriverSwizzles))
    return text("swizzle", -1, "is no CUtensorMapSwizzle", a.swizzle);
  if (outside(a.l2_promotion, kPromotions))
    return text("l2Promotion", -1, "is no CUtensorMapL2promotion", a.l2_promotion);
  if (outside(a.oob_fill, kFills))
    return text("oobFill", -1, "is no CUtensorMapFloatOOBfill", a.oob_fill);
  if (a.rank < 1 || a.rank > kMaxRank) return text("tensorRank", -1, "must be in 1 .. 5", a.rank);
  if (a.interleave != kInterleaveNone && a.rank < 3)
    return text("tensorRank", -1, "must be at least 3 with an interleave", a.rank);
  if (a.oob_fill && !is_float(a.data_type))
    return text("oobFill", -1, "of NaN needs a floating-point type", a.oob_fill);
  std::string wrong = check_sizes(a);
  if (wrong.empty() && is_packed(a.data_type)) wrong = check_packed(a);
  return wrong.empty() ? check_box(a) : wrong;
}

std::optional<std::string> encode(const TensorMapArguments& a, TensorMap& out) {
  if (is_packed(a.data_type)) return "packed 4- and 6-bit types are of sm_100";
  if (a.swizzle >= kSwizzles) return "swizzles in atoms of more than 16 bytes are of sm_100";
  if (a.interleave != kInterleaveNone) return "interleaved layouts are not modelled";
  out = TensorMap{};
  out.magic = TensorMap::kMagic;
  out.address = a.address;
  out.rank = static_cast<uint8_t>(a.rank);
  out.data_type = static_cast<uint8_t>(a.data_type);
  out.element_bytes = static_cast<uint8_t>(bits_of(a.data_type) / 8);
  out.strides[0] = out.element_bytes;
  for (int d = 0; d < kMaxRank; ++d) {
    const bool there = d < a.rank;
    if (there && d > 0) out.strides[d] = a.strides[d - 1];
    out.last[d] = there ? static_cast<uint32_t>(a.dims[d] - 1) : 0;
    out.box[d] = there ? static_cast<uint16_t>(a.box[d]) : 1;
    // The driver ignores the element stride of dimension 0.
    out.step[d] = there && d > 0 ? static_cast<uint8_t>(a.element_strides[d]) : 1;
  }
  out.swizzle = static_cast<Swizzle>(a.swizzle);
  out.oob_fill = static_cast<uint8_t>(a.oob_fill);
  return std::nullopt;
}

std::string check(const TensorMap& m) {
  if (m.magic != TensorMap::kMagic) return "these bytes are no tensor map";
  TensorMapArguments a{};
  a.data_type = m.data_type;
  a.rank = m.rank;
  if (m.rank < 1 || m.rank > kMaxRank) return "the tensor map's rank is not in 1 .. 5";
  a.address = m.address;
  for (int d = 0; d < m.rank; ++d) {
    a.dims[d] = uint64_t{m.last[d]} + 1;
    a.box[d] = m.box[d];
    a.element_strides[d] = m.step[d];
    if (d > 0) a.strides[d - 1] = m.strides[d];
  }
  a.swizzle = static_cast<int32_t>(m.swizzle);
  a.interleave = m.interleave;
  a.oob_fill = m.oob_fill;
  const std::string wrong = check(a);
  return wrong.empty() ? wrong : "the tensor map's " + wrong;
}

uint32_t TensorMap::row_pitch() const {
  return swizzle == Swizzle::none ? row_bytes() : span_of(swizzle);
}

uint32_t TensorMap::box_bytes() const {
  uint32_t bytes = row_bytes();
  for (int d = 1; d < rank; ++d) bytes *= rows_of(d);
  return bytes;
}

uint32_t TensorMap::shared_extent() const {
  return box_bytes() / row_bytes() * row_pitch();
}

OnLoad TensorMap::on_load() const {
  switch (data_type) {
    case kFloat32Ftz: return OnLoad::flush;
    case kTFloat32: return OnLoad::tf32;
    case kTFloat32Ftz: return OnLoad::tf32_flush;
    default: return OnLoad::nothing;
  }
}

Fill TensorMap::fill() const {
  if (!oob_fill) return Fill::zero;
  switch (data_type) {
    case kFloat16: return Fill::nan16;
    case kBFloat16: return Fill::nan_bf16;
    case kFloat64: return Fill::nan64;
    default: return Fill::nan32;
  }
}

}  // namespace ptx
