#include "parser.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <set>

#include "error.h"
#include "lexer.h"

namespace ptx {
namespace {

std::optional<Space> parse_space(std::string_view word) {
  if (word == ".reg") return Space::reg;
  if (word == ".global") return Space::global;
  if (word == ".shared" || word == ".shared::cta") return Space::shared;
  if (word == ".local") return Space::local;
  if (word == ".param") return Space::param;
  if (word == ".const") return Space::constant;
  return std::nullopt;
}

class Parser {
 public:
  explicit Parser(std::string text) : module_(std::make_unique<Module>()) {
    module_->text = std::move(text);
    tokens_ = tokenize(module_->text);
  }

  std::unique_ptr<Module> run() {
    while (peek().kind != Token::end) top_level();
    if (module_->version.empty() || module_->target.empty()) fail("expected .version and .target");
    return std::move(module_);
  }

 private:
  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& next() { return tokens_[std::min(at_++, tokens_.size() - 1)]; }
  bool is(std::string_view spelling) const { return peek().spelling == spelling; }
  bool take(std::string_view spelling) {
    if (!is(spelling)) return false;
    ++at_;
    return true;
  }
  void expect(std::string_view spelling) {
    if (!take(spelling)) fail("expected '" + std::string(spelling) + "'");
  }
  [[noreturn]] void fail(const std::string& what) const {
    fail_at(peek().line, what + ", found '" + std::string(peek().spelling) + "'");
  }
  std::string_view word() {
    if (peek().kind != Token::word) fail("expected a name");
    return next().spelling;
  }
  int small_integer(uint64_t most = std::numeric_limits<int>::max()) {
    const uint64_t value = integer_expression();
    if (value > most) fail("expected a number up to " + std::to_string(most));
    return static_cast<int>(value);
  }
  int alignment() {
    const int bytes = small_integer();
    if (!std::has_single_bit(static_cast<unsigned>(bytes))) fail("expected a power of two");
    return bytes;
  }

  void skip_statement() {
    for (; !take(";"); ++at_)
      if (peek().kind == Token::end) fail("expected ';'");
  }
  void skip_braces() {
    expect("{");
    for (int depth = 1; depth > 0; ++at_) {
      if (peek().kind == Token::end) fail("'{' without an end");
      depth += is("{") - is("}");
    }
  }

  void top_level() {
    const std::string_view w = peek().spelling;
    if (w == ".version" || w == ".target") {
      ++at_;
      const int line = peek().line;
      (w == ".version" ? module_->version : module_->target) = next().spelling;
      if (w == ".target") module_->target_line = line;
      while (peek().line == line && peek().kind != Token::end) ++at_;
    } else if (w == ".address_size") {
      ++at_;
      if (integer_expression() != 64) fail("only .address_size 64 is supported");
    } else if (w == ".file") {
      file();
    } else if (w == ".loc") {
      loc();
    } else if (w == ".section") {
      at_ += 2;
      skip_braces();
    } else if (w == ".pragma" || w == ".alias") {
      skip_statement();
    } else if (!take(";")) {
      declaration();
    }
  }

  void file() {
    ++at_;
    const int id = small_integer();
    if (peek().kind != Token::text) fail("expected the name of a file");
    const std::string_view quoted = next().spelling;
    module_->files.emplace_back(id, quoted.substr(1, quoted.size() - 2));
    while (take(",")) integer_expression();
  }

