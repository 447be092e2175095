// Multiplication of 16 rows by n columns in the layout of the tensor core's register fragments,
// which mma.sync and each warp of a wgmma share.
//
// The operands of all types are seen as rows of k bytes: register g of a lane's A fragment holds
// the four bytes from 4 * (lane % 4) + 16 * (g / 2) of row lane / 4 + 8 * (g % 2).
#pragma once

#include <cstdint>

#include "program.h"
#include "types.h"

namespace ptx {

constexpr int kMaxK = 32;  // elements: 32 bytes
constexpr int kMaxN = 256;

struct MatrixOp {
  Type d = Type::f32, a = Type::bf16, b = Type::bf16;  // d: f32, f16 or s32
  int n = 8, k = 16;
  bool negate_a = false, negate_b = false;
  bool saturate = false;    // of s32
  bool accumulate = true;   // false: d = a * b
  bool coarse_fp8 = false;  // sum e4m3 and e5m2 as Hopper's wgmma does
};

// Elements as floats, in the order in which the inner loop reads them.
struct OperandA {  // 16 rows: [row / 8][k][lane], a row in four lanes
  alignas(64) float values[2 * kMaxK * kLanes];
  void set(int k_total, int row, int k, float value) {
    float* at = values + ((row / 8) * k_total + k) * kLanes + (row % 8) * 4;
    for (int i = 0; i < 4; ++i) at[i] = value;
  }
};
struct OperandB {  // n columns: [n / 8][n % 2][k][n % 8 / 2]
  alignas(64) float values[kMaxK * kMaxN];
  void set(int k_total, int column, int k, float value) {
    values[(((column / 8) * 2 + column % 2) * k_total + k) * 4 + column % 8 / 2] = value;
  }
};

// Decodes `count` elements that lie side by side.
void decode_elements(Type type, const uint8_t* bytes, int count, float* out);

// From registers: kbytes / 8 registers of A, kbytes / 16 of B, 32 lanes each.
void load_fragment_a(const MatrixOp& op, const uint32_t* const* registers, OperandA& out);
void load_fragment_b(const MatrixOp& op, const uint32_t* const* registers, OperandB& out);

// Registers of a lane's accumulator.
inline int accumulator_registers(const MatrixOp& op) {
  return op.d == Type::f16 ? op.n / 4 : op.n / 2;
}
// Column pair 8 * j + 2 * (lane % 4) of row lane / 4 + 8 * h lies in registers 4 * j + 2 * h and
// the next, or in the halves of register 2 * j + h. d may be c.
void multiply(const MatrixOp& op, const OperandA& a, const OperandB& b, uint32_t* const* d,
              const uint32_t* const* c);

// mma.m8n8k4 of f64: a 1, b 1, c 2, d 2 registers of 64 bits.
void multiply_f64(double* const* d, const double* a, const double* b, const double* const* c);

}  // namespace ptx
