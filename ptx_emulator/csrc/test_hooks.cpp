// Entrances for the unit tests of the parts that need no machine.
#include <chrono>
#include <cstring>

#include "matrix_moves.h"
#include "tensor_map.h"
#include "wavefronts.h"
#include "wgmma_layout.h"

using namespace ptx;

namespace {

int report(const std::string& what, char* message, int size) {
  std::strncpy(message, what.c_str(), size - 1);
  return what.empty() ? 0 : 1;
}

MatrixOp make_op(const int32_t* f) {
  MatrixOp op;
  op.d = static_cast<Type>(f[0]);
  op.a = static_cast<Type>(f[1]);
  op.b = static_cast<Type>(f[2]);
  op.n = f[3];
  op.k = f[4];
  op.negate_a = f[5];
  op.negate_b = f[6];
  op.saturate = f[7];
  op.accumulate = f[8];
  op.coarse_fp8 = f[9];
  return op;
}

}  // namespace

extern "C" {

void ptx_test_wavefronts(const uint64_t* addresses, uint32_t mask, uint32_t bytes, int atomic,
                         uint32_t* needed, uint32_t* ideal) {
  const Wavefronts found = wavefronts(addresses, mask, bytes, atomic);
  *needed = found.needed;
  *ideal = found.ideal;
}

int ptx_test_type(const char* name) {
  return static_cast<int>(parse_type(name).value_or(Type::none));
}

int ptx_test_check_tensor_map(const TensorMapArguments* a, char* message, int size) {
  return report(check(*a), message, size);
}
int ptx_test_encode_tensor_map(const TensorMapArguments* a, void* out, char* message, int size) {
  TensorMap map{};
  const int rc = report(encode(*a, map).value_or(""), message, size);
  std::memcpy(out, &map, sizeof(map));
  return rc;
}
int ptx_test_check_encoded(const void* bytes, char* message, int size) {
  TensorMap map;
  std::memcpy(&map, bytes, sizeof(map));
  return report(check(map), message, size);
}
// facts: row pitch, box bytes, extent, OnLoad, Fill
void ptx_test_tensor_map_facts(const void* bytes, int64_t* facts) {
  TensorMap m;
  std::memcpy(&m, bytes, sizeof(m));
  facts[0] = m.row_pitch();
  facts[1] = m.box_bytes();
  facts[2] = m.shared_extent();
  facts[3] = static_cast<int>(m.on_load());
  facts[4] = static_cast<int>(m.fill());
}
// Four numbers a run; returns how many runs there are.
int ptx_test_walk(const void* bytes, const int32_t* coordinates, uint64_t shared, uint64_t* out,
                  int capacity) {
  TensorMap map;
  std::memcpy(&map, bytes, sizeof(map));
  int n = 0;
  for_each_run(map, coordinates, shared, [&](const Run& r) {
    if (n < capacity) {
      const uint64_t row[] = {r.global, r.shared, r.bytes, r.in_bounds};
      std::memcpy(out + 4 * n, row, sizeof(row));
    }
    ++n;
  });
  return n;
}

int ptx_test_wgmma_has_n(int n, int type) {
  return wgmma_has_n(n, static_cast<Type>(type));
}
int ptx_test_descriptor(uint64_t bits, int rows, int mn_major, uint32_t* addresses, char* message,
                        int size) {
  const MatrixDescriptor m(bits);
  locate(m, rows, mn_major, addresses);
  return report(check(m), message, size);
}

// memory is the shared window from address 0. registers_a, unless null, and d are
// [warp][register][lane].
void ptx_test_wgmma(const int32_t* fields, uint64_t a, uint64_t b, int a_mn_major, int b_mn_major,
                    const uint8_t* memory, const uint32_t* registers_a, uint32_t* d) {
  const MatrixOp op = make_op(fields);
  const uint8_t* chunks[2][kMaxChunks];
  uint32_t addresses[kMaxChunks];
  const auto chunks_at = [&](uint64_t descriptor, int rows, bool mn_major, int which) {
    locate(MatrixDescriptor(descriptor), rows, mn_major, addresses);
    for (int i = 0; i < chunks_of(rows); ++i) chunks[which][i] = memory + addresses[i];
    return chunks[which];
  };
  WarpgroupOperands operands;
  operands.a_mn_major = a_mn_major;
  operands.b_mn_major = b_mn_major;
  const uint32_t* from[4][4];
  uint32_t* to[4][kMaxN / 2];
  const int count = accumulator_registers(op);
  for (int w = 0; w < 4; ++w) {
    for (int i = 0; registers_a && i < 4; ++i) from[w][i] = registers_a + (w * 4 + i) * kLanes;
    for (int i = 0; i < count; ++i) to[w][i] = d + (w * count + i) * kLanes;
    operands.a_registers[w] = from[w];
    operands.d[w] = to[w];
  }
  if (!registers_a) operands.a_chunks = chunks_at(a, 64, a_mn_major, 0);
  operands.b_chunks = chunks_at(b, op.n, b_mn_major, 1);
  multiply_warpgroup(op, operands);
}
double ptx_test_wgmma_rate(const int32_t* fields, uint64_t a, uint64_t b, const uint8_t* memory,
                           uint32_t* d, int count) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) ptx_test_wgmma(fields, a, b, 0, 0, memory, nullptr, d);
  return count / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Registers are [register][lane].
void ptx_test_mma(const int32_t* fields, const uint32_t* a, const uint32_t* b, const uint32_t* c,
                  uint32_t* d) {
  const MatrixOp op = make_op(fields);
  static OperandA operand_a;
  static OperandB operand_b;
  const uint32_t *in_a[4], *in_b[4], *in_c[4];
  uint32_t* out[4];
  for (int i = 0; i < 4; ++i) {
    in_a[i] = a + i * kLanes;
    in_b[i] = b + i * kLanes;
    in_c[i] = c + i * kLanes;
    out[i] = d + i * kLanes;
  }
  load_fragment_a(op, in_a, operand_a);
  load_fragment_b(op, in_b, operand_b);
  multiply(op, operand_a, operand_b, out, in_c);
}
void ptx_test_mma_f64(const double* a, const double* b, const double* c, double* d) {
  const double* in[] = {c, c + kLanes};
  double* out[] = {d, d + kLanes};
  multiply_f64(out, a, b, in);
}

void ptx_test_rows_to_lanes(const uint8_t* rows, int transposed, uint32_t* lanes) {
  const uint8_t* at[8];
  for (int i = 0; i < 8; ++i) at[i] = rows + 16 * i;
  rows_to_lanes(at, transposed, lanes);
}
void ptx_test_lanes_to_rows(const uint32_t* lanes, int transposed, uint8_t* rows) {
  lanes_to_rows(lanes, transposed, reinterpret_cast<uint8_t (*)[16]>(rows));
}

}  // extern "C"
