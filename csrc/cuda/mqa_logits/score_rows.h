// Rows of mqa_logits, for the fused selection that scores a few at a time.
#pragma once

#include "../../params.h"
#include "../launch.h"

namespace dsa::cuda {

// Scores rows [first_row, first_row + num_rows) of p into the first num_rows rows of p.out. Rows of
// fewer than `min_keys` keys are not scored.
void score_rows(const MqaLogitsParams& p, int64_t first_row, int64_t num_rows, int min_keys,
                const Target& target);

}  // namespace dsa::cuda
