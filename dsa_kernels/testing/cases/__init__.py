"""Inputs for every op, in one place: `bench`, `fuzz` and the contract test all draw from here.

`case(op)` is the module `cases/<op>.py`, which has:

    make(generator, **shape) -> list     the op's arguments in schema order, on the CPU
    random_shape(rng) -> dict            shapes, flags and hostile data for `fuzz`
    BENCH: dict[str, dict]               published shapes by name
    SMALL: tuple[dict, dict]             two tiny shapes: other sizes, the same flags and ints
    ROWS: str                            the entry of a shape that counts independent rows
    work(**shape) -> Work                algorithmic work of one call
    compare(expected, actual) -> float   arguments by name after two backends have run; raises
                                         AssertionError where the contract lets them not differ so
                                         far, else returns the error (0.0: bitwise equal)

and, where the public function's arguments are not the op's by name,

    public_arguments(arguments) -> dict  what to call it with, by name

A shape holds plain JSON values, so a report can print it.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from dsa_kernels.testing.cases._common import Work

__all__ = ["Work", "case"]


def case(op: str) -> ModuleType:
    """The case module of `op`."""
    return importlib.import_module(f"{__name__}.{op}")
