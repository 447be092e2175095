"""Modules named on the command line."""

import argparse
from pathlib import Path

from .._errors import EmulatorError
from ..module import Module
from .errors import UsageError


def load(path: str) -> Module:
    try:
        return Module(Path(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(
            f"{path} is no text; of a binary, `cuobjdump -ptx` prints the PTX if there is any"
        ) from None
    except EmulatorError as error:
        raise UsageError(f"{path}: {error}") from None


def describe_unsupported(module: Module, path: str) -> list[str]:
    return [f"{path}:{line}: {text}: {reason}" for line, text, reason in module.unsupported]


def add_module(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("module", metavar="module.ptx", help="a file of PTX text")
