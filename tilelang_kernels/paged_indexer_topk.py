"""The best cached keys of each query token: paged_mqa_logits, then topk_indices, by requests."""

from __future__ import annotations

import torch

from tilelang_kernels.indexer_topk import rows_of_logits
from tilelang_kernels.paged_mqa_logits import paged_mqa_logits
from tilelang_kernels.topk_indices import topk_indices


def paged_indexer_topk(
    run, q, cache, weights, seq_lens, block_table, topk, max_seq_len, workspace, out
) -> None:
    """The op's schema; `run` is what runs kernels."""
    batch, next_n = q.shape[:2]
    if out.numel() == 0 or max_seq_len == 0:
        out.fill_(-1)
        return
    # Of a token that sees at most topk keys, no score is looked at.
    scored = torch.where(seq_lens.clamp(max=max_seq_len) > topk, seq_lens, 0)
    logits = rows_of_logits(workspace, max_seq_len)
    requests_together = len(logits) // next_n
    for first in range(0, batch, requests_together):
        requests = slice(first, first + requests_together)
        rows = slice(first * next_n, (first + requests_together) * next_n)
        tile = logits[: len(out[rows])]
        paged_mqa_logits(
            run, q[requests], cache, weights[rows], scored[requests], block_table[requests], False,
            tile,
        )  # fmt: skip
        topk_indices(run, tile, None, seq_lens[requests].flatten(), topk, out[rows])
