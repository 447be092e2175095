#include "wgmma_layout.h"

#include <cstring>

namespace ptx {

MatrixDescriptor::MatrixDescriptor(uint64_t bits) {
  const auto field = [&](int low) { return static_cast<uint32_t>(bits >> low & 0x3fff) << 4; };
  constexpr Swizzle kModes[] = {Swizzle::none, Swizzle::b128, Swizzle::b64, Swizzle::b32};
  start = field(0);
  leading = field(16);
  stride = field(32);
  base_offset = static_cast<int>(bits >> 49 & 7);
  swizzle = kModes[bits >> 62];
}

std::string check(const MatrixDescriptor& m) {
  if (m.base_offset) return "a matrix descriptor with a base offset is not modelled";
  return {};
}

// The canonical layouts, in chunks, with W chunks to the swizzle's span:
//   K-major   none      (8, m) x 2 : (1, stride) x leading
//             swizzled  (8, m) x 2 : (W, stride) x 1
//   MN-major  none      (1, m) x (8, 2) : (., stride) x (1, leading)
//             swizzled  (W, m) x (8, 2) : (1, leading) x (W, stride)
void locate(const MatrixDescriptor& m, int rows, bool mn_major, uint32_t* addresses) {
  const uint32_t span = span_of(m.swizzle), wide = span / 16;
  const bool plain = m.swizzle == Swizzle::none;
  if (!mn_major) {
    for (int row = 0; row < rows; ++row)
      for (uint32_t half = 0; half < 2; ++half)
        *addresses++ = static_cast<uint32_t>(swizzled(
            m.start + row % 8 * span + row / 8 * m.stride + half * (plain ? m.leading : 16),
            m.swizzle));
    return;
  }
  for (uint32_t block = 0; block < static_cast<uint32_t>(rows) / 8; ++block) {
    const uint32_t first =
        m.start + (plain ? block * m.stride : block % wide * 16 + block / wide * m.leading);
    for (uint32_t k = 0; k < 16; ++k)
      *addresses++ = static_cast<uint32_t>(
          swizzled(first + k % 8 * span + k / 8 * (plain ? m.leading : m.stride), m.swizzle));
  }
}

namespace {

// set(row, k, value) for all elements; rows of a block of eight vary fastest.
template <bool kMnMajor, class Set>
void decode_chunks(Type type, int k_total, int rows, bool negate, const uint8_t* const* chunks,
                   Set set) {
  constexpr int kChunks = 16, kBytes = 16;  // of a block
  for (int block = 0; block < rows / 8; ++block) {
    uint8_t bytes[kChunks * kBytes];
    for (int c = 0; c < kChunks; ++c)
      std::memcpy(bytes + c * kBytes, chunks[kChunks * block + c], kBytes);
    alignas(64) float values[8 * kMaxK];  // [row][k] or [k][row]
    decode_elements(type, bytes, 8 * k_total, values);
    for (int i = 0; negate && i < 8 * k_total; ++i) values[i] = -values[i];
    for (int k = 0; k < k_total; ++k)
      for (int row = 0; row < 8; ++row)
        set(8 * block + row, k, values[kMnMajor ? 8 * k + row : row * k_total + k]);
  }
}

template <class Set>
void decode_chunks(Type type, int k_total, int rows, bool mn_major, bool negate,
                   const uint8_t* const* chunks, Set set) {
  mn_major ? decode_chunks<true>(type, k_total, rows, negate, chunks, set)
           : decode_chunks<false>(type, k_total, rows, negate, chunks, set);
}

}  // namespace

void multiply_warpgroup(const MatrixOp& op, const WarpgroupOperands& operands) {
  static thread_local OperandA a[4];
  static thread_local OperandB b;
  if (operands.a_chunks)
    decode_chunks(op.a, op.k, 64, operands.a_mn_major, op.negate_a, operands.a_chunks,
                  [k_total = op.k](int row, int k, float value) {
                    a[row / 16].set(k_total, row % 16, k, value);
                  });
  else
    for (int w = 0; w < 4; ++w) load_fragment_a(op, operands.a_registers[w], a[w]);
  decode_chunks(
      op.b, op.k, op.n, operands.b_mn_major, op.negate_b, operands.b_chunks,
      [k_total = op.k](int column, int k, float value) { b.set(k_total, column, k, value); });
  for (int w = 0; w < 4; ++w) multiply(op, a[w], b, operands.d[w], operands.d[w]);
}

bool wgmma_has_n(int n, Type a) {
  if (n < 8 || n > kMaxN || n % 8) return false;
  // The integer types: multiples of 16, and 8 and 24.
  return (a != Type::s8 && a != Type::u8) || n % 16 == 0 || n == 8 || n == 24;
}

}  // namespace ptx
