"""Arguments, checked as they are parsed: what cannot work is to fail before a long run."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from bench import report


def count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ArgumentTypeError(f"must be at least 1; got {value}")
    return value


def target(text: str) -> Path:
    """A file to write."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise ArgumentTypeError(f"no file can be written at {text}")
    return path


def page(marker: str) -> Callable[[str], Path]:
    """A file to publish what belongs between those markers in."""

    def parse(text: str) -> Path:
        path = target(text)
        try:
            report.around(path.read_text() if path.exists() else "", marker)
        except ValueError as error:
            raise ArgumentTypeError(f"{text}: {error}") from None
        return path

    return parse


def picture(text: str) -> Path:
    if find_spec("matplotlib") is None:
        raise ArgumentTypeError("needs matplotlib")
    return target(text)


def record(text: str) -> dict:
    """The last record of a file of them."""
    try:
        return report.last_record(Path(text))
    except (OSError, ValueError) as error:
        raise ArgumentTypeError(str(error)) from None
