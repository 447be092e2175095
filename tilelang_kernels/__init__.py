"""DSA ops as TileLang kernels, for the machines that the CUDA C++ kernels are not for.

A module is called after its op: the kernel reads like the op's formula, and the function of the
op's name launches it. Importing this package does not import TileLang.
"""

OPS = (
    "indexer_k_cache_gather",
    "indexer_k_cache_store",
    "indexer_q_rope_quant",
    "indices_to_slots",
    "merge_attention_states",
    "mla_cache_gather",
    "mla_cache_store",
    "mqa_logits",
    "paged_mqa_logits",
    "sparse_mla_decode",
    "sparse_mla_prefill",
    "topk_indices",
)
COMPOSED = ("indexer_topk", "paged_indexer_topk")  # of other ops' kernels
