"""Makes every one-line mistake of a catalogue in a kernel, and tells which ones nobody notices."""

import argparse
import json
import os
from pathlib import Path

from .. import mutate as mutator
from . import launches, modules
from .errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    launches.add_arguments(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: one for each core)",
    )
    parser.add_argument(
        "--every-run",
        action="store_true",
        help="run each mutant in all six schedules, whatever the first of them finds",
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def main(args: argparse.Namespace) -> int:
    if args.jobs < 1:
        raise UsageError(f"--jobs has to be at least 1; got {args.jobs}")
    module = modules.load(args.module)
    run = launches.run_of(args, module)
    options = launches.options_of(args)
    # An inline launch takes the outputs of its first run for right.
    outcome = launches.attempt(run, module, options)
    if outcome.failure:
        print(f"the original does not pass: {outcome.failure}")
        return 1
    report = mutator.mutate(
        Path(args.module).read_text(encoding="utf-8"),
        lambda mutant, **schedule: run(mutant, **options, **schedule),
        jobs=args.jobs,
        every_run=args.every_run,
    )
    print(json.dumps(report.as_dict(), indent=1) if args.json else report.text())
    return 1 if report.survivors or report.broken else 0
