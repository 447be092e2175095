// A module after decoding: what the interpreter runs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ast.h"

namespace ptx {

constexpr int kLanes = 32;
using Mask = uint32_t;  // a bit per lane
constexpr Mask kAllLanes = ~Mask{0};

struct Warp;
struct Instr;

enum class Flow : uint8_t {
  next,     // go on with the following instruction
  jumped,   // the handler has set pc
  regroup,  // lane groups have changed: choose again which one runs
};

// Runs an instruction for the lanes of the mask, which is never empty.
using Handler = Flow (*)(Warp&, const Instr&, Mask);

// Where an operand's 32 lanes lie: a byte offset into the registers of the warp or, with the top
// bit set, into the constants of the program. A predicate is one Mask.
using Ref = uint32_t;
constexpr Ref kInConstants = 0x80000000u;
constexpr Ref kNoRef = ~Ref{0};

enum class Order : uint8_t { weak, relaxed, acquire, release, acq_rel, seq_cst };
enum class Scope : uint8_t { cta, cluster, gpu, sys };

// One cache line.
struct Instr {
  Handler run = nullptr;
  int64_t imm = 0;
  Ref guard = kNoRef;
  Ref d = kNoRef, a = kNoRef, b = kNoRef, c = kNoRef;
  uint32_t more = 0;    // index of the first further operand in Program::refs
  uint32_t target = 0;  // pc of a branch; index of a table
  uint16_t count = 0;   // of the further operands
  bool guard_negated = false;
  uint8_t small = 0;  // a little number whose meaning is the opcode's own
  Space space = Space::generic;
  Order order = Order::weak;
  Scope scope = Scope::gpu;
  bool wide_address = false;  // 64-bit register
  bool watched = false;       // uses registers that a wgmma also uses
  uint32_t extra = 0;
};
static_assert(sizeof(Instr) <= 64);

// What only reports need.
struct InstrInfo {
  int line;
  int location;  // index into Module::locations, or -1
  int function;
  std::string_view opcode;
};

// A variable in memory. Shared and local ones have an offset in their window; global and constant
// ones an address on the host.
struct Storage {
  Space space;
  uint64_t address;
  uint64_t bytes;
};

struct Parameter {
  std::string_view name;
  uint64_t offset, bytes;
};

struct Kernel {
  std::string_view name;
  uint32_t entry = 0;
  std::vector<Parameter> params;
  uint64_t param_bytes = 0;
  uint64_t static_shared = 0;   // dynamic shared memory starts behind it
  uint64_t shared_align = 16;   // of dynamic shared memory
  uint64_t register_bytes = 0;  // of a warp
  uint64_t local_bytes = 0;     // of a thread
  const Function* source = nullptr;
};

struct Program {
  std::unique_ptr<Module> module;
  std::vector<Instr> code;
  std::vector<InstrInfo> info;
  std::vector<Ref> refs;
  std::vector<std::vector<Ref>> operands;  // the registers of each instruction
  std::unordered_map<Ref, std::string_view> register_names;
  std::vector<std::vector<uint32_t>> branch_tables;
  std::vector<Kernel> kernels;
  std::vector<uint8_t> constants;  // 32 lanes each; aligned by Program::constant_base
  uint64_t register_bytes = 0;     // of a warp, while a function is decoded
  uint64_t local_bytes = 0;        // of a thread
  struct GlobalBlock {
    std::string_view name;
    std::unique_ptr<uint8_t[]> bytes;
    uint64_t address, size;
    bool is_constant;
  };
  std::vector<GlobalBlock> globals;

  const uint8_t* constant_base() const {
    return reinterpret_cast<const uint8_t*>((reinterpret_cast<uintptr_t>(constants.data()) + 63) /
                                            64 * 64);
  }
  const Kernel* find(std::string_view name) const;
  // "kernel.cu:12", and where that was inlined; empty without -lineinfo
  std::string source(uint32_t pc) const;
  // "kernel.cu:12 (PTX line 340: st.shared.f32)"
  std::string describe(uint32_t pc) const;
};

// Something of a module that the emulator does not model.
struct Unsupported {
  int line;
  std::string text, reason;
};

// Collects what is not modelled in `unsupported`; the program may be run only if that stays empty.
std::unique_ptr<Program> decode(std::unique_ptr<Module> module,
                                std::vector<Unsupported>& unsupported);

}  // namespace ptx
