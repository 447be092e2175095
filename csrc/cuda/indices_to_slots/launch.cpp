#include <algorithm>

#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void indices_to_slots(const IndicesToSlotsParams& p, const Target& target) {
  const int64_t num_rows = p.indices.size[0], topk = p.indices.size[1];
  const int64_t batch = p.block_table.size[0];
  if (num_rows == 0) return;
  const int64_t capacity = std::min(p.block_table.size[1] * p.page_size, int64_t{1} << 31);
  const IndicesToSlotsArgs args{
      .indices = p.indices.as<const int32_t>(),
      .block_table = p.block_table.as<const int32_t>(),
      .row_request = p.row_request.as<const int32_t>(),
      .slots = p.slots.as<int32_t>(),
      .counts = p.counts.as<int32_t>(),
      .num_rows = num_rows,
      .topk = topk,
      .batch = batch,
      .indices_stride = p.indices.stride[0],
      .block_table_stride = p.block_table.stride[0],
      .slots_stride = p.slots.stride[0],
      .requests = Blocks::of(batch > 0 ? num_rows / batch : 0),
      .capacity = static_cast<uint32_t>(capacity),
      .pages = Blocks::of(p.page_size),
  };
  const bool vectors = topk % kSlotVector == 0 && aligned(p.indices, 16) && aligned(p.slots, 16);
  const int64_t threads = std::clamp<int64_t>(topk / kSlotVector, 32, kSlotThreads) / 32 * 32;
  Shape shape;
  shape.grid[0] = ctas_for(num_rows, 1);
  shape.block = static_cast<uint32_t>(threads);
  launch(target, "indices_to_slots.sm80", variant("indices_to_slots", vectors).c_str(), shape,
         args);
}

}  // namespace dsa::cuda
