"""The ops in plain torch, as fast as it readily goes: what "x torch" is measured against.

`variants(op, arguments)` gives the ways worth trying, of which the fastest counts. The costly ops
are written out here in matrix products over blocks of rows, in fp32 and in bf16, with keys of a
causal block cut where its last row ends; the others are the references, which are vectorised torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from dsa_kernels._op import OPS
from dsa_kernels.formats import D_V
from dsa_kernels.reference.index_cache import read_index_keys
from dsa_kernels.reference.mla_cache_gather import read_records
from dsa_kernels.testing.differential import copy_written, named

BLOCK_BYTES = 128 << 20  # of intermediates
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Call = Callable[[], object]


def variants(op: str, arguments: list) -> dict[str, Call]:
    arguments = copy_written(OPS[op], arguments)
    if op not in _WRITTEN_OUT:
        return {"": lambda: OPS[op].reference(*arguments)}
    return _WRITTEN_OUT[op](**named(OPS[op], arguments))


def _blocks(rows: int, bytes_per_row: int):
    size = max(1, BLOCK_BYTES // max(bytes_per_row, 1))
    return ((begin, min(begin + size, rows)) for begin in range(0, rows, size))


def _in_each_dtype(function) -> dict[str, Call]:
    return {name: lambda dtype=dtype: function(dtype) for name, dtype in DTYPES.items()}


def _score(q, keys, weights, scales) -> torch.Tensor:
    """fp32 [rows, keys] of q [rows, heads, dim] and keys [keys, dim] of one dtype."""
    heads = (q.flatten(0, 1) @ keys.T).unflatten(0, q.shape[:2]).relu_()
    scores = torch.bmm(weights[:, None].to(heads.dtype), heads)[:, 0].float()
    return scores if scales is None else scores * scales


def _score_blocks(q, k, weights, k_scale, row_end, dtype):
    """(first row, last row, scores) of blocks of rows."""
    keys, queries = k.to(dtype), q.to(dtype)
    rows, heads, _ = q.shape
    for begin, end in _blocks(rows, heads * k.shape[0] * dtype.itemsize):
        last = k.shape[0] if row_end is None else max(int(row_end[begin:end].max()), 0)
        scales = None if k_scale is None else k_scale[:last]
        scores = _score(queries[begin:end], keys[:last], weights[begin:end], scales)
        if row_end is not None:
            past = torch.arange(last) >= row_end[begin:end, None]
            scores.masked_fill_(past, -torch.inf)
        yield begin, end, scores


def _mqa_logits(q, k, weights, k_scale, row_start, row_end, layout, fill, out):
    def run(dtype):
        for begin, end, scores in _score_blocks(q, k, weights, k_scale, row_end, dtype):
            out[begin:end, : scores.shape[1]] = scores
            out[begin:end, scores.shape[1] :] = -torch.inf

    return _in_each_dtype(run)


def _indexer_topk(q, k, weights, k_scale, row_start, row_end, topk, workspace, out):
    def run(dtype):
        for begin, end, scores in _score_blocks(q, k, weights, k_scale, row_end, dtype):
            count = min(topk, scores.shape[1])
            out[begin:end, :count] = scores.topk(count, sorted=False).indices

    return _in_each_dtype(run)


def _request_scores(q, cache, weights, seq_lens, block_table, dtype):
    """(first row, last row, scores) of each request."""
    batch, next_n = q.shape[:2]
    page_size = cache.shape[1]
    for b in range(batch):
        keys = max(int(seq_lens[b].max()), 0)
        position = torch.arange(keys)
        slots = block_table[b].long()[position // page_size] * page_size + position % page_size
        codes, scales = read_index_keys(cache, slots)
        rows = slice(b * next_n, (b + 1) * next_n)
        scores = _score(q[b].to(dtype), codes.to(dtype), weights[rows], scales)
        scores.masked_fill_(position >= seq_lens[b, :, None], -torch.inf)
        yield rows.start, rows.stop, scores


def _paged_mqa_logits(q, cache, weights, seq_lens, block_table, fill, out):
    def run(dtype):
        for begin, end, scores in _request_scores(q, cache, weights, seq_lens, block_table, dtype):
            out[begin:end, : scores.shape[1]] = scores

    return _in_each_dtype(run)


def _paged_indexer_topk(
    q, cache, weights, seq_lens, block_table, topk, max_seq_len, workspace, out
):
    def run(dtype):
        for begin, end, scores in _request_scores(q, cache, weights, seq_lens, block_table, dtype):
            count = min(topk, scores.shape[1])
            out[begin:end, :count] = scores.topk(count, sorted=False).indices

    return _in_each_dtype(run)


def _topk_indices(scores, row_start, row_end, topk, out):
    count = min(topk, scores.shape[1])
    return {
        name: lambda in_order=in_order: scores.topk(count, sorted=in_order)
        for name, in_order in (("sorted", True), ("unsorted", False))
    }


def _attend(q, keys, sm_scale, attn_sink, out):
    """q [rows, heads, d_qk], keys [rows, n, d_qk] -> out [rows, heads, 512]."""
    scores = torch.bmm(q, keys.mT).float() * sm_scale
    if attn_sink is None:
        p = scores.softmax(-1)
    else:
        sink = attn_sink[None, :, None].expand(*scores.shape[:2], 1)
        p = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
    out.copy_(torch.bmm(p.to(keys.dtype), keys[..., :D_V]))


def _sparse_mla(q, out, gather, topk, sm_scale, attn_sink):
    """gather(begin, end, dtype): the selected keys of those rows, [rows, topk, d_qk]."""

    def run(dtype):
        rows, heads, d_qk = q.shape
        per_row = topk * (d_qk + 2 * heads) * 4
        for begin, end in _blocks(rows, per_row):
            keys = gather(begin, end, dtype)
            _attend(q[begin:end].to(dtype), keys, sm_scale, attn_sink, out[begin:end])

    return _in_each_dtype(run)


def _records(cache, indices, cache_format, dtype):
    """Keys [rows, topk, d_qk] of valid slots [rows, topk]."""
    keys = read_records(cache, indices.flatten().long(), cache_format)
    return keys.to(dtype).unflatten(0, indices.shape)


def _sparse_mla_prefill(
    q, kv, cache, indices, kv_start, topk_length, attn_sink, sm_scale, cache_format, out, **_
):
    def gather(begin, end, dtype):
        if cache is not None:
            return _records(cache, indices[begin:end], cache_format, dtype)
        chosen = kv.index_select(0, indices[begin:end].flatten())
        return chosen.to(dtype).unflatten(0, indices[begin:end].shape)

    return _sparse_mla(q, out, gather, indices.shape[1], sm_scale, attn_sink)


def _sparse_mla_decode(
    q, cache, indices, attn_sink, extra_cache, extra_indices, sm_scale, cache_format, out, **_
):
    scopes = [(cache, indices.flatten(0, 1))]
    if extra_cache is not None:
        scopes.append((extra_cache, extra_indices.flatten(0, 1)))

    def gather(begin, end, dtype):
        parts = [_records(c, i[begin:end], cache_format, dtype) for c, i in scopes]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    topk = sum(i.shape[1] for _, i in scopes)
    return _sparse_mla(q.flatten(0, 1), out.flatten(0, 1), gather, topk, sm_scale, attn_sink)


_WRITTEN_OUT = {
    "indexer_topk": _indexer_topk,
    "mqa_logits": _mqa_logits,
    "paged_indexer_topk": _paged_indexer_topk,
    "paged_mqa_logits": _paged_mqa_logits,
    "sparse_mla_decode": _sparse_mla_decode,
    "sparse_mla_prefill": _sparse_mla_prefill,
    "topk_indices": _topk_indices,
}
