// Position in a request -> physical slot, through the request's row of the block table.

#include "ops.h"
#include "parallel.h"

namespace dsa::cpu {
namespace {

// Writes a row's slots, -1 where invalid, and returns how many are valid.
int32_t translate_row(const int32_t* indices, int64_t topk, const int32_t* table, int64_t capacity,
                      int64_t page_size, int32_t* slots) {
  int32_t count = 0;
  for (int64_t i = 0; i < topk; ++i) {
    int64_t slot = -1;
    if (indices[i] >= 0 && indices[i] < capacity) {
      // 32-bit division is several times the speed of 64-bit; both operands fit.
      const uint32_t index = static_cast<uint32_t>(indices[i]);
      const uint32_t size = static_cast<uint32_t>(page_size);
      const int64_t page = table[index / size];
      if (page >= 0) slot = page * page_size + index % size;
      if (slot > INT32_MAX) slot = -1;
    }
    slots[i] = static_cast<int32_t>(slot);
    count += slot >= 0;
  }
  return count;
}

}  // namespace

void indices_to_slots(const IndicesToSlotsParams& p) {
  constexpr int64_t kBlock = 16;
  const int64_t num_rows = p.indices.size[0], topk = p.indices.size[1];
  const int64_t batch = p.block_table.size[0], max_pages = p.block_table.size[1];
  const int64_t rows_per_request = batch > 0 ? num_rows / batch : 0;
  parallel_items((num_rows + kBlock - 1) / kBlock, [&](int64_t block) {
    for (int64_t row = block * kBlock; row < num_rows && row < (block + 1) * kBlock; ++row) {
      const int64_t request =
          p.row_request ? p.row_request.as<const int32_t>()[row] : row / rows_per_request;
      const bool known = request >= 0 && request < batch;
      p.counts.as<int32_t>()[row] = translate_row(
          p.indices.as<const int32_t>() + row * p.indices.stride[0], topk,
          p.block_table.as<const int32_t>() + (known ? request * p.block_table.stride[0] : 0),
          known ? max_pages * p.page_size : 0, p.page_size,
          p.slots.as<int32_t>() + row * p.slots.stride[0]);
    }
  });
}

}  // namespace dsa::cpu
