"""One call of one op on one backend, watched: what `fuzz`, `bench` and the contract test run."""

from __future__ import annotations

import random
import zlib

import torch

from dsa_kernels._op import Op
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.memory import Guarded


def named(op: Op, arguments: list) -> dict:
    """Arguments in schema order -> by name."""
    return dict(zip(op.arguments, arguments, strict=True))


def random_case(op: str, seed: int) -> tuple[dict, list]:
    """The shape and the arguments that `seed` stands for."""
    shape = case(op).random_shape(random.Random(f"{op}:{seed}"))
    generator = torch.Generator().manual_seed(zlib.crc32(f"{op}:{seed}".encode()))
    return shape, case(op).make(generator, **shape)


def fewer_rows(op: str, shape: dict, rows: int) -> dict:
    """`shape` with at most `rows` of what the case counts as independent rows."""
    name = case(op).ROWS
    size = shape[name]
    return {**shape, name: size[:rows] if isinstance(size, list) else min(size, rows)}


def copy_written(op: Op, arguments: list) -> list:
    """`arguments`, with those that the op writes replaced by copies of the same strides."""
    copied = named(op, arguments)
    for spec in op.tensors:
        if spec.written:
            value = copied[spec.name]
            copied[spec.name] = torch.empty_strided(
                value.shape, value.stride(), dtype=value.dtype
            ).copy_(value)
    return list(copied.values())


def watched_run(op: Op, arguments: list, backend: str) -> dict:
    """Runs `op` on copies of its outputs between guard bands; returns its arguments by name.

    Raises AssertionError if it writes outside its outputs, into inputs included.
    """
    after = named(op, arguments)
    guards, before = {}, {}
    for spec in op.tensors:
        value = after[spec.name]
        if value is None:
            continue
        if spec.written:
            guard = Guarded(value.shape, value.dtype, strides=value.stride())
            guard.tensor.copy_(value)
            guards[spec.name], after[spec.name] = guard, guard.tensor
        else:
            before[spec.name] = _bytes(value).clone()
    op(*after.values(), backend=backend)
    for name, guard in guards.items():
        try:
            guard.check()
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
    for name, old in before.items():
        assert torch.equal(_bytes(after[name]), old), f"{name} is an input and was written"
    return after


def _bytes(x: torch.Tensor) -> torch.Tensor:
    """All bytes of the memory that `x` is a view of, holes between its rows included."""
    return torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage())
