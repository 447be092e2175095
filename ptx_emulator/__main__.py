"""Command line: `python -m ptx_emulator check | run | race | profile | mutate | flags`."""

import argparse
import importlib
import sys

from ._errors import BuildError
from .cli.errors import UsageError

COMMANDS = {
    "check": "list the kernels of modules, and all that is not modelled",
    "run": "run a kernel once",
    "race": "run a kernel in many schedules, and look for races in each",
    "profile": "run a kernel once, and say where its instructions and bytes go",
    "mutate": "make mistakes in a kernel, and say which ones nobody notices",
    "flags": "print what a C++ program that uses the emulator is compiled with",
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m ptx_emulator", description="Runs PTX on a CPU and reports its races."
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
            module = importlib.import_module(f".cli.{name}", __package__)
            module.add_arguments(command)
            command.set_defaults(main=module.main)
    args = parser.parse_args(argv)
    try:
        return args.main(args)
    except (UsageError, BuildError) as error:
        print(f"{parser.prog} {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
