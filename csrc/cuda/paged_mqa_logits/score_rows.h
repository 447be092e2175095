// Requests of paged_mqa_logits, for the fused selection that scores a few at a time.
#pragma once

#include "../../params.h"
#include "../launch.h"

namespace dsa::cuda {

// Scores all query tokens of requests [first, first + count) of p into the first count * next_n rows
// of p.out. Rows of fewer than `min_keys` keys are not scored.
void score_requests(const PagedMqaLogitsParams& p, int64_t first, int64_t count, int min_keys,
                    const Target& target);

}  // namespace dsa::cuda
