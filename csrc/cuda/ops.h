// The CUDA ops. Each is defined in the launch.cpp of its folder. They enqueue and return.
#pragma once

#include "../params.h"
#include "launch.h"

namespace dsa::cuda {

void indexer_q_rope_quant(const IndexerQRopeQuantParams& p, const Target& target);
void indexer_k_cache_store(const IndexerKCacheStoreParams& p, const Target& target);
void indexer_k_cache_gather(const IndexerKCacheGatherParams& p, const Target& target);
void indices_to_slots(const IndicesToSlotsParams& p, const Target& target);
void merge_attention_states(const MergeAttentionStatesParams& p, const Target& target);
void mla_cache_gather(const MlaCacheGatherParams& p, const Target& target);
void mla_cache_store(const MlaCacheStoreParams& p, const Target& target);
void mqa_logits(const MqaLogitsParams& p, const Target& target);

}  // namespace dsa::cuda
