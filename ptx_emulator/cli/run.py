"""Runs a kernel once."""

import argparse
import sys

import numpy as np

from . import launches, modules
from .errors import UsageError
from .inline import InlineLaunch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    launches.add_arguments(parser)
    launches.add_schedule(parser)
    parser.add_argument("--no-races", action="store_true", help="look for no races, for speed")
    parser.add_argument(
        "--save",
        action="append",
        default=[],
        type=_save,
        metavar="N=FILE.npy",
        help="save the array of argument N, counted from 0",
    )


def main(args: argparse.Namespace) -> int:
    module = modules.load(args.module)
    run = launches.run_of(args, module)
    inline = isinstance(run, InlineLaunch)
    for index, _ in args.save:
        if not inline or index not in run.array_indices():
            raise UsageError(f"--save {index}=..: argument {index} is no array of --arg")
    options = launches.options_of(args) | launches.schedule_of(args)
    if args.no_races:
        options["races"] = False
    outcome = launches.attempt(run, module, options)
    if outcome.failure:
        print(outcome.failure)
    else:
        print(f"ok: {launches.describe(outcome)}")
        if inline:
            print("\n".join(run.describe_outputs() or ["no array has changed"]))
            _save_arrays(run, args.save)
    if args.no_races:
        print("RACES WERE NOT LOOKED FOR (--no-races)", file=sys.stderr)
    return 1 if outcome.failure else 0


def _save(text: str) -> tuple[int, str]:
    index, _, path = text.partition("=")
    if not path:
        raise ValueError
    return int(index), path


def _save_arrays(run: InlineLaunch, save: list[tuple[int, str]]) -> None:
    for index, path in save:
        try:
            with open(path, "wb") as file:
                np.save(file, run.arrays[index])
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from None
