// The CPU ops. Each is defined in the file of its name.
#pragma once

#include "../params.h"

namespace dsa::cpu {

void indexer_q_rope_quant(const IndexerQRopeQuantParams& p);
void indexer_k_cache_store(const IndexerKCacheStoreParams& p);
void indexer_k_cache_gather(const IndexerKCacheGatherParams& p);
void indices_to_slots(const IndicesToSlotsParams& p);
void merge_attention_states(const MergeAttentionStatesParams& p);
void mla_cache_gather(const MlaCacheGatherParams& p);
void mla_cache_store(const MlaCacheStoreParams& p);
void mqa_logits(const MqaLogitsParams& p);
void indexer_topk(const IndexerTopkParams& p);
void paged_indexer_topk(const PagedIndexerTopkParams& p);
void paged_mqa_logits(const PagedMqaLogitsParams& p);
void sparse_mla_decode(const SparseMlaDecodeParams& p);
void sparse_mla_prefill(const SparseMlaPrefillParams& p);
void topk_indices(const TopkIndicesParams& p);

}  // namespace dsa::cpu
