"""Command line: `python -m dsa_kernels info | demo | bench | fuzz`."""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import sys

COMMANDS = {
    "info": "versions, the CPU, and which backends each op has and why not the others",
    "demo": "a DeepSeek-V3.2 model with and without dsa_kernels: agreement, time, memory",
    "bench": "time ops on published shapes and compare them with the reference",
    "fuzz": "compare two backends on random and hostile inputs",
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m dsa_kernels", description="Kernels for DeepSeek Sparse Attention."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, help_text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in argv[:1]:  # only the command that runs is imported
            module = importlib.import_module(f"dsa_kernels.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(main=module.main)
    args = parser.parse_args(argv)
    try:
        return args.main(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    faulthandler.enable()  # so that a crash of a kernel says which call it was in
    sys.exit(main())
