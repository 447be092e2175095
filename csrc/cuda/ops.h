// The CUDA ops. Each is defined in the launch.cpp of its folder. They enqueue and return.
#pragma once

#include "../params.h"
#include "launch.h"

namespace dsa::cuda {

void mqa_logits(const MqaLogitsParams& p, const Target& target);
void sparse_mla_prefill(const SparseMlaPrefillParams& p, const Target& target);

}  // namespace dsa::cuda
