"""Kernels on the GPU that torch's tensors are on. Not run on one yet."""

from __future__ import annotations

import contextlib
import functools
import importlib

import tilelang
import torch

from dsa_kernels._gpu import architecture
from tilelang_kernels import OPS
from tilelang_kernels.toolchain.lowering import PASS_CONFIGS, lower
from tilelang_kernels.toolchain.targets import Refused, Target, target_for


@functools.cache
def target_of(device: torch.device) -> Target:
    """Raises Refused for a GPU that no target is for."""
    return target_for(architecture(device))


@functools.cache
def _compiled(builder, target: Target, configuration: tuple):
    function = builder(target, **dict(configuration))
    lower(function, target)  # refuses what the compiler does not
    return tilelang.compile(function, target=target.specification, pass_configs=PASS_CONFIGS)


def prepare(device: torch.device) -> None:
    """Compiles all kernels that the device's target does not refuse."""
    target = target_of(device)
    for op in OPS:
        module = importlib.import_module(f"tilelang_kernels.{op}")
        for configuration in module.CONFIGURATIONS:
            with contextlib.suppress(Refused):
                _compiled(module.kernel, target, tuple(sorted(configuration.items())))


class OnDevice:
    """Runs kernels where their arguments are."""

    def __init__(self, device: torch.device):
        self.target = target_of(device)

    def __call__(self, builder, configuration: dict, *arguments) -> None:
        _compiled(builder, self.target, tuple(sorted(configuration.items())))(*arguments)
