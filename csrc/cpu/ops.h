// The CPU ops. Each is defined in the file of its name.
#pragma once

#include "../params.h"

namespace dsa::cpu {

void topk_indices(const TopkIndicesParams& p);

}  // namespace dsa::cpu
