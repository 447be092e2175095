"""Inputs of `paged_mqa_logits`."""

from __future__ import annotations

import torch

from dsa_kernels.testing.cases import _rules, _scoring
from dsa_kernels.testing.cases._common import Work, decode_shapes, dtype_of, item_bytes, poisoned

ROWS = "seq_lens"
SMALL = (
    dict(seq_lens=[9, 20], next_n=3, num_heads=8, head_dim=64, page_size=4),
    dict(seq_lens=[33, 0, 5], next_n=2, num_heads=8, head_dim=64, page_size=7),
)
BENCH = {
    **decode_shapes(lambda m, keys: dict(seq_lens=[keys, keys], num_heads=m.index_heads)),
    "v32-decode-8k-mtp": dict(seq_lens=[8192] * 4, next_n=2, num_heads=64),
}


def make(
    generator: torch.Generator,
    *,
    seq_lens: list,
    num_heads: int,
    next_n: int = 1,
    head_dim: int = 128,
    page_size: int = 64,
    max_seq_len: int | None = None,
    out_dtype: str = "float32",
    fill: bool = True,
    data: str = "normal",
    scale_format: str = "ue8m0",
    broken: float = 0.0,
    pad: int = 0,
) -> list:
    inputs = _scoring.paged_inputs(
        generator, seq_lens, next_n, num_heads, head_dim, page_size, data, scale_format, broken, pad
    )
    if max_seq_len is None:
        max_seq_len = max([1, *inputs[3].flatten().tolist()])
    out = poisoned((len(seq_lens) * next_n, max_seq_len), dtype_of(out_dtype), pad=pad)
    return [*inputs, fill, out]


def random_shape(rng) -> dict:
    shape = _scoring.random_paged(rng)
    shape["out_dtype"] = rng.choice(["float32", "float32", "bfloat16"])
    shape["fill"] = rng.random() < 0.7
    if rng.random() < 0.4:  # shorter or longer than the requests
        shape["max_seq_len"] = rng.randint(1, 1000)
    return shape


def work(
    *,
    seq_lens: list,
    num_heads: int,
    next_n: int = 1,
    head_dim: int = 128,
    out_dtype: str = "float32",
    **_,
) -> Work:
    scored = sum(max(0, n) for n in _scoring.visible(seq_lens, next_n))
    keys = sum(_scoring.longest(seq_lens))
    queries = len(seq_lens) * next_n * num_heads * (head_dim + 4)
    return Work(
        flops=2 * scored * num_heads * head_dim,
        bytes=keys * (head_dim + 4) + queries + scored * item_bytes(out_dtype),
    )


def compare(expected: dict, actual: dict) -> float:
    _, bound = _scoring.paged_scores(expected, expected["out"].shape[1])
    return _rules.close(expected["out"], actual["out"], bound, "out")


def public_arguments(arguments: dict) -> dict:
    return {**arguments, "max_seq_len": arguments["out"].shape[1]}
