"""`fuzz`: random shapes and hostile data on two backends, under poisoned memory."""

from __future__ import annotations

import argparse
import random
import sys
import time
import warnings
from itertools import count

from dsa_kernels._op import OPS
from dsa_kernels.cli import output, select
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import random_case, watched_run
from dsa_kernels.testing.memory import poisoned_memory

EPILOG = """\
Uninitialised memory is poisoned, outputs lie between guard bands, and inputs
are checked to be unchanged. A failure prints the command that repeats exactly that
case; the exit status is then 1.

examples:
  python -m dsa_kernels fuzz --seconds 60
  python -m dsa_kernels fuzz --op topk_indices --cases 1000
  python -m dsa_kernels fuzz --op topk_indices --seed 123
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    select.add_op_filter(parser)
    parser.add_argument(
        "--backends",
        type=_two_backends,
        default=["native", "reference"],
        metavar="A,B",
        help="A is tested against B (default: native,reference)",
    )
    parser.add_argument("--seconds", type=float, help="stop after this long (default: 20)")
    parser.add_argument("--cases", type=int, help="stop after this many cases")
    parser.add_argument(
        "--seed",
        type=int,
        help="run only the case of this seed; with --seconds or --cases, the first of them",
    )
    parser.add_argument(
        "--max-failures", type=int, default=5, metavar="N", help="stop after N (default: 5)"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print each case before it runs, to find a crash"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _two_backends(text: str) -> list[str]:
    names = [select.backend_name(name) for name in text.split(",")]
    if len(names) != 2:
        raise argparse.ArgumentTypeError("takes two backends, such as native,reference")
    return names


def repro_command(op: str, seed: int, backends: list[str]) -> str:
    return (
        f"python -m dsa_kernels fuzz --op {op} --seed {seed} --backends {backends[0]},{backends[1]}"
    )


def run_case(op: str, seed: int, backends: list[str]) -> str | None:
    """What is wrong with the case, or None."""
    _, arguments = random_case(op, seed)
    try:
        actual, expected = (watched_run(OPS[op], arguments, b) for b in backends)
        case(op).compare(expected, actual)
    except AssertionError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main(args: argparse.Namespace) -> int:
    ops, missing = [], {}
    for op in select.chosen_ops(args):
        reasons = [r for b in args.backends if (r := OPS[op].unavailable(b, "cpu"))]
        if reasons:
            missing[op] = reasons[0]
        else:
            ops.append(op)
    if not ops or (args.op and missing):
        for op, reason in missing.items():
            print(f"{op}: {reason}", file=sys.stderr)
        return 2

    seeds, limit, deadline = _plan(args, len(ops))
    failures, done, begin = [], 0, time.monotonic()
    with warnings.catch_warnings(), poisoned_memory():
        warnings.simplefilter("ignore")  # of torch, on operations that have no deterministic form
        with output.progress(limit if limit is not None else deadline) as bar:
            for seed in seeds:
                elapsed = time.monotonic() - begin
                if (limit is not None and done >= limit) or elapsed > deadline:
                    break
                # All ops meet a seed before the next one comes.
                op = ops[done % len(ops)]
                bar.update(done if limit is not None else elapsed, f"{done} cases, {op} {seed}")
                if args.verbose:
                    print(f"{op} seed {seed}", file=sys.stderr, flush=True)
                problem = run_case(op, seed, args.backends)
                done += 1
                if problem is not None:
                    failures.append(_report(op, seed, args.backends, problem))
                    if not args.json:
                        with bar.pause():
                            _print_failure(failures[-1])
                    if len(failures) >= args.max_failures:
                        break
    summary = {
        "backends": args.backends,
        "cases": done,
        "seconds": round(time.monotonic() - begin, 3),
        "ops": ops,
        "not_run": missing,
        "failures": failures,
    }
    if args.json:
        output.print_json(summary)
    else:
        for op, reason in missing.items():
            print(f"not run: {op}: {reason}")
        print(
            f"{done} cases of {len(ops)} op{'s' * (len(ops) > 1)} in {summary['seconds']:.1f} s, "
            f"{args.backends[0]} against {args.backends[1]}: {len(failures) or 'no'} "
            f"failure{'s' * (len(failures) != 1)}"
        )
    return 1 if failures else 0


def _plan(args: argparse.Namespace, num_ops: int):
    """Seeds of the successive cases, how many cases at most (None: any), and for how long."""
    once = args.seed is not None and args.seconds is None and args.cases is None
    first = args.seed if args.seed is not None else random.SystemRandom().randrange(2**31)
    seeds = (first + i // num_ops for i in count())
    if once:
        return seeds, num_ops, float("inf")
    if args.cases is not None:
        return seeds, args.cases, args.seconds or float("inf")
    return seeds, None, 20.0 if args.seconds is None else args.seconds


def _report(op: str, seed: int, backends: list[str], problem: str) -> dict:
    shape, _ = random_case(op, seed)
    return {
        "op": op,
        "seed": seed,
        "problem": problem,
        "shape": shape,
        "command": repro_command(op, seed, backends),
    }


def _print_failure(failure: dict) -> None:
    shape = ", ".join(f"{k}={v!r}" for k, v in failure["shape"].items())
    print(f"FAIL {failure['op']}: {failure['problem']}")
    print(f"  shape: {shape}")
    print(f"  again: {failure['command']}\n", flush=True)
