// From a position in a request to a cache slot, through the request's row of the block table.
#pragma once

#include "../params.h"

namespace dsa::cpu {

struct RequestPages {
  const int32_t* pages;  // [max_pages]
  int64_t max_pages, num_pages, page_size;

  RequestPages(const View<2>& block_table, int64_t request, int64_t num_pages, int64_t page_size)
      : pages(block_table.as<const int32_t>() + request * block_table.stride[0]),
        max_pages(num_pages == 0 ? 0 : block_table.size[1]),  // page_size may then be anything
        num_pages(num_pages),
        page_size(page_size) {}

  int64_t positions() const { return max_pages * page_size; }

  // -1 where the position has no valid page.
  int64_t slot(int64_t position) const {
    if (position < 0 || position >= positions()) return -1;
    const int64_t page = pages[position / page_size];
    return page < 0 || page >= num_pages ? -1 : page * page_size + position % page_size;
  }

  // How many positions from this one on, itself included, lie in its page, or below 0.
  int64_t rest_of_page(int64_t position) const {
    if (position < 0) return -position;
    return page_size > 0 ? page_size - position % page_size : 1;
  }
};

}  // namespace dsa::cpu
