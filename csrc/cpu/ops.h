// The CPU ops. Each is defined in the file of its name.
#pragma once

#include "../params.h"

namespace dsa::cpu {

void indices_to_slots(const IndicesToSlotsParams& p);
void merge_attention_states(const MergeAttentionStatesParams& p);
void mla_cache_gather(const MlaCacheGatherParams& p);
void mla_cache_store(const MlaCacheStoreParams& p);
void mqa_logits(const MqaLogitsParams& p);
void indexer_topk(const IndexerTopkParams& p);
void topk_indices(const TopkIndicesParams& p);

}  // namespace dsa::cpu
