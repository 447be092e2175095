// wgmma operations under way, and the registers that they hold.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "matrix_math.h"
#include "program.h"
#include "races.h"
#include "warp.h"
#include "wgmma_layout.h"

namespace ptx {

// One wgmma.mma_async of a warpgroup.
struct WgmmaOp {
  MatrixOp op;
  bool a_mn_major = false, b_mn_major = false;
  const Instr* instr = nullptr;
  uint32_t pc = 0;
  uint64_t descriptor_a = 0, descriptor_b = 0;
  int issued = 0;                                  // by how many warps
  std::vector<const uint8_t*> chunks_a, chunks_b;  // once all have issued it
  AsyncOperation by_warp[4], by_all;               // what each warp, and all of them, know
};

// Its operations run in order, each at some time after all four warps have issued it.
struct Warpgroup {
  std::deque<WgmmaOp> queue;
  uint64_t completed = 0;  // operations that ran
  bool scheduled = false;
  // For races: the agent, whose lanes are the four warps, and what all of them know, for as long as
  // none of them learns more.
  Agent agent = 0;
  uint32_t versions[4] = {}, times[4] = {};
  Published common;
};

// How wgmma uses a register of a warp. The times are numbers of operations and of fences.
struct RegisterUse {
  uint64_t held_until = 0;  // the operation whose completion frees it
  uint32_t touched = 0;     // the fence interval in which something else last used it
  uint32_t shape = 0, shape_interval = 0;
  bool accumulator = false;
};

struct WgmmaState {
  uint64_t issued = 0, settled = 0;
  std::vector<uint64_t> group_ends;  // operations before each commit
  uint32_t interval = 1;             // counts fences
  bool fenced = false;
  std::vector<RegisterUse> uses;  // by Ref / 64
  std::vector<Ref> held;          // accumulators whose registers are poisoned
  // The true values of accumulators that are held, at the same offsets as in the registers.
  std::unique_ptr<uint8_t[]> shadow;
};

WgmmaState& wgmma_state_of(Warp& w);

// The rules of wgmma.fence, for the registers of an operation that is about to be issued, of which
// the first d_count are accumulators.
void check_registers(const Warp& w, const WgmmaState& s, std::span<const Ref> refs, size_t d_count,
                     uint32_t shape);
// The operation takes the registers; accumulators are poisoned. Those that are settled get their
// values.
void hold_registers(Warp& w, WgmmaState& s, std::span<const Ref> refs, size_t d_count,
                    uint32_t shape);
void release_registers(Warp& w, WgmmaState& s);

// The registers of each instruction that wgmma also uses: marks instructions as watched.
void mark_matrix_registers(Program& program);

// A watched instruction is about to run: a Fault if it uses a register that is held.
void note_matrix_registers(Warp& w, const Instr& in);

}  // namespace ptx
