"""Filters that the commands share."""

from __future__ import annotations

import argparse

from dsa_kernels._op import BACKENDS, OPS


def op_name(text: str) -> str:
    if text not in OPS:
        raise argparse.ArgumentTypeError(f"no op {text!r}; ops are {', '.join(sorted(OPS))}")
    return text


def backend_name(text: str) -> str:
    if text not in BACKENDS:
        raise argparse.ArgumentTypeError(f"no backend {text!r}; backends: {', '.join(BACKENDS)}")
    return text


def add_op_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--op", action="append", type=op_name, metavar="OP", help="only this op; may be repeated"
    )


def chosen_ops(args: argparse.Namespace) -> list[str]:
    return args.op or sorted(OPS)
