// Where the operands of wgmma lie in shared memory.
#pragma once

#include <cstdint>
#include <string>

#include "matrix_math.h"
#include "swizzle.h"

namespace ptx {

struct MatrixDescriptor {
  uint32_t start = 0;                // 18 bits of the address in the CTA's window
  uint32_t leading = 0, stride = 0;  // byte offsets
  int base_offset = 0;               // of the swizzle's pattern
  Swizzle swizzle = Swizzle::none;
  explicit MatrixDescriptor(uint64_t bits);
};
// What is wrong with the descriptor, or empty.
std::string check(const MatrixDescriptor& m);

// An operand is `rows` rows (A) or columns (B) of 32 bytes along k, and lies in chunks of 16 bytes.
// K-major: chunk 2 * row + half; MN-major (16-bit types only): chunk 16 * (row / 8) + k.
constexpr int kMaxChunks = 2 * kMaxN;
inline int chunks_of(int rows) {
  return 2 * rows;
}
// The addresses of the chunks, swizzled.
void locate(const MatrixDescriptor& m, int rows, bool mn_major, uint32_t* addresses);

// One wgmma. A comes from chunks or, if there are none, from the registers of each warp.
struct WarpgroupOperands {
  bool a_mn_major = false, b_mn_major = false;
  const uint8_t* const* a_chunks = nullptr;
  const uint8_t* const* b_chunks = nullptr;
  const uint32_t* const* a_registers[4] = {};
  uint32_t* const* d[4] = {};
};
void multiply_warpgroup(const MatrixOp& op, const WarpgroupOperands& operands);

bool wgmma_has_n(int n, Type a);

}  // namespace ptx
