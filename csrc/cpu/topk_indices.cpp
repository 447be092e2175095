// Exact top-k of a row: bisect the space of total-order keys for the k-th largest key T, counting
// at each step; then emit, in index order, every key above T and the first ties at T until k are
// out.
//
//   key(x): NaN -> INT_MIN, else the monotone int32 image of x + 0.0f (which merges -0 and +0)
//
// No scratch, no data-dependent buffer that could overflow, and ties go to the smallest index by
// construction. Rows run in parallel.

#include "isa/isa.h"
#include "ops.h"
#include "parallel.h"

namespace dsa::cpu {
namespace {

void select_row(const float* scores, int64_t n, int64_t topk, int32_t* out) {
  const Isa& isa = current_isa();
  int64_t written = 0;
  if (n <= topk) {
    for (; written < n; ++written) out[written] = static_cast<int32_t>(written);
  } else {
    // Invariant: count(key >= low) >= topk > count(key >= high); the threshold is in [low, high).
    int64_t low = INT32_MIN, high = int64_t{INT32_MAX} + 1;
    int64_t above = 0;  // count(key >= high)
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      const int64_t count = isa.count_at_least(scores, n, static_cast<int32_t>(middle));
      if (count >= topk) {
        low = middle;
        if (count == topk) break;
      } else {
        high = middle;
        above = count;
      }
    }
    // If the loop broke, exactly topk keys are >= low, so no limit on its ties; else high is
    // low + 1 and the ties at low fill up what `above` leaves.
    const int64_t ties = high - low > 1 ? topk : topk - above;
    written = isa.emit_selected(scores, n, static_cast<int32_t>(low), ties, out);
  }
  for (; written < topk; ++written) out[written] = -1;
}

}  // namespace

void topk_indices(const TopkIndicesParams& p) {
  parallel_items(p.scores.size[0], [&](int64_t row) {
    const Range range = row_range(p.row_start, p.row_end, row, p.scores.size[1]);
    select_row(p.scores.as<const float>() + row * p.scores.stride[0] + range.start, range.size(),
               p.topk, p.out.as<int32_t>() + row * p.out.stride[0]);
  });
}

}  // namespace dsa::cpu
