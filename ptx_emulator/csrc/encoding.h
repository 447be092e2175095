// The decoder's view of one instruction, for the opcode families (ops_*.cpp) to fill in.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ast.h"
#include "error.h"
#include "program.h"

namespace ptx {

class Decoder;

class Encoding {
 public:
  Encoding(Decoder& decoder, const Statement& statement, Instr& instr);

  Instr& out;

  // Modifiers are taken in any order; one that nobody takes is reported as not modelled.
  bool take(std::string_view modifier);
  // The index of the one that is present, or `otherwise`.
  int take_one_of(std::initializer_list<std::string_view> modifiers, int otherwise = -1);
  Type take_type();  // the first that is left; an error if there is none
  Type take_type_or_none();
  std::pair<Type, Type> peek_types() const;  // the first two that are left, or none
  bool has_modifiers() const { return !modifiers_.empty(); }
  void finish() const;  // an error if a modifier is left

  int operands() const { return static_cast<int>(statement_.operands.size()); }
  const Operand& operand(int i) const;
  void expect_operands(int low, int high) const;

  Ref source(int i, Type type) { return source(operand(i), type); }
  Ref source(const Operand& o, Type type);
  Ref destination(int i, Type type) { return destination(operand(i), type); }
  Ref destination(const Operand& o, Type type);  // kNoRef for "_"
  Ref predicate(int i, bool& negated) { return predicate(operand(i), negated); }
  Ref predicate(const Operand& o, bool& negated);
  Ref predicate_source(const Operand& o, bool& negated);  // a constant too; read by Warp::in<Mask>
  // The register of any type, with its width; for ld, st and cvt, where it may be wider.
  Ref wide_source(const Operand& o, Type type, int& register_bytes);
  Ref wide_destination(const Operand& o, Type type, int& register_bytes);
  bool is_register(const Operand& o) const;
  Type register_type(const Operand& o) const;
  // Sets a, imm, wide_address, and space if the address names a variable.
  void address(int i);
  Ref constant(uint64_t bits, int bytes);
  uint32_t further(const std::vector<Ref>& refs);  // sets more and count
  uint64_t integer(int i) const;                   // an operand that must be an integer constant
  Decoder& decoder() { return decoder_; }
  const Statement& statement() const { return statement_; }
  std::string_view opcode() const { return opcode_; }

  [[noreturn]] void fail(const std::string& what) const;

 private:
  Decoder& decoder_;
  const Statement& statement_;
  std::string_view opcode_;
  std::vector<std::string_view> modifiers_;
};

// Common to memory instructions: .relaxed, .acquire or .release, .volatile with their scopes; the
// state space; the address in operand i.
void take_order(Encoding& e, Order strongest);
void take_state_space(Encoding& e);
void encode_address(Encoding& e, int i);

// Fills in Encoding::out, or fails.
using Encoder = void (*)(Encoding&);
using Opcodes = std::unordered_map<std::string_view, Encoder>;

void add_integer_opcodes(Opcodes&);
void add_bit_opcodes(Opcodes&);
void add_float_opcodes(Opcodes&);
void add_compare_opcodes(Opcodes&);
void add_convert_opcodes(Opcodes&);
void add_move_opcodes(Opcodes&);
void add_memory_opcodes(Opcodes&);
void add_atomic_opcodes(Opcodes&);
void add_warp_opcodes(Opcodes&);
void add_control_opcodes(Opcodes&);
void add_barrier_opcodes(Opcodes&);
void add_fence_opcodes(Opcodes&);
void add_mbarrier_opcodes(Opcodes&);
void add_async_copy_opcodes(Opcodes&);
void add_bulk_opcodes(Opcodes&);
void add_matrix_opcodes(Opcodes&);
void add_wgmma_opcodes(Opcodes&);

// pick(T{}) for the C++ type of an integer type; b16 .. b64 count as unsigned.
template <class Pick>
Handler pick_integer(Encoding& e, Type type, Pick pick) {
  switch (type) {
    case Type::b16:
    case Type::u16: return pick(uint16_t{});
    case Type::b32:
    case Type::u32: return pick(uint32_t{});
    case Type::b64:
    case Type::u64: return pick(uint64_t{});
    case Type::s16: return pick(int16_t{});
    case Type::s32: return pick(int32_t{});
    case Type::s64: return pick(int64_t{});
    default: e.fail(std::string("type .") + name_of(type) + " is not modelled here");
  }
}

}  // namespace ptx
