"""The primitives that kernels stand on, in the emulator, against numpy.

`make gpu-check` runs the same cases on a GPU and compares.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from bench.gpu.driver import Gpu
from bench.gpu.primitive_cases import cases
from bench.gpu.primitives import (
    BUILT,
    check,
    compile_primitives,
    difference,
    emulated,
)
from csrc.cuda import build
from dsa_kernels.testing.emulation import SCHEDULES

CASES = cases()
nvcc, told = build.usable_nvcc()
pytestmark = pytest.mark.skipif(nvcc is None, reason=told)


@pytest.fixture(scope="module")
def module():
    from ptx_emulator import Module  # imported where it is needed: it builds itself

    found = Module(compile_primitives(ptx_only=True).with_suffix(".ptx"))
    assert not found.unsupported
    return found


def test_every_kernel_has_a_case(module):
    assert {c.kernel for c in CASES} == set(module.kernels)
    assert len({c.name for c in CASES}) == len(CASES)
    assert BUILT.is_dir()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_emulator_is_right_in_every_schedule(module, case):
    for mode, seed in SCHEDULES:
        outputs = emulated(module, case, mode=mode, seed=seed)
        if case.expected is not None:
            assert difference(outputs, case.expected) is None
        else:
            case.error(outputs)


def test_coarse_sums_of_fp8_differ_and_stay_within_the_limit(module):
    (case,) = [c for c in CASES if c.fp8]
    fine, coarse = emulated(module, case), emulated(module, case, coarse_fp8=True)
    assert difference(coarse, fine) is not None
    case.error(coarse)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_wrong_outputs_are_seen(module, case):
    """One bit of an exact result; a high bit of the exponent of another."""
    outputs = emulated(module, case)
    words = outputs[0].reshape(-1).view(np.uint16)
    if case.expected is not None:
        words[words.size // 2] ^= 1
        assert "1 of" in difference(outputs, case.expected)
    else:
        outputs[0].reshape(-1).view(np.uint32)[words.size // 4] ^= 1 << 29
        with pytest.raises(AssertionError, match="more than"):
            case.error(outputs)


def test_the_launcher_for_gpus_over_the_emulators_driver(module):
    """Structures, tensor maps, attributes and copies as the driver API wants them."""
    from ptx_emulator import driver

    table = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(driver.table()[0])
    function = ctypes.CFUNCTYPE(ctypes.c_int32)

    def functions(name):
        made = function(table(name.encode()))
        made.argtypes = None
        return made

    ptx = compile_primitives(ptx_only=True).with_suffix(".ptx").read_bytes()
    gpu = Gpu(ptx, functions)
    for case in CASES:
        assert "largest difference" in (text := check(case, gpu.run(case), module)) or (
            text == "the emulator's bytes"
        )
