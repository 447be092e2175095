// Large outputs go around the caches. A store to a line that is not in the cache first reads it:
// without that, memory moves a third less for a copy.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa/isa.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace dsa::cpu {

// Outputs from this size on are streamed: they would push out of the second-level cache what is
// there, and whoever reads them reads them from memory anyway.
constexpr int64_t kStreamBytes = 4 << 20;

// Streamed stores are seen by other threads in the order of what follows.
inline void finish_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Collects pieces that belong at consecutive addresses, and streams them in whole cache lines.
class StreamWriter {
 public:
  StreamWriter(const Isa& isa, bool streams) : isa_(isa), streams_(streams) {}
  StreamWriter(const StreamWriter&) = delete;
  ~StreamWriter() {
    flush();
    if (streams_) finish_streams();
  }

  // Where to write `bytes` that belong at `to`, at most kMaxPiece; all of them before the next
  // call.
  void* place(void* to, int64_t bytes) {
    if (!streams_) return to;
    if (to != first_ + used_) {
      flush();
      begin(static_cast<char*>(to));
    } else if (skip_ + used_ + bytes > kCapacity) {
      write_lines();
    }
    used_ += bytes;
    return buffer_ + skip_ + used_ - bytes;
  }

  // bytes from `from` to `to`, of any size.
  void copy(const void* from, void* to, int64_t bytes) {
    flush();
    if (streams_) {
      isa_.stream(from, to, bytes);
    } else {
      std::memcpy(to, from, bytes);
    }
  }

  static constexpr int64_t kMaxPiece = 4 * (512 + 64);  // a float32 key

 private:
  static constexpr int64_t kCapacity = 8192, kLine = 64;

  void begin(char* to) {
    first_ = to;
    skip_ = reinterpret_cast<intptr_t>(to) % kLine;
    used_ = 0;
  }

  void flush() {
    if (used_ > 0) isa_.stream(buffer_ + skip_, first_, used_);
    used_ = 0;
  }

  // All but the last line, if that is not whole: what follows may complete it.
  void write_lines() {
    const int64_t rest = (skip_ + used_) % kLine, written = used_ - rest;
    isa_.stream(buffer_ + skip_, first_, written);
    std::memcpy(buffer_, buffer_ + skip_ + written, rest);
    begin(first_ + written);
    used_ = rest;
  }

  // The byte that belongs at `first_` is buffer_[skip_]: lines of the one are lines of the other.
  alignas(kLine) char buffer_[kCapacity];
  char* first_ = nullptr;
  int64_t skip_ = 0, used_ = 0;
  const Isa& isa_;
  const bool streams_;
};

}  // namespace dsa::cpu
