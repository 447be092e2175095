// Memory that a thread keeps between calls, aligned to cache lines.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

namespace dsa::cpu {

template <class T>
class Scratch {
 public:
  // At least n elements, uninitialised; what was there is lost when it grows.
  T* take(size_t n) {
    if (n > capacity_) {
      const size_t bytes = (n * sizeof(T) + 63) / 64 * 64;
      memory_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
      if (!memory_) throw std::bad_alloc();
      capacity_ = n;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> memory_;
  size_t capacity_ = 0;
};

}  // namespace dsa::cpu
