"""What `mqa_logits` and `indexer_topk`, and their paged forms, share."""

from __future__ import annotations

import torch

from dsa_kernels.testing.cases import _rules
from dsa_kernels.testing.cases._common import (
    block_table,
    floats,
    index_cache,
    integers,
    ragged,
    strided,
    used_slots,
)

HOSTILE = ["normal", "normal", "zeros", "ties", "huge", "nan", "inf"]


def ragged_inputs(
    generator: torch.Generator,
    num_rows: int,
    seq_len: int,
    num_heads: int,
    head_dim: int,
    dtype: str,
    k_scale: bool,
    bounds: str,
    data: str,
    pad: int,
) -> list:
    """q, k, weights, k_scale, row_start, row_end.

    bounds: "full" (None), "causal" (row r of the last num_rows queries sees what precedes it) or
    "ragged" (anything, edges included; keys that no row sees are NaN).
    """
    q = floats((num_rows, num_heads, head_dim), generator, dtype, data)
    k = floats((seq_len, head_dim), generator, dtype, data)
    weights = torch.randn((num_rows, num_heads), generator=generator)
    scale = torch.rand(seq_len, generator=generator) + 0.5 if k_scale else None
    start = end = None
    if bounds == "causal":
        end = (torch.arange(num_rows) + seq_len - num_rows + 1).int()
    elif bounds == "ragged":
        start = integers(-2, seq_len // 2 + 1, (num_rows,), generator)
        end = integers(-2, seq_len + 2, (num_rows,), generator)
        column = torch.arange(seq_len)
        seen = ((column >= start[:, None]) & (column < end[:, None])).any(0)
        k.view(torch.uint8)[~seen] = 0xFF  # NaN in each type
        if scale is not None:
            scale[~seen] = torch.nan
    return [strided(q, pad), strided(k, pad), strided(weights, pad), scale, start, end]


def random_ragged(rng) -> dict:
    dtype = rng.choice(["float8_e4m3fn", "bfloat16", "float32"])
    return dict(
        num_rows=rng.randint(1, 6),
        seq_len=rng.choice([1, 15, 64, rng.randint(1, 900)]),
        num_heads=rng.choice([8, 16, 32, 64]),
        head_dim=rng.choice([64, 128]),
        dtype=dtype,
        k_scale=rng.random() < 0.6,
        bounds=rng.choice(["full", "causal", "ragged", "ragged"]),
        data=rng.choice(HOSTILE),
        pad=rng.choice([0, 0, 16]),
    )


def pairs(num_rows: int, seq_len: int, bounds: str) -> int:
    """(query, key) pairs that are scored; "ragged" is counted as "full"."""
    if bounds != "causal":
        return num_rows * seq_len
    return sum(max(0, seq_len - num_rows + 1 + r) for r in range(num_rows))


def ragged_scores(arguments: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """fp64 scores of all (row, key) pairs and their bounds, from an op's arguments by name."""
    return _rules.scores(*(arguments[n] for n in ("q", "k", "weights", "k_scale")))


def paged_inputs(
    generator: torch.Generator,
    seq_lens: list[int] | list[list[int]],  # [batch] or [batch, next_n]
    next_n: int,
    num_heads: int,
    head_dim: int,
    page_size: int,
    data: str,
    scale_format: str,
    broken: float,
    pad: int,
) -> list:
    """q, cache, weights, seq_lens [batch, next_n], block_table; NaN past every request's length."""
    batch = len(seq_lens)
    lens = torch.tensor(visible(seq_lens, next_n), dtype=torch.int32).view(batch, next_n)
    keys = longest(seq_lens)
    table, num_pages = block_table(keys, page_size, generator, broken=broken)
    cache = index_cache(
        num_pages,
        page_size,
        head_dim,
        generator,
        used=used_slots(table, keys, page_size, num_pages),
        data=data,
        scale_format=scale_format,
        pad=4 * pad,
    )
    q = floats((batch, next_n, num_heads, head_dim), generator, "float8_e4m3fn", data)
    weights = torch.randn((batch * next_n, num_heads), generator=generator)
    return [strided(q, pad), cache, strided(weights, pad), lens, strided(table, pad)]


def random_paged(rng) -> dict:
    batch, next_n = rng.randint(1, 4), rng.randint(1, 3)
    longest = rng.choice([1, 70, rng.randint(1, 900)])
    lens = ragged(rng, batch, longest)
    if rng.random() < 0.4:
        lens = [ragged(rng, next_n, longest) for _ in range(batch)]
    return dict(
        seq_lens=lens,
        next_n=next_n,
        num_heads=rng.choice([8, 16, 32, 64]),
        head_dim=rng.choice([64, 128]),
        page_size=rng.choice([1, 2, 16, 64, rng.randint(1, 100)]),
        data=rng.choice(HOSTILE),
        scale_format=rng.choice(["ue8m0", "float32"]),
        broken=rng.choice([0.0, 0.0, 0.3]),
        pad=rng.choice([0, 0, 16]),
    )


def longest(seq_lens: list) -> list[int]:
    """Keys of each request that some of its query tokens see."""
    return [max(0, max(n) if isinstance(n, list) else n) for n in seq_lens]


def visible(seq_lens: list, next_n: int) -> list[int]:
    """What each row sees: the last query token of a request all its keys, each earlier one less."""
    per_request = [
        n if isinstance(n, list) else [n - next_n + 1 + i for i in range(next_n)] for n in seq_lens
    ]
    return [n for lengths in per_request for n in lengths]


def paged_scores(arguments: dict, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """fp64 scores [num_rows, width] and their bounds; keys on invalid pages score -inf."""
    q, cache, table = (arguments[n] for n in ("q", "cache", "block_table"))
    batch, next_n = q.shape[:2]
    num_pages, page_size = cache.shape[:2]
    codes, scales = _rules.index_records(cache)
    gold = torch.full((batch * next_n, width), -torch.inf, dtype=torch.float64)
    bound = torch.zeros_like(gold)
    position = torch.arange(min(width, table.shape[1] * page_size))
    for b in range(batch):
        page = table[b, position // page_size].long()
        valid = (page >= 0) & (page < num_pages)
        slot = (page * page_size + position % page_size)[valid]
        rows = slice(b * next_n, (b + 1) * next_n)
        weights = arguments["weights"][rows]
        g, e = _rules.scores(q[b], codes[slot].float(), weights, scales[slot])
        gold[rows, position[valid]], bound[rows, position[valid]] = g, e
    return gold, bound
