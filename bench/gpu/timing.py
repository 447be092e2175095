"""Every op at published shapes on a GPU: CUDA events, medians, L2 flushed before each call."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from bench.gpu.peaks import Peaks, floor
from bench.peers import Peer
from bench.suite import Row
from dsa_kernels._op import OPS
from dsa_kernels.cli import output
from dsa_kernels.cli.bench import make_arguments
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.on_gpu import Copies

FLUSH_BYTES = 256 << 20  # several times the 50 MB of Hopper's L2


def median_seconds(call: Callable[[], object], flush: Callable[[], object], budget: float) -> float:
    """Median time between events around calls, after two that warm up."""
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < budget and len(times) < 200):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush()
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


@torch.inference_mode()
def measure(
    op: str, name: str, shape: dict, peaks: Peaks, peers: dict[str, Peer], budget: float
) -> tuple[Row, dict[str, str]]:
    """The row, and what went wrong in peers."""
    arguments = Copies(make_arguments(op, shape), "cuda").arguments
    flushed = torch.zeros(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    work = case(op).work(**shape)
    seconds = median_seconds(lambda: OPS[op](*arguments, backend="native"), flushed.zero_, budget)
    least = floor(op, shape, work, peaks)
    row = Row(op, name, seconds, work.flops, work.bytes, least.bound, least.seconds / seconds)
    problems = {}
    for peer_name, peer in peers.items():
        try:
            if (call := peer.call(op, shape, arguments)) is not None:
                row.peers[peer_name] = median_seconds(call, flushed.zero_, budget) / seconds
        except Exception as error:  # theirs; our rows to come are worth more
            problems[peer_name] = f"{type(error).__name__}: {error}".partition("\n")[0]
    return row, problems


def table(rows: list[Row], peers: list[str]) -> str:
    header = ["shape", "time", "TFLOPS", "GB/s", "of roofline", "bound", *peers]
    return output.table(header, [_cells(row, peers) for row in rows])


def _cells(row: Row, peers: list[str]) -> list[str]:
    return [
        row.shape,
        output.seconds(row.seconds),
        output.number(row.flops / row.seconds / 1e12),
        output.number(row.bytes / row.seconds / 1e9),
        f"{row.of_peak:.0%}",
        row.bound,
        *(f"{output.number(row.peers[p])}x" if p in row.peers else "-" for p in peers),
    ]
