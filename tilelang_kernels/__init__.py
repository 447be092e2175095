"""DSA ops as TileLang kernels, for the machines that the CUDA C++ kernels are not for.

A module is called after its op: the kernel reads like the op's formula, and the function of the
op's name launches it. Importing this package does not import TileLang.
"""

OPS = (  # that have kernels so far
    "mqa_logits",
    "paged_mqa_logits",
    "topk_indices",
    "indices_to_slots",
    "merge_attention_states",
    "sparse_mla_prefill",
    "sparse_mla_decode",
)
COMPOSED = ("indexer_topk", "paged_indexer_topk")  # of other ops' kernels
