// Arguments of the kernels of indices_to_slots.
#pragma once

#include "../divider.h"

namespace dsa::cuda {

struct IndicesToSlotsArgs {
  const int32_t* indices;      // [num_rows, topk]
  const int32_t* block_table;  // [batch, max_pages]
  const int32_t* row_request;  // [num_rows], or null: num_rows / batch rows per request
  int32_t* slots;              // [num_rows, topk]
  int32_t* counts;             // [num_rows]
  int64_t num_rows, topk, batch;
  int64_t indices_stride, block_table_stride, slots_stride;
  Blocks requests;    // of as many rows as each has
  uint32_t capacity;  // of a request: max_pages * page_size, at most 2^31
  Blocks pages;       // of page_size tokens
};

constexpr int kSlotThreads = 256;
constexpr int kSlotVector = 4;  // indices of a thread at a time

}  // namespace dsa::cuda
