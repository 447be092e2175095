// The index cache's planar pages: page_size keys of head_dim codes, then page_size float32 scales.
#pragma once

#include <algorithm>

#include "../formats.h"
#include "../params.h"
#include "paging.h"

namespace dsa::cpu {

// cache: uint8 [num_pages, page_size, head_dim+4], packed within a page; slot: valid.
inline uint8_t* index_codes(const View<3>& cache, int64_t slot) {
  const int64_t page = slot / cache.size[1], token = slot % cache.size[1];
  return cache.as<uint8_t>() + page * cache.stride[0] + token * (cache.size[2] - kIndexScaleBytes);
}

// The bytes of the slot's scale, which nothing aligns.
inline uint8_t* index_scale(const View<3>& cache, int64_t slot) {
  const int64_t page = slot / cache.size[1], token = slot % cache.size[1];
  return cache.as<uint8_t>() + page * cache.stride[0] +
         cache.size[1] * (cache.size[2] - kIndexScaleBytes) + token * kIndexScaleBytes;
}

// A walk over a request's keys, upwards from a position, without a division a step.
class IndexKeyWalk {
 public:
  // Keys that follow each other in a page; null where the page is invalid.
  struct Run {
    const uint8_t *codes, *scales;
    int64_t count;
  };

  IndexKeyWalk(const View<3>& cache, const RequestPages& pages, int64_t position)
      : cache_(cache),
        pages_(pages),
        position_(position),
        token_(position % pages.page_size),
        head_dim_(cache.size[2] - kIndexScaleBytes) {
    open_page();
  }

  int64_t position() const { return position_; }

  // The next keys, at most `most`.
  Run next(int64_t most) {
    Run run{nullptr, nullptr, std::min(most, pages_.page_size - token_)};
    if (page_ != nullptr) {
      run.codes = page_ + token_ * head_dim_;
      run.scales = page_ + pages_.page_size * head_dim_ + token_ * kIndexScaleBytes;
    }
    position_ += run.count;
    token_ += run.count;
    if (token_ == pages_.page_size) {
      token_ = 0;
      open_page();
    }
    return run;
  }

 private:
  void open_page() {
    const int64_t slot = pages_.slot(position_ - token_);
    page_ = slot < 0 ? nullptr : index_codes(cache_, slot);
  }

  const View<3>& cache_;
  const RequestPages& pages_;
  int64_t position_, token_;  // in the request, in the page
  int64_t head_dim_;
  const uint8_t* page_;
};

}  // namespace dsa::cpu
