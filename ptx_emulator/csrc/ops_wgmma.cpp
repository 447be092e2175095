// wgmma.*
#include <charconv>
#include <cstring>

#include "async_copy.h"
#include "profile.h"
#include "wgmma_state.h"

namespace ptx {
namespace {

constexpr int kWarps = 4;

// Instr::imm holds the operation; a, b: descriptors (a may be none); c: scale-d. Further operands:
// the accumulator, then A.
struct Code {
  uint8_t d, a, b, k;
  uint16_t n;
  bool negate_a : 1, negate_b : 1, saturate : 1, a_mn_major : 1, b_mn_major : 1;
};
static_assert(sizeof(Code) <= sizeof(Instr::imm));

Code code_of(const Instr& in) {
  Code c;
  std::memcpy(&c, &in.imm, sizeof(c));
  return c;
}

Warpgroup& warpgroup_of(Warp& w) {
  auto& all = engines_of(*w.cta).warpgroups;
  const size_t index = static_cast<size_t>(w.index) / kWarps;
  while (all.size() <= index) all.push_back(std::make_unique<Warpgroup>());
  return *all[index];
}

void check_warpgroup(const Warp& w) {
  if (w.alive != kAllLanes ||
      (w.index / kWarps + 1) * kWarps > static_cast<int>(w.cta->warps.size()))
    throw Fault(Fault::unsupported, "wgmma needs four whole warps");
}

uint64_t uniform(const Warp& w, Ref ref, const char* what) {
  const uint64_t* lanes = w.in<uint64_t>(ref);
  for (int l = 1; l < kLanes; ++l)
    if (lanes[l] != lanes[0])
      throw Fault(Fault::race, std::string(what) + " differs between the lanes of the warp", l);
  return lanes[0];
}

// The 16-byte chunks of an operand in the CTA's shared memory.
std::vector<const uint8_t*> find_chunks(Warp& w, uint64_t bits, int rows, bool mn_major,
                                        const char* what) {
  const MatrixDescriptor m(bits);
  const std::string wrong = check(m);
  if (!wrong.empty()) throw Fault(Fault::unsupported, wrong);
  uint32_t addresses[kMaxChunks];
  locate(m, rows, mn_major, addresses);
  const Block& shared = w.cta->shared;
  const uint64_t window = kSharedWindow + (uint64_t{w.cta->rank} << kRankShift);
  const size_t count = chunks_of(rows);
  std::vector<const uint8_t*> chunks(count);
  const uint8_t* const data = shared.data;
  const uint64_t* const written = shared.written;
  const uint64_t bytes = shared.end - shared.begin;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t at = window + addresses[i], offset = at - shared.begin;
    if (bytes < 16 || offset > bytes - 16)
      throw Fault(Fault::memory, std::string(what) + " of wgmma at " + place_of(*w.machine, at) +
                                     " lies outside the CTA's shared memory");
    // Sixteen bits of a word: the bytes are aligned.
    if ((~written[offset / 64] >> offset % 64 & 0xffff) != 0) never_written(w, at, 16, 0);
    chunks[i] = data + offset;
  }
  return chunks;
}

// What all four warps know, each with what it did itself.
const Published& common_knowledge(Cta& cta, int first_warp, Warpgroup& group) {
  bool same = group.common.known != nullptr;
  for (int i = 0; i < kWarps; ++i) {
    const WarpClock& c = *cta.warps[first_warp + i]->clock;
    same &= group.versions[i] == c.version && group.times[i] == c.now;
    group.versions[i] = c.version;
    group.times[i] = c.now;
  }
  if (same) return group.common;
  auto all = std::make_shared<Knowledge>(static_cast<uint32_t>(cta.cluster->index));
  for (int i = 0; i < kWarps; ++i) {
    Knowledge one(all->cluster());
    const Warp& w = *cta.warps[first_warp + i];
    w.machine->races->publish(w, kAllLanes, one);
    i == 0 ? all->join(one) : all->meet(one);
  }
  group.common = Published{};
  group.common.known = std::move(all);
  group.common.agent = ~Agent{0} >> 3;  // nobody
  return group.common;
}

void note_reads(Cta& cta, const WgmmaOp& op) {
  const Block& shared = cta.shared;
  Races& races = *cta.warps[0]->machine->races;
  const Tile b{op.descriptor_b, op.chunks_b.size(), 15, op.b_mn_major};
  races.read_tile(op.by_all, shared, b, op.chunks_b.data());
  const size_t per_warp = op.chunks_a.size() / kWarps;
  for (size_t i = 0; i < kWarps && per_warp; ++i) {
    const Tile a{op.descriptor_a, per_warp, Mask{1} << i, op.a_mn_major};
    races.read_tile(op.by_warp[i], shared, a, op.chunks_a.data() + i * per_warp);
  }
}

void run_front(Cta& cta, int first_warp, Warpgroup& group) {
  WgmmaOp& front = group.queue.front();
  const int d_count = accumulator_registers(front.op), a_count = front.instr->count - d_count;
  WarpgroupOperands operands;
  operands.a_mn_major = front.a_mn_major;
  operands.b_mn_major = front.b_mn_major;
  if (!front.chunks_a.empty()) operands.a_chunks = front.chunks_a.data();
  operands.b_chunks = front.chunks_b.data();
  uint32_t* d[kWarps][kMaxN / 2];
  const uint32_t* a[kWarps][4];
  for (int i = 0; i < kWarps; ++i) {
    Warp& w = *cta.warps[first_warp + i];
    const Ref* refs = program_of(w).refs.data() + front.instr->more;
    uint8_t* registers = is_eager(w) ? w.base[0] : wgmma_state_of(w).shadow.get();
    for (int r = 0; r < d_count; ++r) d[i][r] = reinterpret_cast<uint32_t*>(registers + refs[r]);
    for (int r = 0; r < a_count; ++r) a[i][r] = w.in<uint32_t>(refs[d_count + r]);
    operands.d[i] = d[i];
    operands.a_registers[i] = a[i];
  }
  multiply_warpgroup(front.op, operands);
  group.queue.pop_front();
  ++group.completed;
  for (int i = 0; i < kWarps; ++i) cta.warps[first_warp + i]->wake(Wait::async, kWgmmaKey);
}

void schedule(Warp& w, Warpgroup& group) {
  while (!group.scheduled && !group.queue.empty() && group.queue.front().issued == kWarps) {
    group.scheduled = true;
    run_later(w, group.queue.front().pc, 0, "a wgmma", *w.cta, [&w, &group] {
      run_front(*w.cta, w.index / kWarps * kWarps, group);
      group.scheduled = false;
      if (!is_eager(w)) schedule(w, group);
    });
  }
}

Flow multiply_async(Warp& w, const Instr& in, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  check_warpgroup(w);
  const Code code = code_of(in);
  WgmmaOp next;
  next.op.d = static_cast<Type>(code.d);
  next.op.a = static_cast<Type>(code.a);
  next.op.b = static_cast<Type>(code.b);
  next.op.n = code.n;
  next.op.k = code.k;
  next.op.negate_a = code.negate_a;
  next.op.negate_b = code.negate_b;
  next.op.saturate = code.saturate;
  next.op.coarse_fp8 = w.machine->options.coarse_fp8;
  const Mask scale = *w.in<Mask>(in.c);
  if (scale != 0 && scale != kAllLanes)
    throw Fault(Fault::race, "scale-d differs between the lanes of the warp");
  next.op.accumulate = scale != 0;
  next.a_mn_major = code.a_mn_major;
  next.b_mn_major = code.b_mn_major;
  next.instr = &in;
  next.pc = w.pc;
  if (in.a != kNoRef) next.descriptor_a = uniform(w, in.a, "a matrix descriptor");
  next.descriptor_b = uniform(w, in.b, "a matrix descriptor");

  WgmmaState& s = wgmma_state_of(w);
  const Ref* refs = program_of(w).refs.data() + in.more;
  const int d_count = accumulator_registers(next.op);
  const uint32_t shape = uint32_t{code.n} << 8 | code.k;
  if (w.machine->options.races) {
    if (!s.fenced) throw Fault(Fault::race, "a wgmma.fence is missing before the first wgmma");
    check_registers(w, s, {refs, in.count}, d_count, shape);
  }
  hold_registers(w, s, {refs, in.count}, d_count, shape);

  // A warp's share: 16 rows of A, and a quarter of B.
  if (w.profile)
    w.profile->read_operands(w, (in.a != kNoRef ? 16 * 32 : 0) + next.op.n * 32 / kWarps);

  Warpgroup& group = warpgroup_of(w);
  const uint64_t place = s.issued++ - group.completed;
  if (place == group.queue.size()) group.queue.push_back(std::move(next));
  WgmmaOp& op = group.queue[place];
  if (op.instr != &in || op.descriptor_a != next.descriptor_a ||
      op.descriptor_b != next.descriptor_b || op.op.accumulate != next.op.accumulate)
    throw Fault(Fault::race,
                "the four warps of the warpgroup issue different wgmma: the other one is at " +
                    program_of(w).describe(op.pc) +
                    (op.instr == &in ? ", with other descriptors or another scale-d" : ""));
  if (w.clock) {
    AsyncOperation& mine = op.by_warp[w.index % kWarps];
    mine = operation_of(w, kAllLanes);
    if (!group.agent)
      group.agent = w.machine->races->new_agent(
          *w.cta, "a wgmma of warpgroup " + std::to_string(w.index / 4), Proxy::async);
    mine.agent = group.agent;
    mine.time = static_cast<uint32_t>(s.issued);
  }
  if (++op.issued == kWarps) {
    if (w.clock) {
      op.by_all = op.by_warp[w.index % kWarps];
      op.by_all.view = common_knowledge(*w.cta, w.index / kWarps * kWarps, group);
    }
    if (in.a != kNoRef)
      op.chunks_a = find_chunks(w, op.descriptor_a, 64, op.a_mn_major, "matrix A");
    op.chunks_b = find_chunks(w, op.descriptor_b, op.op.n, op.b_mn_major, "matrix B");
    if (w.clock) note_reads(*w.cta, op);
    schedule(w, group);
  }
  return Flow::next;
}

Flow fence(Warp& w, const Instr&, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  check_warpgroup(w);
  WgmmaState& s = wgmma_state_of(w);
  ++s.interval;
  s.fenced = true;
  return Flow::next;
}

Flow commit(Warp& w, const Instr&, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  check_warpgroup(w);
  WgmmaState& s = wgmma_state_of(w);
  s.group_ends.push_back(s.issued);
  return Flow::next;
}

// imm: groups that may be left
Flow wait(Warp& w, const Instr& in, Mask mask) {
  if (!gather_warp(w, mask)) return Flow::regroup;
  check_warpgroup(w);
  WgmmaState& s = wgmma_state_of(w);
  const size_t groups = s.group_ends.size(), left = static_cast<size_t>(in.imm);
  if (groups <= left) return Flow::next;
  const uint64_t target = s.group_ends[groups - left - 1];
  if (warpgroup_of(w).completed < target) return w.park(Wait::async, mask, w.pc, 0, kWgmmaKey);
  s.group_ends.erase(s.group_ends.begin(), s.group_ends.end() - static_cast<ptrdiff_t>(left));
  s.settled = std::max(s.settled, target);
  if (w.clock && warpgroup_of(w).agent)
    // A group is the warpgroup's, so a warp that has waited for it has waited for all four warps'
    // part; pipelines rely on that and let one thread of a warpgroup release a stage.
    w.machine->races->observe(w, kAllLanes, warpgroup_of(w).agent, static_cast<uint32_t>(target));
  release_registers(w, s);
  return Flow::next;
}

void take_aligned(Encoding& e) {
  if (!e.take("sync") || !e.take("aligned")) e.fail(".sync.aligned is expected");
}

// ".m64n<N>k<K>"
void take_shape(Encoding& e, int& n, int& k) {
  const std::string_view word = e.statement().word;
  const size_t at = word.find(".m64n");
  if (at == std::string_view::npos) e.fail("a shape is missing");
  const std::string_view shape = word.substr(at + 1, word.find('.', at + 1) - at - 1);
  const char* end = shape.data() + shape.size();
  const auto first = std::from_chars(shape.data() + 4, end, n);
  if (first.ptr == end || *first.ptr != 'k') e.fail("a shape is missing");
  if (std::from_chars(first.ptr + 1, end, k).ptr != end) e.fail("a shape is missing");
  e.take(shape);
}

bool is_one_of(Type t, std::initializer_list<Type> types) {
  for (Type x : types)
    if (t == x) return true;
  return false;
}

bool types_fit(Type d, Type a, Type b) {
  const auto fp8 = {Type::e4m3, Type::e5m2};
  const auto int8 = {Type::s8, Type::u8};
  if (a == Type::f16) return b == a && is_one_of(d, {Type::f16, Type::f32});
  if (a == Type::bf16 || a == Type::tf32) return b == a && d == Type::f32;
  if (is_one_of(a, fp8)) return is_one_of(b, fp8) && is_one_of(d, {Type::f16, Type::f32});
  return is_one_of(a, int8) && is_one_of(b, int8) && d == Type::s32;
}

bool take_sign(Encoding& e, int operand) {
  const auto value = static_cast<int64_t>(e.integer(operand));
  if (value != 1 && value != -1) e.fail("imm-scale is 1 or -1");
  return value < 0;
}
bool take_major(Encoding& e, int operand) {
  if (e.integer(operand) > 1) e.fail("imm-trans is 0 or 1");
  return e.integer(operand) == 1;
}

void encode_multiply(Encoding& e) {
  take_aligned(e);
  int n = 0, k = 0;
  take_shape(e, n, k);
  Code code{};
  code.saturate = e.take("satfinite");
  const Type d = e.take_type(), a = e.take_type(), b = e.take_type();
  if (!types_fit(d, a, b) || k != 32 / bytes_of(a) || !wgmma_has_n(n, a)) e.fail("no such wgmma");
  if (code.saturate && d != Type::s32) e.fail(".satfinite is for .s32");
  code.d = static_cast<uint8_t>(d);
  code.a = static_cast<uint8_t>(a);
  code.b = static_cast<uint8_t>(b);
  code.n = static_cast<uint16_t>(n);
  code.k = static_cast<uint8_t>(k);
  const bool a_in_registers = e.operand(1).kind == Operand::vector;
  const bool scales = d != Type::s32, transposes = bytes_of(a) == 2;
  const int count = 4 + (scales ? 2 : 0) + (transposes ? (a_in_registers ? 1 : 2) : 0);
  e.expect_operands(count, count);
  const Type d_register = d == Type::f16 ? Type::b32 : d;
  std::vector<Ref> refs;
  for (const Operand& o : elements_of(e.operand(0))) refs.push_back(e.destination(o, d_register));
  MatrixOp op;
  op.d = d;
  op.n = n;
  if (static_cast<int>(refs.size()) != accumulator_registers(op))
    e.fail("wrong number of registers in the accumulator");
  for (Ref r : refs)
    if (r == kNoRef) e.fail("an accumulator cannot be left out");
  if (a_in_registers) {
    const auto items = elements_of(e.operand(1));
    if (items.size() != 4) e.fail("matrix A takes four registers");
    for (const Operand& o : items) {
      if (!e.is_register(o)) e.fail("matrix A takes registers");
      refs.push_back(e.source(o, Type::b32));
    }
  } else {
    e.out.a = e.source(1, Type::b64);
  }
  e.out.b = e.source(2, Type::b64);
  bool negated = false;
  e.out.c = e.predicate_source(e.operand(3), negated);
  if (negated) e.fail("a negated scale-d is not modelled");
  if (scales) {
    code.negate_a = take_sign(e, 4);
    code.negate_b = take_sign(e, 5);
  }
  if (transposes) {
    int at = 6;
    if (!a_in_registers) code.a_mn_major = take_major(e, at++);
    code.b_mn_major = take_major(e, at);
  }
  e.further(refs);
  std::memcpy(&e.out.imm, &code, sizeof(code));
  e.out.run = multiply_async;
}

void wgmma(Encoding& e) {
  switch (e.take_one_of({"mma_async", "fence", "commit_group", "wait_group"})) {
    case 0: return encode_multiply(e);
    case 1:
      e.expect_operands(0, 0);
      e.out.run = fence;
      break;
    case 2:
      e.expect_operands(0, 0);
      e.out.run = commit;
      break;
    case 3:
      e.expect_operands(1, 1);
      e.out.imm = static_cast<int64_t>(e.integer(0));
      e.out.run = wait;
      break;
    default: e.fail("this wgmma instruction is not modelled");
  }
  take_aligned(e);
}

}  // namespace

void mark_matrix_registers(Program& program) {
  std::vector<bool> used;
  for (const Instr& in : program.code) {
    if (in.run != multiply_async) continue;
    for (int r = 0; r < in.count; ++r) {
      const size_t index = program.refs[in.more + r] / 64;
      if (used.size() <= index) used.resize(index + 1);
      used[index] = true;
    }
  }
  for (size_t pc = 0; pc < program.code.size() && !used.empty(); ++pc) {
    if (program.code[pc].run == multiply_async) continue;
    for (Ref ref : program.operands[pc])
      if (ref / 64 < used.size() && used[ref / 64]) program.code[pc].watched = true;
  }
}

void add_wgmma_opcodes(Opcodes& ops) {
  ops["wgmma"] = wgmma;
}

}  // namespace ptx