  // .loc file line column [, function_name label [+ n], inlined_at file line column]
  void loc() {
    ++at_;
    SourceLocation here = triple();
    if (take(",")) {
      if (word() != "function_name") fail("expected function_name");
      word();
      if (take("+")) integer_expression();
      expect(",");
      if (word() != "inlined_at") fail("expected inlined_at");
      here.inlined_at = intern(find_location(triple()));
    }
    location_ = intern(here);
  }
  SourceLocation triple() {
    SourceLocation l;
    l.file = small_integer();
    l.line = small_integer();
    l.column = small_integer();
    return l;
  }
  int intern(const SourceLocation& l) {
    auto& all = module_->locations;
    // nvcc repeats a location after each inlined statement: look back a little.
    for (size_t i = all.size(); i-- > 0 && i + 64 > all.size();)
      if (all[i].file == l.file && all[i].line == l.line && all[i].column == l.column &&
          all[i].inlined_at == l.inlined_at)
        return static_cast<int>(i);
    all.push_back(l);
    return static_cast<int>(all.size()) - 1;
  }
  // The place a function was inlined at may have been inlined itself: the latest such place counts.
  SourceLocation find_location(const SourceLocation& l) const {
    const auto& all = module_->locations;
    for (size_t i = all.size(); i-- > 0;)
      if (all[i].file == l.file && all[i].line == l.line && all[i].column == l.column)
        return all[i];
    return l;
  }

  void declaration() {
    bool is_extern = false;
    for (;;) {
      if (take(".extern")) {
        is_extern = true;
      } else if (!take(".visible") && !take(".weak") && !take(".common")) {
        break;
      }
    }
    if (is(".entry") || is(".func")) {
      function(is_extern);
    } else if (const auto space = parse_space(peek().spelling); space && *space != Space::reg) {
      for (Variable& v : variables()) {
        v.is_extern = is_extern;
        module_->variables.push_back(std::move(v));
      }
    } else {
      fail("expected a directive");
    }
  }

  void function(bool is_extern) {
    Function f;
    f.line = peek().line;
    f.is_entry = next().spelling == ".entry";
    if (is("(")) f.results = parameters();
    f.name = word();
    if (is("(")) f.params = parameters();
    while (!is("{") && !is(";")) performance_directive(f);
    if (take(";")) {
      f.is_extern = true;
    } else {
      if (is_extern) fail("an .extern function has no body");
      body(f);
      if (!defined_.insert(f.name).second)
        fail_at(f.line, std::string(f.name) + " is defined twice");
    }
    module_->functions.push_back(std::move(f));
  }

  std::vector<Variable> parameters() {
    std::vector<Variable> all;
    expect("(");
    while (!take(")")) {
      all.push_back(variable(*space(), /*in_list=*/true));
      take(",");
    }
    return all;
  }

  void performance_directive(Function& f) {
    const std::string_view w = word();
    const auto dimensions = [&](int* out) {
      for (int i = 0; i < 3; ++i) {
        out[i] = i == 0 || take(",") ? small_integer(1024) : 1;
        if (out[i] == 0) fail("expected a number greater than 0");
      }
    };
    if (w == ".reqntid") {
      dimensions(f.required_threads);
    } else if (w == ".maxntid") {
      int d[3];
      dimensions(d);
      f.max_threads = d[0] * d[1] * d[2];
    } else if (w == ".reqnctapercluster") {
      dimensions(f.required_cluster);
    } else if (w == ".maxnreg") {
      f.max_registers = small_integer();
    } else if (w == ".minnctapersm") {
      f.min_ctas = small_integer();
    } else if (w == ".maxclusterrank" || w == ".maxnctapersm") {
      integer_expression();
    } else if (w == ".pragma") {
      skip_statement();
    } else if (w != ".explicitcluster" && w != ".noreturn") {
      --at_;
      fail("unknown directive of a function");
    }
  }

  void body(Function& f) {
    location_ = -1;
    expect("{");
    for (int depth = 1;;) {
      const Token& t = peek();
      if (t.kind == Token::end) fail("function without an end");
      if (take("{")) {
        ++depth;
        f.body.push_back({Statement::open, t.line});
      } else if (take("}")) {
        if (--depth == 0) break;
        f.body.push_back({Statement::close, t.line});
      } else if (!take(";")) {
        statement(f.body);
      }
    }
  }

