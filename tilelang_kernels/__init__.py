"""DSA ops as TileLang kernels, for the machines that the CUDA C++ kernels are not for.

A module is called after its op: the kernel reads like the op's formula, and the function of the
op's name launches it. Importing this package does not import TileLang.
"""

OPS = (
    "indexer_k_cache_gather",
    "indexer_k_cache_store",
    "indexer_q_rope_quant",
    "mla_cache_gather",
    "mla_cache_store",
    "mqa_logits",
)  # that have a kernel so far
