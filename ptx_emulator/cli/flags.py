"""Prints what a C++ program that uses the emulator is compiled with."""

import argparse

from .. import _build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "g++ main.cpp $(python -m ptx_emulator flags)"


def main(args: argparse.Namespace) -> int:
    print(*flags())
    return 0


def flags() -> list[str]:
    library = _build.library()
    # -I would have the sources' limits.h stand in for the system's.
    include = ["-iquote", str(_build.SOURCES)]
    return ["-std=c++20", *include, str(library), f"-Wl,-rpath,{library.parent}"]