  void statement(std::vector<Statement>& out) {
    const Token& t = peek();
    if (t.kind == Token::word && peek(1).spelling == ":") {
      at_ += 2;
      out.push_back({Statement::label, t.line, location_, t.spelling});
    } else if (t.spelling == ".loc") {
      loc();
    } else if (t.spelling == ".pragma") {
      skip_statement();
    } else if (t.spelling == ".branchtargets" || t.spelling == ".calltargets") {
      Statement s = make(Statement::targets);
      s.word = word();
      operands(s.operands);
      out.push_back(std::move(s));
    } else if (t.spelling == ".callprototype") {
      skip_statement();
    } else if (parse_space(t.spelling)) {
      for (Variable& v : variables()) {
        Statement s = make(Statement::declare);
        s.line = v.line;
        s.variable = std::move(v);
        out.push_back(std::move(s));
      }
    } else {
      instruction(out);
    }
  }

  Statement make(Statement::Kind kind) const { return {kind, peek().line, location_}; }

  void instruction(std::vector<Statement>& out) {
    Statement s = make(Statement::instruction);
    if (take("@")) {
      s.guard_negated = take("!");
      s.guard = word();
    }
    s.line = peek().line;
    s.word = word();
    // CUTLASS writes blanks before some modifiers.
    while (peek().kind == Token::word && peek().spelling.starts_with('.')) {
      const std::string_view modifier = word();
      const char* end = modifier.data() + modifier.size();
      s.word = {s.word.data(), static_cast<size_t>(end - s.word.data())};
    }
    in_call_ = s.word.starts_with("call");
    if (!is(";")) {
      operands(s.operands);
    } else {
      ++at_;
    }
    out.push_back(std::move(s));
  }

  void operands(std::vector<Operand>& out) {
    do out.push_back(operand());
    while (take(","));
    expect(";");
  }

  Operand operand() {
    Operand o = single_operand();
    if (!take("|")) return o;
    Operand both;
    both.kind = Operand::pair;
    both.items = {std::move(o), single_operand()};
    return both;
  }

  Operand single_operand() {
    Operand o;
    if (take("{")) {
      o.kind = Operand::vector;
      o.items = items("}");
    } else if (is("(") && (in_call_ || peek(1).kind == Token::word)) {
      ++at_;
      o.kind = Operand::list;
      o.items = items(")");
    } else if (take("[")) {
      address(o);
    } else if (take("!")) {
      o.negated = true;
      o.word = word();
    } else if (is("-") && peek(1).kind == Token::word) {
      ++at_;
      o.negated = true;
      o.word = word();
    } else if (peek().kind == Token::word) {
      o.word = word();
      if (take("+")) {
        o.kind = Operand::constant;
        o.value.symbol = o.word;
        o.value.bits = integer_expression();
      }
    } else {
      o.kind = Operand::constant;
      o.value = constant();
    }
    return o;
  }

  // Brackets within brackets are parsed by recursion, for which a stack has to do.
  class Nesting {
   public:
    explicit Nesting(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > 100) parser_.fail("brackets are nested too deep");
    }
    ~Nesting() { --parser_.depth_; }
    Nesting(const Nesting&) = delete;

   private:
    Parser& parser_;
  };

  std::vector<Operand> items(std::string_view close) {
    const Nesting nesting(*this);
    std::vector<Operand> all;
    while (!take(close)) {
      all.push_back(single_operand());
      if (!is(close)) expect(",");
    }
    return all;
  }

  // [name], [name+offset], [number], [name, {coordinates}]
  void address(Operand& o) {
    o.kind = Operand::address;
    if (peek().kind == Token::word) {
      o.word = word();
      if (take("+")) {
        o.value.bits = integer_expression();
      } else if (is("-")) {
        o.value.bits = integer_expression();
      }
    } else {
      o.value.bits = integer_expression();
    }
    while (take(",")) o.items.push_back(single_operand());
    expect("]");
  }

  // A register family or a variable; several may share a declaration.
  std::vector<Variable> variables() {
    std::vector<Variable> all;
    const Space s = *space();
    all.push_back(variable(s, false));
    while (take(",")) {
      Variable v = all[0];
      v.initial.clear();
      name_and_shape(v, s);
      all.push_back(std::move(v));
    }
    expect(";");
    return all;
  }

