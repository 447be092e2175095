"""Runs a kernel once, and says where its instructions and bytes go."""

import argparse
import json

from . import launches, modules
from .errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    launches.add_arguments(parser)
    launches.add_schedule(parser)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def main(args: argparse.Namespace) -> int:
    module = modules.load(args.module)
    run = launches.run_of(args, module)
    options = launches.options_of(args) | launches.schedule_of(args) | {"profile": True}
    outcome = launches.attempt(run, module, options)
    if outcome.failure:
        print(outcome.failure)
        return 1
    if outcome.launch is None:
        raise UsageError("the function of --launch has to return what module.launch gave")
    profile = outcome.launch.profile
    print(json.dumps(profile.as_dict(), indent=1) if args.json else profile.report())
    return 0
