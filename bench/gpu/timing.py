"""Every op at published shapes on a GPU: CUDA events, medians, L2 flushed before each call.

python -m bench.gpu.timing [--op OP] [--shape TEXT] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from bench.gpu.peaks import Peaks, floor, peaks_of
from bench.gpu.peers import load
from bench.peers import Peer
from bench.suite import Row, shapes
from dsa_kernels._op import OPS
from dsa_kernels.cli import output, select
from dsa_kernels.cli.bench import make_arguments
from dsa_kernels.testing import on_gpu
from dsa_kernels.testing.cases import case

DESCRIPTION = __doc__.splitlines()[0]
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
    arguments = on_gpu.Copies(make_arguments(op, shape), "cuda").arguments
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


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.timing", description=DESCRIPTION)
    select.add_op_filter(parser)
    parser.add_argument("--shape", default="", metavar="TEXT", help="only shapes named *TEXT*")
    parser.add_argument("--quick", action="store_true", help="each op's smallest shape")
    parser.add_argument("--seconds", type=float, default=0.5, help="of calls, for each row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line for each row")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    gpu = torch.cuda.get_device_name()
    peaks, exact = peaks_of(gpu)
    peers, absent = load()
    print(f"{gpu}; peaks of {peaks} ({peaks.source})")
    if not exact:
        print(f"{gpu} is another product than {peaks.name}: its roofline may be lower")
    for name, reason in absent.items():
        print(f"without {name}: {reason}")
    failed = False
    for op in select.chosen_ops(args):
        if (problem := on_gpu.problem(OPS[op], "cuda")) is not None:
            print(f"\n{op}: not run, {problem}")
            continue
        rows: list[Row] = []
        for _, name, shape in shapes([op], args.shape, args.quick):
            try:
                row, problems = measure(op, name, shape, peaks, peers, args.seconds)
            except Exception as error:  # rows to come are worth as much
                failed = True
                print(f"{op} {name}: FAILED, {type(error).__name__}: {error}", flush=True)
                continue
            rows.append(row)
            for peer, reason in problems.items():
                print(f"{peer} failed at {op} {name}: {reason}")
            if args.json:
                with args.json.open("a") as file:
                    file.write(json.dumps({"gpu": gpu, **row.as_dict()}) + "\n")
        if rows:
            print(f"\n{op}\n{table(rows, list(peers))}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
