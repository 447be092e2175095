#include "lexer.h"

#include <bit>
#include <cctype>
#include <charconv>
#include <cstdlib>

#include "error.h"

namespace ptx {
namespace {

bool starts_word(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' ||
         c == '.';
}
bool continues_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '.';
}

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::vector<Token> run() {
    std::vector<Token> tokens;
    tokens.reserve(text_.size() / 4);
    while (skip_blank()) tokens.push_back(next());
    tokens.push_back({Token::end, line_, "end of file"});
    return tokens;
  }

 private:
  char peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  // False at the end of the text.
  bool skip_blank() {
    while (at_ < text_.size()) {
      if (peek() == '\n') {
        ++line_;
        ++at_;
      } else if (std::isspace(static_cast<unsigned char>(peek())) || peek() == '\0') {
        ++at_;
      } else if (peek() == '/' && peek(1) == '/') {
        while (at_ < text_.size() && peek() != '\n') ++at_;
      } else if (peek() == '/' && peek(1) == '*') {
        const size_t close = text_.find("*/", at_ + 2);
        if (close == std::string_view::npos) fail_at(line_, "comment without an end");
        for (; at_ < close + 2; ++at_) line_ += text_[at_] == '\n';
      } else {
        return true;
      }
    }
    return false;
  }

  Token next() {
    const char c = peek();
    // ".5" is no PTX number, so a dot always opens a word.
    if (std::isdigit(static_cast<unsigned char>(c))) return number();
    if (starts_word(c)) return word();
    if (c == '"') {
      const size_t close = text_.find('"', at_ + 1);
      if (close == std::string_view::npos) fail_at(line_, "string without an end");
      return take(Token::text, close + 1);
    }
    return take(Token::symbol, at_ + 1);
  }

  Token take(Token::Kind kind, size_t stop) {
    Token t{kind, line_, text_.substr(at_, stop - at_)};
    at_ = stop;
    return t;
  }

  // "a::b" belongs to a word, the ':' of a label does not.
  Token word() {
    size_t stop = at_ + 1;
    for (; stop < text_.size(); ++stop) {
      if (continues_word(text_[stop])) continue;
      if (text_.compare(stop, 2, "::") != 0 || stop + 2 >= text_.size() ||
          !continues_word(text_[stop + 2]))
        break;
      ++stop;
    }
    return take(Token::word, stop);
  }

  Token number() {
    if (peek() == '0' && std::string_view("fFdD").find(peek(1)) != std::string_view::npos) {
      const bool single = peek(1) == 'f' || peek(1) == 'F';
      const size_t digits = single ? 8 : 16;
      Token t = take(Token::real, at_ + 2 + digits);
      t.value = integer(t.spelling.substr(2), 16);
      t.real_bits = single ? 32 : 64;
      return t;
    }
    size_t stop = at_;
    const bool hex = peek() == '0' && (peek(1) == 'x' || peek(1) == 'X');
    const bool binary = peek() == '0' && (peek(1) == 'b' || peek(1) == 'B');
    if (hex || binary) {
      stop += 2;
      while (stop < text_.size() && std::isxdigit(static_cast<unsigned char>(text_[stop]))) ++stop;
      const std::string_view digits = text_.substr(at_ + 2, stop - at_ - 2);
      if (stop < text_.size() && text_[stop] == 'U') ++stop;
      Token t = take(Token::integer, stop);
      t.value = integer(digits, hex ? 16 : 2);
      return t;
    }
    bool real = false;
    for (; stop < text_.size(); ++stop) {
      const char c = text_[stop];
      const bool sign =
          (c == '+' || c == '-') && (text_[stop - 1] == 'e' || text_[stop - 1] == 'E');
      if (c == '.' || c == 'e' || c == 'E') real = true;
      if (!std::isdigit(static_cast<unsigned char>(c)) && c != '.' && c != 'e' && c != 'E' &&
          !(real && sign))
        break;
    }
    const std::string digits(text_.substr(at_, stop - at_));
    if (!real && stop < text_.size() && text_[stop] == 'U') ++stop;
    Token t = take(real ? Token::real : Token::integer, stop);
    if (real) {
      t.value = std::bit_cast<uint64_t>(std::strtod(digits.c_str(), nullptr));
      t.real_bits = 64;
    } else {
      t.value = integer(digits, digits.size() > 1 && digits[0] == '0' ? 8 : 10);
    }
    return t;
  }

  uint64_t integer(std::string_view digits, int base) const {
    uint64_t value = 0;
    const auto [stop, code] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (code != std::errc() || stop != digits.data() + digits.size() || digits.empty())
      fail_at(line_, "not a number: " + std::string(digits));
    return value;
  }

  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<Token> tokenize(std::string_view text) {
  return Lexer(text).run();
}

}  // namespace ptx
