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

// What a running kernel did wrong. A handler throws it with what it knows; the interpreter adds
// the kernel, the instruction and the thread.
struct Fault : Error {
  enum Kind { memory, race, deadlock, limit, unsupported, trap } kind;
  int lane;  // -1: that is for the interpreter to say
  Fault(Kind kind, const std::string& what, int lane = -1) : Error(what), kind(kind), lane(lane) {}
};

}  // namespace ptx
