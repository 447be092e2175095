// The CUDA ops. Each is defined in the launch.cpp of its folder. They enqueue and return.
// Of the scoring ops, rows of fewer than `min_keys` keys are not scored.
#pragma once

#include <algorithm>

#include "../params.h"
#include "launch.h"

namespace dsa::cuda {

// The `min_keys` of a selection of topk.
inline int above(int64_t topk) {
  return static_cast<int>(std::min<int64_t>(topk, INT32_MAX - 1)) + 1;
}

void indexer_q_rope_quant(const IndexerQRopeQuantParams& p, const Target& target);
void indexer_k_cache_store(const IndexerKCacheStoreParams& p, const Target& target);
void indexer_k_cache_gather(const IndexerKCacheGatherParams& p, const Target& target);
void indices_to_slots(const IndicesToSlotsParams& p, const Target& target);
void merge_attention_states(const MergeAttentionStatesParams& p, const Target& target);
void mla_cache_gather(const MlaCacheGatherParams& p, const Target& target);
void mla_cache_store(const MlaCacheStoreParams& p, const Target& target);
void indexer_topk(const IndexerTopkParams& p, const Target& target);
void mqa_logits(const MqaLogitsParams& p, const Target& target);
void mqa_logits(const MqaLogitsParams& p, int min_keys, const Target& target);
void paged_indexer_topk(const PagedIndexerTopkParams& p, const Target& target);
void paged_mqa_logits(const PagedMqaLogitsParams& p, const Target& target);
void paged_mqa_logits(const PagedMqaLogitsParams& p, int min_keys, const Target& target);
void sparse_mla_decode(const SparseMlaDecodeParams& p, const Target& target);
void sparse_mla_prefill(const SparseMlaPrefillParams& p, const Target& target);
void topk_indices(const TopkIndicesParams& p, const Target& target);

}  // namespace dsa::cuda
