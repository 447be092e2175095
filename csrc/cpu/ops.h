// The CPU ops. Each is defined in the file of its name.
#pragma once

#include "../params.h"

namespace dsa::cpu {

void indexer_q_rope_quant(const IndexerQRopeQuantParams& p);
void indexer_k_cache_store(const IndexerKCacheStoreParams& p);
void indexer_k_cache_gather(const IndexerKCacheGatherParams& p);
void mqa_logits(const MqaLogitsParams& p);
void indexer_topk(const IndexerTopkParams& p);
void sparse_mla_decode(const SparseMlaDecodeParams& p);
void sparse_mla_prefill(const SparseMlaPrefillParams& p);
void topk_indices(const TopkIndicesParams& p);

}  // namespace dsa::cpu
