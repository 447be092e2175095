"""`bench`: op x backend x published shape, with time, rates, and error against the reference."""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from dsa_kernels._op import OPS
from dsa_kernels.cli import output, select
from dsa_kernels.cli.info import environment
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import copy_written, fewer_rows, named

REFERENCE_FLOPS = 2e9  # above this the plain and slow implementation takes too long to wait for
EPILOG = """\
Rates are of the algorithm's work: what any implementation must at least compute
and move. The error is that of one row of the shape, by the op's own rule: 0 is
bitwise equal, else calc_diff (logits, attention) or the share of elements that
differ; FAIL is outside the op's tolerance. "-" was not run, as the reference
would take too long (--backend reference runs it all the same).

examples:
  python -m dsa_kernels bench --quick
  python -m dsa_kernels bench --op mqa_logits --shape decode --backend native
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    select.add_op_filter(parser)
    parser.add_argument(
        "--backend",
        action="append",
        type=select.backend_name,
        metavar="BACKEND",
        help="only this backend; may be repeated",
    )
    parser.add_argument("--shape", default="", metavar="TEXT", help="only shapes named *TEXT*")
    parser.add_argument("--quick", action="store_true", help="each op's smallest shape, briefly")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="time to spend on each row (default: 1)"
    )
    parser.add_argument("--threads", type=int, help="default: torch's, the number of cores")
    parser.add_argument("--list", action="store_true", help="print the shapes and stop")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def make_arguments(op: str, shape: dict) -> list:
    return case(op).make(torch.Generator().manual_seed(0), **shape)


def measure(op: str, arguments: list, backend: str, budget: float) -> float:
    """Median seconds of a call, outputs allocated beforehand; at least 3 after a first one."""
    times: list[float] = []
    begin = time.perf_counter()
    OPS[op](*arguments, backend=backend)
    if budget < (first := time.perf_counter() - begin) > 1.0:
        return first  # so slow that warming up no longer matters
    while len(times) < 3 or sum(times) < budget:
        start = time.perf_counter()
        OPS[op](*arguments, backend=backend)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def error_of(op: str, shape: dict, backend: str) -> float | str | None:
    """Error of `backend` on one row of `shape`; None where the reference would take too long."""
    shape = fewer_rows(op, shape, 1)
    if case(op).work(**shape).flops > REFERENCE_FLOPS:
        return None
    arguments = make_arguments(op, shape)
    expected, actual = copy_written(OPS[op], arguments), copy_written(OPS[op], arguments)
    OPS[op](*expected, backend="reference")
    OPS[op](*actual, backend=backend)
    try:
        return case(op).compare(named(OPS[op], expected), named(OPS[op], actual))
    except AssertionError as error:
        return str(error)


def rows_of(args: argparse.Namespace) -> list[tuple[str, str, dict, str]]:
    """(op, shape name, shape, backend) of every row to print."""
    rows = []
    for op in select.chosen_ops(args):
        shapes = {name: s for name, s in case(op).BENCH.items() if args.shape in name}
        if args.quick and shapes:
            smallest = min(shapes, key=lambda n: sum(vars(case(op).work(**shapes[n])).values()))
            shapes = {smallest: shapes[smallest]}
        for name, shape in shapes.items():
            for backend in OPS[op].backends("cpu"):
                if not args.backend or backend in args.backend:
                    rows.append((op, name, shape, backend))
    return rows


def why_no_rows(args: argparse.Namespace) -> list[str]:
    ops = [op for op in select.chosen_ops(args) if any(args.shape in s for s in case(op).BENCH)]
    if not ops:
        return ["no shape fits; see `python -m dsa_kernels bench --list`"]
    reasons = {(b, OPS[op].unavailable(b, "cpu")): None for op in ops for b in args.backend}
    return [f"{backend} cannot run on cpu: {reason}" for backend, reason in reasons]


def run_row(op: str, name: str, shape: dict, backend: str, *, budget: float, asked: bool) -> dict:
    work = case(op).work(**shape)
    result = {"op": op, "shape": name, "parameters": shape, "backend": backend}
    if backend == "reference" and work.flops > REFERENCE_FLOPS and not asked:
        return {**result, "seconds": None, "gflops": None, "gbytes": None, "error": None}
    taken = measure(op, make_arguments(op, shape), backend, budget)
    return {
        **result,
        "seconds": taken,
        "gflops": work.flops / taken / 1e9,
        "gbytes": work.bytes / taken / 1e9,
        "error": 0.0 if backend == "reference" else error_of(op, shape, backend),
    }


def main(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = rows_of(args)
    if not rows:
        print("\n".join(why_no_rows(args)))
        return 2
    if args.list:
        for op, name in dict.fromkeys((op, name) for op, name, _, _ in rows):
            print(f"{op:<24}{name}")
        return 0
    budget = 0.05 if args.quick else args.seconds
    facts = environment()
    if not args.json:
        print(f"{facts['cpu']}, {facts['threads']} threads, isa {facts['isa']}; measured")
    results: list[dict] = []
    with output.progress(len(rows)) as bar:
        for i, row in enumerate(rows):
            bar.update(i, f"{row[0]} {row[1]} {row[3]}")
            asked = bool(args.backend and "reference" in args.backend)
            results.append(run_row(*row, budget=budget, asked=asked))
            last_of_op = i + 1 == len(rows) or rows[i + 1][0] != row[0]
            if last_of_op and not args.json:
                with bar.pause():
                    _print_op(row[0], [r for r in results if r["op"] == row[0]])
    if args.json:
        output.print_json({"environment": facts, "results": results})
    return 1 if any(isinstance(r["error"], str) for r in results) else 0


def _print_op(op: str, results: list[dict]) -> None:
    rows = []
    for r in results:
        cells = ["-"] * 3
        if r["seconds"] is not None:
            cells = [output.seconds(r["seconds"]), *map(output.number, (r["gflops"], r["gbytes"]))]
        error = r["error"]
        if error is not None:
            error = "FAIL" if isinstance(error, str) else f"{error:.1e}" if error else "0"
        rows.append([r["shape"], r["backend"], *cells, error or "-"])
    header = ["shape", "backend", "time", "GFLOP/s", "GB/s", "error"]
    print(f"\n{op}\n{output.table(header, rows, left=2)}", flush=True)
    for r in results:
        if isinstance(r["error"], str):
            print(f"FAIL {r['shape']} {r['backend']}: {r['error']}")
