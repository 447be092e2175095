"""dsa_kernels: kernels for DeepSeek Sparse Attention (DSA) as torch ops.

The chain: indexer input and cache writes -> indexer logits -> exact top-k -> sparse MLA.
Every op is a function here and `torch.ops.dsa_kernels.<op>`; `explain(op)` says which backend runs.
"""

from __future__ import annotations

from dsa_kernels._native import extension_path as _extension_path
from dsa_kernels._op import Explanation, backends, explain, load_native as _load_native
from dsa_kernels._version import __version__
from dsa_kernels._warmup import warmup
from dsa_kernels.ops.indexer_k_cache_gather import indexer_k_cache_gather
from dsa_kernels.ops.indexer_k_cache_store import indexer_k_cache_store
from dsa_kernels.ops.indexer_q_rope_quant import indexer_q_rope_quant
from dsa_kernels.ops.indexer_topk import indexer_topk
from dsa_kernels.ops.indices_to_slots import indices_to_slots
from dsa_kernels.ops.merge_attention_states import merge_attention_states
from dsa_kernels.ops.mla_cache_gather import mla_cache_gather
from dsa_kernels.ops.mla_cache_store import mla_cache_store
from dsa_kernels.ops.mqa_logits import mqa_logits
from dsa_kernels.ops.paged_indexer_topk import paged_indexer_topk
from dsa_kernels.ops.paged_mqa_logits import paged_mqa_logits
from dsa_kernels.ops.sparse_mla_decode import sparse_mla_decode
from dsa_kernels.ops.sparse_mla_prefill import sparse_mla_prefill
from dsa_kernels.ops.topk_indices import topk_indices

__all__ = [
    "Explanation",
    "__version__",
    "backends",
    "explain",
    "indexer_k_cache_gather",
    "indexer_k_cache_store",
    "indexer_q_rope_quant",
    "indexer_topk",
    "indices_to_slots",
    "merge_attention_states",
    "mla_cache_gather",
    "mla_cache_store",
    "mqa_logits",
    "paged_indexer_topk",
    "paged_mqa_logits",
    "sparse_mla_decode",
    "sparse_mla_prefill",
    "topk_indices",
    "warmup",
]

_load_native(_extension_path())
