"""Runs a kernel in many schedules, and looks for races in each."""

import argparse

from . import launches, modules
from .errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    launches.add_arguments(parser)
    parser.add_argument(
        "--seeds",
        type=int,
        default=4,
        metavar="N",
        help="random schedules beside eager and late (default: 4)",
    )


def main(args: argparse.Namespace) -> int:
    if args.seeds < 0:
        raise UsageError(f"--seeds has to be at least 0; got {args.seeds}")
    module = modules.load(args.module)
    run = launches.run_of(args, module)
    schedules = [("eager", 0), ("late", 0), *(("random", 1 + i) for i in range(args.seeds))]
    for mode, seed in schedules:
        options = launches.options_of(args) | {"mode": mode, "seed": seed}
        outcome = launches.attempt(run, module, options)
        name = f"{mode} {seed}" if mode == "random" else mode
        print(f"{name:10} {'FAILED' if outcome.failure else launches.describe(outcome)}")
        if outcome.failure:
            print(f"\n{outcome.failure}\n\nThe same again:")
            print(f"  {launches.command_line(args, '--mode', mode, '--seed', str(seed))}")
            return 1
    print(f"no race in {len(schedules)} schedules")
    return 0
