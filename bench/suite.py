"""Measures rows: one op at one published shape, against the machine's floor, torch and peers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch

from bench.floors import floor
from bench.peaks import Peaks
from bench.peers import Peer
from bench.timing import median_seconds
from bench.torch_ops import variants
from dsa_kernels._op import OPS
from dsa_kernels.cli.bench import make_arguments
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import fewer_rows

OTHERS_FLOPS = 1.5e10  # above this torch and peers are timed on fewer rows and their time scaled
OTHERS_BYTES = 4e9
PEER_ROWS = 64  # ggml has another kernel for fewer


@dataclass
class Row:
    """seconds of ours; of_peak: floor / seconds; times over ours of torch and each peer."""

    op: str
    shape: str
    seconds: float
    flops: int
    bytes: int
    bound: str
    of_peak: float
    torch: float | None = None
    torch_scaled: bool = False
    peers: dict[str, float] = field(default_factory=dict)
    peers_scaled: bool = False

    def as_dict(self) -> dict:
        return asdict(self)


def shapes(ops: list[str], text: str = "", quick: bool = False) -> Iterator[tuple[str, str, dict]]:
    """(op, shape's name, shape); the smallest of each op if quick."""
    for op in ops:
        named = {n: s for n, s in case(op).BENCH.items() if text in n}
        if quick and named:
            name = min(named, key=lambda n: sum(vars(case(op).work(**named[n])).values()))
            named = {name: named[name]}
        for name, shape in named.items():
            yield op, name, shape


def part_of(op: str, shape: dict, at_least: int = 1) -> tuple[dict, float]:
    """`shape` with as many rows as others are timed on, and what to multiply their time with."""
    work = case(op).work(**shape)
    share = max(work.flops / OTHERS_FLOPS, work.bytes / OTHERS_BYTES)
    size = shape[case(op).ROWS]
    rows = len(size) if isinstance(size, list) else size
    timed_rows = max(at_least, math.ceil(rows / share))
    if share <= 1 or timed_rows >= rows:
        return shape, 1.0
    timed = fewer_rows(op, shape, timed_rows)
    part = case(op).work(**timed)
    return timed, work.flops / part.flops if part.flops else work.bytes / part.bytes


def torch_seconds(op: str, shape: dict, budget: float) -> tuple[float, bool]:
    """Of the fastest variant, and whether it is scaled up from a part of the rows."""
    timed, scale = part_of(op, shape)
    calls = variants(op, make_arguments(op, timed))
    seconds = min(median_seconds(call, budget) for call in calls.values())
    return seconds * scale, timed is not shape


def peer_seconds(
    peers: dict[str, Peer], op: str, shape: dict, arguments: list, budget: float
) -> tuple[dict[str, float], bool]:
    """Of each peer that has the op, and whether they are scaled up from a part of the rows."""
    timed, scale = part_of(op, shape, PEER_ROWS)
    if peers and timed is not shape:
        arguments = make_arguments(op, timed)
    seconds = {}
    for name, peer in peers.items():
        try:
            call = peer.call(op, timed, arguments)
            if call is not None:
                seconds[name] = median_seconds(call, budget) * scale
        except Exception as error:  # as in loading: the rows to come are worth more
            print(f"{name} failed at {op}: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        call = None  # and its memory, before the next peer takes its own
    return seconds, timed is not shape


@torch.inference_mode()  # outside it each call of ours, and no other, is searched for gradients
def measure(
    op: str, name: str, shape: dict, peaks: Peaks, peers: dict[str, Peer], budget: float
) -> Row:
    arguments = make_arguments(op, shape)
    work = case(op).work(**shape)
    seconds = median_seconds(lambda: OPS[op](*arguments, backend="native"), budget)
    least = floor(op, shape, work, peaks)
    row = Row(
        op, name, seconds, work.flops, work.bytes, least.bound, of_peak=least.seconds / seconds
    )
    taken, row.torch_scaled = torch_seconds(op, shape, budget / 2)
    row.torch = taken / seconds
    taken, row.peers_scaled = peer_seconds(peers, op, shape, arguments, budget / 2)
    row.peers = {peer: t / seconds for peer, t in taken.items()}
    return row
