"""Sparse multi-latent attention over a paged cache: one softmax over one or two scopes.

The keys of a row are split in parts, for blocks to take, by the kernel of sparse_mla_prefill; the
parts of all scopes are merged.
"""

import torch

from tilelang_kernels import sparse_mla_prefill as prefill
from tilelang_kernels.merge_attention_states import merge_attention_states
from tilelang_kernels.pieces import attention
from tilelang_kernels.pieces.arguments import copy_back, writable

FIXED_KEYS = 512  # of a part that must not depend on the batch
FEWEST_KEYS = 256  # of a part; fewer are not worth their merging
BLOCKS = 256  # that keep a GPU busy
# All kernels of the op but merge_attention_states'.
CONFIGURATIONS = [
    configuration | {"out_dtype": out_dtype}
    for configuration in prefill.CONFIGURATIONS
    for out_dtype in ("bfloat16", "float32")
]


kernel = prefill.kernel


def keys_of_part(tiles: int, topk: int, batch_invariant: bool) -> int:
    """tiles: how many there are of rows and heads."""
    if batch_invariant:
        return FIXED_KEYS
    parts = min(max(BLOCKS // tiles, 1), -(-topk // FEWEST_KEYS))
    return -(-topk // parts)


def sparse_mla_decode(
    run, q, cache, indices, topk_length, attn_sink, extra_cache, extra_indices, extra_topk_length,
    sm_scale, cache_format, batch_invariant, out, lse,
) -> None:  # fmt: skip
    """The op's schema; `run` is what runs kernels."""
    num_heads = q.shape[2]
    if lse.numel() == 0:
        return
    tile = prefill.tile_of(run.target, num_heads <= prefill.NARROW)
    tiles = q.shape[0] * q.shape[1] * -(-num_heads // tile.rows)
    launches, num_parts = [], 0  # of scopes that have keys
    for records, selected, length in (
        (cache, indices, topk_length),
        (extra_cache, extra_indices, extra_topk_length),
    ):
        if records is None or records.shape[0] * records.shape[1] * selected.shape[2] == 0:
            continue
        keys = keys_of_part(tiles, selected.shape[2], batch_invariant)
        keys = -(-keys // tile.columns) * tile.columns
        parts = -(-selected.shape[2] // keys)
        length = None if length is None else length.flatten()
        launches.append((records, selected.flatten(0, 1), length, (keys, num_parts, parts)))
        num_parts += parts
    if num_parts == 0:
        out.zero_()
        lse.fill_(-attention.INFINITY)
        return
    rows, results = q.flatten(0, 1), [writable(out), writable(lse)]
    whole, whole_lse = (result.flatten(0, 1) for result in results)
    if num_parts == 1:
        outs, lses = whole[None], whole_lse[None]
    else:
        outs, lses = (
            t.new_empty((num_parts, *t.shape), dtype=torch.float32) for t in (whole, whole_lse)
        )
    for records, selected, length, parts in launches:
        prefill.launch(
            run, rows, records, selected, None, length, attn_sink if num_parts == 1 else None,
            sm_scale, cache_format, parts, outs, torch.empty_like(lses), lses,
        )  # fmt: skip
    if num_parts > 1:
        merge_attention_states(run, outs, lses, attn_sink, whole, whole_lse)
    for tensor, result in zip((out, lse), results, strict=True):
        copy_back(tensor, result)
