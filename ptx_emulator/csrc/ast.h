// What the parser makes of a module's text; names are resolved later, by the decoder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "types.h"

namespace ptx {

struct SourceLocation {
  int file = 0, line = 0, column = 0;
  int inlined_at = -1;  // index into Module::locations
};

// One value of an initialiser or one constant operand.
struct Constant {
  uint64_t bits = 0;
  int real_bits = 0;          // 0: an integer; 32 or 64: a float of that width
  std::string_view symbol{};  // not empty: the address of that variable, plus bits
  bool generic = false;       // generic(symbol)
};

struct Operand {
  enum Kind : uint8_t { name, constant, address, vector, list, pair } kind = name;
  std::string_view word{};  // name; the base of an address, empty if that is a number
  bool negated = false;     // !p or -x
  Constant value{};         // constant; the offset of an address
  std::vector<Operand>
      items{};  // vector {..}, list (..), pair a|b; tensor coordinates of an address
};

struct Variable {
  Space space = Space::reg;
  Type type = Type::none;
  int vector = 1;
  int align = 0;  // 0: natural
  std::string_view name;
  int count = 0;         // of a register family %r<count>
  int64_t elements = 1;  // product of the dimensions; 0 for name[]
  bool is_extern = false;
  bool is_array = false;
  std::vector<Constant> initial{};
  int line = 0;
};

struct Statement {
  enum Kind : uint8_t { instruction, label, declare, open, close, targets } kind;
  int line = 0;
  int location = -1;         // index into Module::locations
  std::string_view word{};   // opcode with modifiers; the label
  std::string_view guard{};  // predicate of @p
  bool guard_negated = false;
  std::vector<Operand> operands{};
  std::optional<Variable> variable{};
};

struct Function {
  std::string_view name;
  bool is_entry = false;
  bool is_extern = false;  // a declaration without a body
  int line = 0;
  std::vector<Variable> results, params;
  std::vector<Statement> body;
  int required_threads[3] = {0, 0, 0};  // .reqntid
  int max_threads = 0;                  // .maxntid
  int required_cluster[3] = {0, 0, 0};  // .reqnctapercluster
  int min_ctas = 1;                     // .minnctapersm
  int max_registers = 0;                // .maxnreg
};

struct Module {
  std::string text;
  std::string_view version, target;
  int target_line = 0;
  std::vector<Variable> variables;
  std::vector<Function> functions;
  std::vector<SourceLocation> locations;
  std::vector<std::pair<int, std::string>> files;
};

}  // namespace ptx
