// mma.sync, ldmatrix, stmatrix, movmatrix.
#include <cstring>

#include "engines.h"
#include "matrix_math.h"
#include "matrix_moves.h"

namespace ptx {
namespace {

// small: matrices; extra: transposed; more: the registers. Lanes 8 * i to 8 * i + 7 have the
// addresses of the rows of matrix i.
Mask address_lanes(const Instr& in) {
  return in.small == 4 ? kAllLanes : (Mask{1} << (8 * in.small)) - 1;
}

// Calls move(row, bytes in shared memory) for the rows. All lanes take part in each row's access,
// so each of them must know of what came before.
template <class Move>
void access_rows(Warp& w, const Instr& in, Mask mask, bool writes, Move move) {
  Access a;
  find_addresses(w, in, mask & address_lanes(in), 16, a);
  check_alignment(w, a, 16);
  if (w.profile) note_access(w, a, {!writes, writes, Order::weak, Scope::cta});
  for_each_lane(a.mask, [&](int l) {
    if (a.at[l] - kSharedWindow >= kWindowBytes)
      throw Fault(Fault::memory, place_of(*w.machine, a.at[l]) + " is not in shared memory", l);
    const Block& block = locate(w, a.at[l], 16, l, writes ? "a write" : "a read");
    if (!writes && !block.all_written(a.at[l], 16)) never_written(w, a.at[l], 16, l);
    if (w.clock) {
      Access row;
      row.mask = mask;
      row.bytes = 16;
      row.shape = Access::uniform;
      row.at[__builtin_ctz(mask)] = a.at[l];
      check_races(w, block, row, {!writes, writes, Order::weak, Scope::cta});
    }
    move(l, block.at(a.at[l]));
    if (writes) block.set_written(a.at[l], 16);
  });
}

Flow load_matrix(Warp& w, const Instr& in, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  uint8_t rows[kLanes][16] = {};
  access_rows(w, in, mask, false,
              [&](int l, const uint8_t* bytes) { std::memcpy(rows[l], bytes, 16); });
  const Ref* refs = program_of(w).refs.data() + in.more;
  for (int m = 0; m < in.small; ++m) {
    const uint8_t* at[8];
    for (int r = 0; r < 8; ++r) at[r] = rows[8 * m + r];
    uint32_t lanes[kLanes];
    rows_to_lanes(at, in.extra, lanes);
    if (refs[m] != kNoRef)
      write_lanes(w.out<uint32_t>(refs[m]), mask, [&](int l) { return lanes[l]; });
  }
  return Flow::next;
}

Flow store_matrix(Warp& w, const Instr& in, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  uint8_t rows[kLanes][16];
  const Ref* refs = program_of(w).refs.data() + in.more;
  for (int m = 0; m < in.small; ++m) lanes_to_rows(w.in<uint32_t>(refs[m]), in.extra, rows + 8 * m);
  access_rows(w, in, mask, true, [&](int l, uint8_t* bytes) { std::memcpy(bytes, rows[l], 16); });
  w.machine->progress();
  return Flow::next;
}

Flow move_matrix(Warp& w, const Instr& in, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  uint8_t rows[8][16];
  lanes_to_rows(w.in<uint32_t>(in.a), false, rows);
  const uint8_t* at[8];
  for (int r = 0; r < 8; ++r) at[r] = rows[r];
  uint32_t lanes[kLanes];
  rows_to_lanes(at, true, lanes);
  write_lanes(w.out<uint32_t>(in.d), mask, [&](int l) { return lanes[l]; });
  return Flow::next;
}

void take_aligned(Encoding& e) {
  if (!e.take("sync") || !e.take("aligned")) e.fail(".sync.aligned is expected");
}

void encode_move(Encoding& e, bool loads) {
  take_aligned(e);
  if (!e.take("m8n8")) e.fail("only .m8n8 is of sm_90");
  const int count = e.take_one_of({"x1", "x2", "x4"});
  if (count < 0) e.fail("a number of matrices is missing");
  e.out.small = static_cast<uint8_t>(1 << count);
  e.out.extra = e.take("trans");
  take_state_space(e);
  if (!e.take("b16")) e.fail("only .b16 is of sm_90");
  e.expect_operands(2, 2);
  encode_address(e, loads ? 1 : 0);
  std::vector<Ref> refs;
  for (const Operand& o : elements_of(e.operand(loads ? 0 : 1)))
    refs.push_back(loads ? e.destination(o, Type::b32) : e.source(o, Type::b32));
  if (refs.size() != e.out.small) e.fail("wrong number of registers");
  e.further(refs);
  e.out.run = loads ? load_matrix : store_matrix;
}

void movmatrix(Encoding& e) {
  take_aligned(e);
  if (!e.take("m8n8") || !e.take("trans") || !e.take("b16")) e.fail(".m8n8.trans.b16 is expected");
  e.expect_operands(2, 2);
  e.out.d = e.destination(0, Type::b32);
  e.out.a = e.source(1, Type::b32);
  e.out.run = move_matrix;
}

// mma. imm: index of the shape; further operands: D, A, B, C; small: registers of A.
struct Shape {
  const char* name;
  int k;
};
constexpr Shape kShapes[] = {{"m16n8k4", 4}, {"m16n8k8", 8}, {"m16n8k16", 16}, {"m16n8k32", 32}};

// extra: d, a, b as bytes, k above them; target: 1 saturates
Flow multiply_fragments(Warp& w, const Instr& in, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  if (mask != kAllLanes) throw Fault(Fault::unsupported, "mma needs a whole warp");
  MatrixOp op;
  op.d = static_cast<Type>(in.extra & 255);
  op.a = static_cast<Type>(in.extra >> 8 & 255);
  op.b = static_cast<Type>(in.extra >> 16 & 255);
  op.k = static_cast<int>(in.extra >> 24);
  op.saturate = in.target;
  const int c_count = accumulator_registers(op), a_count = in.small, b_count = a_count / 2;
  const Ref* refs = program_of(w).refs.data() + in.more;
  uint32_t* d[4];
  const uint32_t *a[4], *b[4], *c[4];
  for (int i = 0; i < c_count; ++i) d[i] = w.out<uint32_t>(refs[i]);
  refs += c_count;
  for (int i = 0; i < a_count; ++i) a[i] = w.in<uint32_t>(refs[i]);
  refs += a_count;
  for (int i = 0; i < b_count; ++i) b[i] = w.in<uint32_t>(refs[i]);
  refs += b_count;
  for (int i = 0; i < c_count; ++i) c[i] = w.in<uint32_t>(refs[i]);
  static thread_local OperandA operand_a;
  static thread_local OperandB operand_b;
  load_fragment_a(op, a, operand_a);
  load_fragment_b(op, b, operand_b);
  multiply(op, operand_a, operand_b, d, c);
  return Flow::next;
}

Flow multiply_doubles(Warp& w, const Instr& in, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  if (mask != kAllLanes) throw Fault(Fault::unsupported, "mma needs a whole warp");
  const Ref* refs = program_of(w).refs.data() + in.more;
  double* d[] = {w.out<double>(refs[0]), w.out<double>(refs[1])};
  const double* c[] = {w.in<double>(refs[4]), w.in<double>(refs[5])};
  multiply_f64(d, w.in<double>(refs[2]), w.in<double>(refs[3]), c);
  return Flow::next;
}

void take_registers(Encoding& e, int operand, int count, Type type, bool written,
                    std::vector<Ref>& refs) {
  const auto items = elements_of(e.operand(operand));
  if (static_cast<int>(items.size()) != count) e.fail("wrong number of registers");
  for (const Operand& o : items) {
    refs.push_back(written ? e.destination(o, type) : e.source(o, type));
    if (refs.back() == kNoRef) e.fail("a result cannot be left out");
  }
}

bool types_fit(Type d, Type a, Type b, Type c, int k) {
  const auto is = [](Type t, Type x, Type y) { return t == x || t == y; };
  const int kbytes = k * bytes_of(a);
  if ((kbytes != 16 && kbytes != 32) || bytes_of(b) != bytes_of(a) || d != c) return false;
  if (a == Type::f16) return b == a && is(d, Type::f16, Type::f32);
  if (a == Type::bf16 || a == Type::tf32) return b == a && d == Type::f32;
  if (is(a, Type::e4m3, Type::e5m2))
    return is(b, Type::e4m3, Type::e5m2) && is(d, Type::f16, Type::f32);
  return is(a, Type::s8, Type::u8) && is(b, Type::s8, Type::u8) && d == Type::s32;
}

void mma(Encoding& e) {
  take_aligned(e);
  e.expect_operands(4, 4);
  std::vector<Ref> refs;
  if (e.take("m8n8k4")) {
    if (!e.take("row") || !e.take("col")) e.fail(".row.col is expected");
    for (int i = 0; i < 4; ++i)
      if (e.take_type() != Type::f64) e.fail(".m8n8k4 is modelled for .f64 only");
    for (int i : {0, 1, 2, 3})
      take_registers(e, i, i == 1 || i == 2 ? 1 : 2, Type::f64, i == 0, refs);
    e.further(refs);
    e.out.run = multiply_doubles;
    return;
  }
  int k = 0;
  for (const Shape& s : kShapes)
    if (e.take(s.name)) k = s.k;
  if (!k) e.fail("this shape is not modelled");
  if (!e.take("row") || !e.take("col")) e.fail(".row.col is expected");
  e.out.target = e.take("satfinite");
  const Type d = e.take_type(), a = e.take_type(), b = e.take_type(), c = e.take_type();
  if (!types_fit(d, a, b, c, k)) e.fail("no such mma, or one that is not modelled");
  if (e.out.target && d != Type::s32) e.fail(".satfinite is for .s32");
  const int a_count = k * bytes_of(a) / 8;
  const Type accumulator = d == Type::f16 ? Type::b32 : d;
  take_registers(e, 0, d == Type::f16 ? 2 : 4, accumulator, true, refs);
  take_registers(e, 1, a_count, Type::b32, false, refs);
  take_registers(e, 2, a_count / 2, Type::b32, false, refs);
  take_registers(e, 3, d == Type::f16 ? 2 : 4, accumulator, false, refs);
  e.further(refs);
  e.out.small = static_cast<uint8_t>(a_count);
  e.out.extra = static_cast<uint32_t>(d) | static_cast<uint32_t>(a) << 8 |
                static_cast<uint32_t>(b) << 16 | static_cast<uint32_t>(k) << 24;
  e.out.run = multiply_fragments;
}

}  // namespace

void add_matrix_opcodes(Opcodes& ops) {
  ops["mma"] = mma;
  ops["ldmatrix"] = [](Encoding& e) { encode_move(e, true); };
  ops["stmatrix"] = [](Encoding& e) { encode_move(e, false); };
  ops["movmatrix"] = movmatrix;
}

}  // namespace ptx