  std::optional<Space> space() {
    const auto s = parse_space(peek().spelling);
    if (!s) fail("expected a state space");
    ++at_;
    return s;
  }

  Variable variable(Space s, bool in_list) {
    Variable v;
    v.space = s;
    while (v.type == Type::none) {
      const std::string_view w = word();
      if (w == ".align") {
        v.align = alignment();
      } else if (w == ".v2" || w == ".v4" || w == ".v8") {
        v.vector = w[2] - '0';
      } else if (w == ".ptr") {
        continue;
      } else if (const auto type = parse_type(w.substr(1)); type && w[0] == '.') {
        v.type = *type;
      } else {
        --at_;
        fail("expected a type");
      }
    }
    // .param .u64 .ptr .global .align 16 name
    while (peek().spelling.starts_with(".")) {
      if (take(".align")) {
        integer_expression();  // of what the parameter points to
      } else {
        ++at_;
      }
    }
    // Only the type of an unnamed parameter is known in a prototype: ".param .b32 _".
    name_and_shape(v, s);
    if (in_list && v.space == Space::reg && v.count) fail("a parameter is no register family");
    return v;
  }

  void name_and_shape(Variable& v, Space s) {
    v.line = peek().line;
    v.name = word();
    v.count = 0;
    v.elements = 1;
    if (s == Space::reg && take("<")) {
      v.count = small_integer();
      expect(">");
      return;
    }
    while (take("[")) {
      v.is_array = true;
      v.elements *= is("]") ? 0 : small_integer();
      if (v.elements > std::numeric_limits<int>::max()) fail("too many elements");
      expect("]");
    }
    if (take("=")) initializer(v.initial);
    if (v.is_array && v.elements == 0 && !v.initial.empty()) v.elements = v.initial.size();
    if (v.initial.size() > static_cast<uint64_t>(v.elements) * v.vector)
      fail_at(v.line, std::string(v.name) + " has fewer elements than its initialiser");
  }

  void initializer(std::vector<Constant>& out) {
    const Nesting nesting(*this);
    if (!take("{")) {
      out.push_back(constant());
      return;
    }
    while (!take("}")) {
      initializer(out);
      take(",");
    }
  }

  Constant constant() {
    const bool minus = is("-") && peek(1).kind == Token::real;
    if (minus) ++at_;
    if (peek().kind == Token::real) {
      const Token& t = next();
      const uint64_t sign = minus ? uint64_t{1} << (t.real_bits - 1) : 0;
      return {t.value ^ sign, t.real_bits};
    }
    Constant c;
    if (peek().kind == Token::word) {
      c.symbol = word();
      if (c.symbol == "generic" && take("(")) {
        c.generic = true;
        c.symbol = word();
        expect(")");
      }
      if (is("+") || is("-")) {
        take("+");
        c.bits = integer_expression();
      }
      return c;
    }
    c.bits = integer_expression();
    return c;
  }

  uint64_t integer_expression() {
    uint64_t value = product();
    for (;;) {
      if (take("+")) {
        value += product();
      } else if (is("-")) {
        ++at_;
        value -= product();
      } else {
        return value;
      }
    }
  }
  uint64_t product() {
    uint64_t value = factor();
    while (take("*")) value *= factor();
    return value;
  }
  uint64_t factor() {
    const Nesting nesting(*this);
    if (take("-")) return -factor();
    if (take("+")) return factor();
    if (take("~")) return ~factor();
    if (take("(")) {
      const uint64_t value = integer_expression();
      expect(")");
      return value;
    }
    if (peek().kind != Token::integer) fail("expected an integer");
    return next().value;
  }

  std::unique_ptr<Module> module_;
  std::vector<Token> tokens_;
  std::set<std::string_view> defined_;  // functions
  size_t at_ = 0;
  int location_ = -1;
  int depth_ = 0;
  bool in_call_ = false;  // where parentheses enclose lists
};

}  // namespace

std::unique_ptr<Module> parse(std::string text) {
  return Parser(std::move(text)).run();
}

}  // namespace ptx
