"""ggml, llama.cpp's library: its fp32 lightning indexer, its top-k, and its attention.

Keys are dequantised beforehand, as ggml reads no fp8; it is timed on whichever of f16 and f32 keys
it is faster with. llama.cpp has no sparse attention on the CPU: selected keys become a mask of
attention to all keys, and what is masked is passed over. So it is here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.peers import home
from bench.peers._ggml_graph import Graph, Library
from bench.timing import once
from dsa_kernels._op import OPS
from dsa_kernels.formats import D_V
from dsa_kernels.reference.index_cache import read_index_keys
from dsa_kernels.reference.mla_cache_gather import read_records
from dsa_kernels.testing.differential import named

NAME = "ggml"
KEY_TYPES = (torch.float16, torch.float32)
BATCH = 512  # queries that llama.cpp computes at once, against the keys there are till the last

Call = Callable[[], object]  # returns a tensor; of more than BATCH queries a list, by batch


def load() -> Ggml | None:
    return Ggml(Library(home(NAME))) if home(NAME).exists() else None


class Ggml:
    def __init__(self, library: Library):
        self.library = library

    def call(self, op: str, shape: dict, arguments: list) -> Call | None:
        prepare = _PREPARE.get(op)
        return None if prepare is None else prepare(self.library, **named(OPS[op], arguments))


def _mask(seen: torch.Tensor) -> torch.Tensor:
    """float16: 0 where `seen`, else -inf."""
    return torch.zeros(seen.shape, dtype=torch.float16).masked_fill_(~seen, -torch.inf)


def _index(library, q, keys, weights, seen, topk: int | None = None) -> Call:
    """q [batch, n, heads, dim], keys float32 [batch, width, dim], weights [batch * n, heads], seen
    bool [batch, n, width] -> scores [batch * n, width], or the topk best of each row."""
    batch, n, heads, dim = q.shape
    width = keys.shape[1]
    q, mask = q.float(), _mask(seen)

    def prepare(dtype: torch.dtype) -> Call:
        graph = Graph(library)
        node = library.lightning_indexer(
            graph.context,
            graph.input(q, dim, heads, n, batch),
            graph.input(keys.to(dtype), dim, 1, width, batch),
            graph.input(weights, heads, n, 1, batch),
            graph.input(mask, width, n, 1, batch),
        )
        result = graph.result(node, torch.float32, batch * n, width)
        if topk is not None:
            best = min(topk, width)
            node = library.top_k(graph.context, node, best)
            result = graph.result(node, torch.int32, batch * n, best)
        return _runner(graph, result)

    # Twice each, as the first call pays for fresh memory.
    return min(map(prepare, KEY_TYPES), key=lambda call: min(once(call), once(call)))


def _runner(graph: Graph, result: torch.Tensor) -> Call:
    def run() -> torch.Tensor:
        graph.run()
        return result

    return run


def _ragged(library, q, k, weights, k_scale, row_start, row_end, topk=None) -> Call:
    keys = k.float() if k_scale is None else k.float() * k_scale[:, None]
    keys = keys.nan_to_num(nan=0.0)  # of keys that no row sees
    position = torch.arange(len(k))
    seen = torch.ones(len(q), len(k), dtype=torch.bool)
    if row_start is not None:
        seen &= position >= row_start[:, None]
    if row_end is not None:
        seen &= position < row_end[:, None]

    def batch(rows: slice, last: int) -> Call:
        mine = seen[None, rows, :last]
        return _index(library, q[None, rows], keys[None, :last], weights[rows], mine, topk)

    if len(q) <= BATCH:
        return batch(slice(None), len(k))
    batches = []
    for begin in range(0, len(q), BATCH):
        rows = slice(begin, begin + BATCH)
        some = seen[rows].any(0).nonzero()
        if len(some):
            batches.append(batch(rows, int(some[-1]) + 1))
    return lambda: [call() for call in batches]


def _paged(library, q, cache, weights, seq_lens, block_table, width: int, topk=None) -> Call:
    keys = torch.zeros(len(q), width, q.shape[-1])
    page_size = cache.shape[1]
    for b, longest in enumerate(seq_lens.amax(1).clamp(0, width).tolist()):
        position = torch.arange(longest)
        slots = block_table[b].long()[position // page_size] * page_size + position % page_size
        codes, scales = read_index_keys(cache, slots)
        keys[b, :longest] = codes.float() * scales[:, None]
    seen = torch.arange(width) < seq_lens[..., None]
    return _index(library, q, keys, weights, seen, topk)


def _mqa_logits(library, q, k, weights, k_scale, row_start, row_end, layout, fill, out):
    if layout != "full":
        return None
    return _ragged(library, q, k, weights, k_scale, row_start, row_end)


def _paged_mqa_logits(library, q, cache, weights, seq_lens, block_table, fill, out):
    return _paged(library, q, cache, weights, seq_lens, block_table, out.shape[1])


def _indexer_topk(library, q, k, weights, k_scale, row_start, row_end, topk, **_):
    if row_start is not None:  # its indices count from there
        return None
    return _ragged(library, q, k, weights, k_scale, None, row_end, topk)


def _paged_indexer_topk(library, q, cache, weights, seq_lens, block_table, topk, max_seq_len, **_):
    return _paged(library, q, cache, weights, seq_lens, block_table, max_seq_len, topk)


def _topk_indices(library, scores, row_start, row_end, topk, out):
    if row_start is not None or row_end is not None:
        return None  # it takes whole rows
    rows, width = scores.shape
    best = min(topk, width)
    graph = Graph(library)
    node = library.top_k(graph.context, graph.input(scores, width, rows), best)
    return _runner(graph, graph.result(node, torch.int32, rows, best))


def _attend(library, q, keys, counts, sm_scale, attn_sink, shape) -> Call:
    """q [rows, heads, dim], keys float16 [n, dim], counts float32 [rows, n], how often a row
    selects a key -> `shape`."""
    rows, heads, dim = q.shape
    n = len(keys)
    graph = Graph(library)
    k = graph.input(keys, dim, n)
    stride = 2 * dim
    v = library.view_4d(graph.context, k, D_V, n, 1, 1, stride, stride * n, stride * n, 0)
    node = library.flash_attn_ext(
        graph.context,
        graph.input(q.float().transpose(0, 1), dim, rows, heads),
        k,
        v,
        graph.input(counts.log().half(), n, rows),  # adds to the score: a key counted twice
        sm_scale,
        0.0,
        0.0,
    )
    if attn_sink is not None:
        library.flash_attn_ext_add_sinks(node, graph.input(attn_sink, heads))
    return _runner(graph, graph.result(node, torch.float32, *shape))


def _counts(indices, capacity: int, start, lengths) -> torch.Tensor:
    """float32 [rows, capacity]: how often each row of `indices` selects each key."""
    index = indices.long()
    valid = index >= 0
    if start is not None:
        index = index + start.long()[:, None]
    valid &= (index >= 0) & (index < capacity)
    if lengths is not None:
        valid &= torch.arange(index.shape[1]) < lengths[:, None]
    counts = torch.zeros(len(index), capacity)
    return counts.scatter_add_(1, index.where(valid, 0), valid.float())


def _dequantised(cache: torch.Tensor, cache_format: str, counts: torch.Tensor) -> torch.Tensor:
    """float16 [slots, d_qk] of a cache, "" for contiguous keys; 1 in what no row selects."""
    used = counts.any(0).nonzero()[:, 0]
    keys = read_records(cache, used, cache_format) if cache_format else cache[used]
    whole = torch.ones(counts.shape[1], keys.shape[1], dtype=torch.float16)
    whole[used] = keys.half()
    return whole


def _sparse_mla_prefill(
    library,
    q,
    kv,
    cache,
    indices,
    kv_start,
    topk_length,
    attn_sink,
    sm_scale,
    cache_format,
    out,
    **_,
):
    capacity = kv.shape[0] if cache is None else cache.shape[0] * cache.shape[1]
    counts = _counts(indices, capacity, kv_start, topk_length)
    keys = _dequantised(kv if cache is None else cache, cache_format, counts)
    return _attend(library, q, keys, counts, sm_scale, attn_sink, out.shape)


def _sparse_mla_decode(
    library,
    q,
    cache,
    indices,
    topk_length,
    attn_sink,
    extra_cache,
    extra_indices,
    extra_topk_length,
    sm_scale,
    cache_format,
    out,
    **_,
):
    scopes = [(cache, indices, topk_length)]
    if extra_cache is not None:
        scopes.append((extra_cache, extra_indices, extra_topk_length))
    keys, counts = [], []
    for records, slots, lengths in scopes:
        capacity = records.shape[0] * records.shape[1]
        lengths = None if lengths is None else lengths.flatten()
        counts.append(_counts(slots.flatten(0, 1), capacity, None, lengths))
        keys.append(_dequantised(records, cache_format, counts[-1]))
    rows, keys, counts = q.flatten(0, 1), torch.cat(keys), torch.cat(counts, 1)
    return _attend(library, rows, keys, counts, sm_scale, attn_sink, out.shape)


_PREPARE: dict[str, Callable[..., Call | None]] = {
    "indexer_topk": _indexer_topk,
    "mqa_logits": _mqa_logits,
    "paged_indexer_topk": _paged_indexer_topk,
    "paged_mqa_logits": _paged_mqa_logits,
    "sparse_mla_decode": _sparse_mla_decode,
    "sparse_mla_prefill": _sparse_mla_prefill,
    "topk_indices": _topk_indices,
}
