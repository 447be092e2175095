#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "common.h"

namespace dsa {

template <Backend backend>
void indices_to_slots(const Tensor& indices, const Tensor& block_table,
                      const std::optional<Tensor>& row_request, int64_t page_size, Tensor slots,
                      Tensor counts) {
  Call op("indices_to_slots", backend);
  IndicesToSlotsParams p;
  p.indices = op.view<2>("indices", indices, {{DType::kInt32}, {-1, -1}});
  const int64_t num_rows = p.indices.size[0], topk = p.indices.size[1];
  p.block_table = op.view<2>("block_table", block_table, {{DType::kInt32}, {-1, -1}});
  p.row_request = op.view<1>("row_request", row_request, {{DType::kInt32}, {num_rows}});
  STD_TORCH_CHECK(page_size >= 1 && page_size <= INT32_MAX, op,
                  ": page_size must be in [1, 2^31); got ", page_size, ".");
  const int64_t batch = p.block_table.size[0];
  STD_TORCH_CHECK(p.row_request || (batch > 0 ? num_rows % batch == 0 : num_rows == 0), op,
                  ": without row_request, num_rows must be a multiple of batch; got ", num_rows,
                  " rows for a batch of ", batch, ".");
  p.page_size = page_size;
  p.slots = op.output<2>("slots", slots, {{DType::kInt32}, {num_rows, topk}});
  p.counts = op.output<1>("counts", counts, {{DType::kInt32}, {num_rows}});
  op.run(p, cpu::indices_to_slots, cuda::indices_to_slots);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("indices_to_slots", TORCH_BOX(&indices_to_slots<Backend::kCpu>));
  m.impl("indices_to_slots.emulated", TORCH_BOX(&indices_to_slots<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("indices_to_slots", TORCH_BOX(&indices_to_slots<Backend::kCuda>));
}

}  // namespace dsa
