// Indices of the k best entries of each row, exact and in rising order; a CTA or a cluster a row.
#include "kernel.h"
#include "select_row.cuh"

namespace dsa {
namespace {

static_assert(sizeof(SelectShared) <= kTopkSharedBytes);
extern __shared__ __align__(16) uint8_t dynamic_shared[];

template <bool clustered>
__device__ __forceinline__ void topk_indices(const TopkIndicesArgs& a) {
  const Group<clustered> group;
  // Causal rows are longest at the end; the long ones go first.
  const int row = a.num_rows - 1 - static_cast<int>(blockIdx.x) / group.size;
  const int start = max(a.row_start ? a.row_start[row] : 0, 0);
  const int end = min(a.row_end ? a.row_end[row] : a.seq_len, a.seq_len);

  auto& shared = *reinterpret_cast<SelectShared*>(dynamic_shared);
  auto* candidates = reinterpret_cast<uint2*>(dynamic_shared + kTopkSharedBytes);
  auto* all_keys = reinterpret_cast<uint32_t*>(candidates + a.capacity);
  RowSelector<Group<clustered>> selector(group, shared, candidates, all_keys, a.capacity);
  selector.select(a.scores + row * a.scores_stride + start, max(end, start) - start, a.topk,
                  a.out + row * a.out_stride);
}

}  // namespace

#define DSA_TOPK_INDICES(variant, clustered)                                 \
  extern "C" __global__ void __launch_bounds__(kTopkThreads, 2)              \
      topk_indices_##variant(const __grid_constant__ TopkIndicesArgs args) { \
    topk_indices<clustered>(args);                                           \
  }

DSA_TOPK_INDICES(cta, false)
DSA_TOPK_INDICES(cluster, true)

}  // namespace dsa
