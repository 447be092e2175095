// The walk of the gather ops from output rows to cache slots; mirrors reference/paging.py.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../params.h"
#include "paging.h"
#include "parallel.h"
#include "stream.h"

namespace dsa::cpu {

struct PagedRows {
  View<2> block_table;  // int32 [batch, max_pages]
  View<1> cu_seq_lens;  // int32 [batch+1]
  View<1> seq_start;    // int32 [batch] or absent
  int64_t num_tokens, num_pages, page_size;
  int64_t row_bytes;  // of the output
};

// Calls run(out, row, slot, count) for the rows that requests claim: rows [row, row + count) are
// the slots from `slot` on, all in one page, or invalid where it is -1. Rows that two requests
// claim are written by both, in order of request: each block of rows belongs to one thread, and has
// a StreamWriter.
template <class F>
void for_each_gathered_run(const Isa& isa, const PagedRows& rows, const F& run) {
  const int32_t* bounds = rows.cu_seq_lens.as<const int32_t>();
  const int64_t batch = rows.block_table.size[0];
  const bool streams = rows.num_tokens * rows.row_bytes >= kStreamBytes;
  parallel_runs(rows.num_tokens, [&](int64_t block_begin, int64_t block_end) {
    StreamWriter out(isa, streams);
    for (int64_t request = 0; request < batch; ++request) {
      const int64_t first_row = std::max<int64_t>(bounds[request], 0);
      const int64_t end = std::min<int64_t>(bounds[request + 1], block_end);
      const int64_t first = rows.seq_start ? rows.seq_start.as<const int32_t>()[request] : 0;
      const RequestPages pages(rows.block_table, request, rows.num_pages, rows.page_size);
      for (int64_t row = std::max(first_row, block_begin), count; row < end; row += count) {
        const int64_t position = first + row - first_row;
        count = std::min(end - row, pages.rest_of_page(position));
        run(out, row, pages.slot(position), count);
      }
    }
  });
}

}  // namespace dsa::cpu
