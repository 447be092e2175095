// The CPU ops. Each is defined in the file of its name.
#pragma once

#include "../params.h"

namespace dsa::cpu {

void mqa_logits(const MqaLogitsParams& p);
void indexer_topk(const IndexerTopkParams& p);
void topk_indices(const TopkIndicesParams& p);

}  // namespace dsa::cpu
