"""A kernel with its data and its reference: what tests, the mutator and soaks run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ptx_emulator import Module
from ptx_emulator.mutate import SCHEDULES


def schedule_name(schedule):
    return f"{schedule['mode']}{schedule.get('seed', '')}"


schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=schedule_name)


def compiled_once(kernels):
    """A fixture `get(name)`: another compiler's kernel and its Module, made when first wanted."""

    @pytest.fixture(scope="module")
    def compiled():
        made = {}

        def get(name):
            if name not in made:
                kernel = kernels[name]()
                made[name] = kernel, Module(kernel.ptx)
            return made[name]

        return get

    return compiled


@dataclass
class Case:
    ptx: str
    # Launches the kernel of a module made of `ptx`, or of a mutation of it, with the launch options
    # given, and asserts that what it computed is right.
    run: Callable


def uniform(generator, *shape, dtype=torch.bfloat16):
    """Values in [-1, 1] that the type holds exactly."""
    return (torch.rand(shape, generator=generator) * 2 - 1).to(dtype)


def integers(generator, *shape, dtype=torch.bfloat16, limit=4):
    """Small integers: products and sums of them are exact in fp32, in any order."""
    return torch.randint(-limit, limit + 1, shape, generator=generator).to(dtype)


def poisoned(*shape, dtype=torch.float32):
    return torch.full(shape, float("nan"), dtype=dtype)


def assert_near(actual, expected, tolerance):
    """Each element within the tolerance, which is relative to the largest magnitude expected."""
    actual, expected = actual.double(), expected.double()
    error = (actual - expected).abs()
    allowed = tolerance * max(expected.abs().max().item(), 1e-30)
    wrong = ~(error <= allowed)
    if wrong.any():
        at = tuple(index.item() for index in wrong.nonzero()[0])
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.numel()} elements are off, the first at {at}: "
            f"{actual[at]} instead of {expected[at]}; largest error {np.nanmax(error.numpy())}"
        )
