// Names to registers and memory, labels to pcs; a statement at a time goes to its opcode's encoder.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "encoding.h"
#include "warp.h"

namespace ptx {

struct Symbol {
  enum Kind : uint8_t { reg, memory, kernel_param, targets } kind;
  Type type = Type::none;
  Ref ref = kNoRef;  // reg
  Space space = Space::reg;
  // memory: offset in the shared or local window, address of global and constant memory;
  // kernel_param: offset in the block of parameters; targets: index of Program::branch_tables.
  uint64_t address = 0;
  bool dynamic = false;  // extern shared: behind the kernel's static shared memory
};

class Decoder {
 public:
  Decoder(Program& program, std::vector<Unsupported>& unsupported);
  void run();

  const Symbol* find(std::string_view name);
  Ref constant(uint64_t bits, int bytes);
  Ref allocate(Type type);
  void refer_to_label(std::string_view label, int line);  // sets target of the present instruction
  Program& program() { return program_; }
  bool in_kernel() const { return function_->is_entry; }
  Ref return_pc() const { return signatures_.at(function_->name).return_pc; }

 private:
  struct Family {  // %r<100>: %r0 .. %r99
    Type type;
    int count;
  };
  struct Scope {
    int parent;
    std::unordered_map<std::string_view, Symbol> symbols{};
    std::unordered_map<std::string_view, uint32_t> labels{};
    std::vector<std::pair<std::string_view, Family>> families{};
  };
  struct Fixup {
    int scope;
    std::string_view label;
    uint32_t pc;  // of the instruction, or
    int table = -1;
    int line;
  };
  struct Signature {
    std::vector<Symbol> params, results;
    std::vector<uint64_t> param_bytes, result_bytes;
    uint32_t entry = 0;
    Ref return_pc = kNoRef;
  };

  void note(int line, std::string_view text, const std::string& reason);
  void declare_globals();
  void fill(uint8_t* out, const Variable& v);
  void order_functions(const Function& f, std::vector<const Function*>& order,
                       std::map<std::string_view, int>& state);
  void declare_signature(const Function& f);
  void function(const Function& f);
  void kernel_header(const Function& f);
  void body(const Function& f);
  void declare(const Variable& v, const Function& f);
  void add_symbol(std::string_view name, const Symbol& symbol, int line);
  void instruction(const Statement& s);
  void call(const Statement& s);
  void copy_argument(const Statement& s, const Symbol& from, const Symbol& to, uint64_t bytes);
  void add_registers(const Operand& o, std::vector<Ref>& out);
  uint32_t emit(const Statement& s, const Instr& instr);
  void resolve_labels();
  uint64_t in_shared(const Variable& v);
  uint64_t in_local(const Variable& v);

  Program& program_;
  std::vector<Unsupported>& unsupported_;
  Opcodes opcodes_;
  std::vector<Scope> scopes_;  // 0: the module
  int scope_ = 0;
  std::vector<Fixup> fixups_;
  std::unordered_map<std::string_view, Signature> signatures_;
  std::map<std::pair<uint64_t, int>, Ref> constants_;
  const Function* function_ = nullptr;
  int function_index_ = 0;
  uint64_t module_shared_ = 0, kernel_shared_ = 0, shared_align_ = 16;
};

uint64_t bytes_of(const Variable& v);
uint64_t align_of(const Variable& v);
inline uint64_t align_up(uint64_t n, uint64_t to) {
  return (n + to - 1) / to * to;
}

// The special registers that are plain per-warp values, "%tid.x"; nullopt for any other name.
std::optional<Special> special_register(std::string_view name);

}  // namespace ptx
