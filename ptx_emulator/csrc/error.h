// Errors that name a place in the module's text.
#pragma once

#include <stdexcept>
#include <string>

namespace ptx {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail_at(int line, const std::string& what) {
  throw Error("line " + std::to_string(line) + ": " + what);
}

}  // namespace ptx
