"""Launches through the driver table, in Python's hands."""

import ctypes
import re

import numpy as np
import pytest

from ptx_emulator import Module, Race, _library
from ptx_emulator.driver import intercepted
from ptx_emulator.mutate import mutate

from .small_kernels import RACY, ROUNDS, SCALE


class Driver:
    """A program that launches through the table, by ctypes: a kernel over registered arrays."""

    def __init__(self, ptx):
        self.lib = _library.load()
        self.call("cuInit", 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        self.library = ctypes.c_void_p()
        none = ctypes.c_void_p()
        self.call(
            "cuLibraryLoadData",
            ctypes.byref(self.library),
            ptx.encode(),
            none,
            none,
            0,
            none,
            none,
            0,
        )

    def call(self, name, *arguments, may_fail=False):
        function = ctypes.CFUNCTYPE(ctypes.c_int32)(self.lib.ptx_driver_function(name.encode()))
        function.argtypes = None
        result = function(*arguments)
        if result and not may_fail:
            raise RuntimeError(f"{name}: {result}")
        return result

    def launch(self, name, grid, block, arguments, **may):
        kernel = ctypes.c_void_p()
        self.call("cuLibraryGetKernel", ctypes.byref(kernel), self.library, name.encode())
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        values = [
            ctypes.c_uint64(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments
        ]
        params = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        for a in arrays:
            self.lib.ptx_driver_register(
                ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(a.nbytes), b"array", 0, 1
            )
        try:
            return self.call(
                "cuLaunchKernel", kernel, grid, 1, 1, block, 1, 1, 0, None, params, None, **may
            )
        finally:
            for a in arrays:
                self.lib.ptx_driver_unregister(ctypes.c_void_p(a.ctypes.data))


@pytest.fixture
def scale():
    """A call of y = 2 x, and y."""
    driver = Driver(SCALE)
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    parameters = Module(SCALE).kernel("scale").parameters

    def run(**may):
        rest = [ctypes.c_float(2.0) if p.bytes == 4 else None for p in parameters[2:]]
        return driver.launch("scale", 1, 64, [x, y, *rest], **may)

    return run, x, y


def test_a_launch_is_handed_over_instead_of_run(scale):
    run, _, y = scale
    with intercepted(lambda launch: (launch.kernel, list(launch.grid), list(launch.block))) as seen:
        run()
    assert seen == [("scale", [1, 1, 1], [64, 1, 1])]
    assert not y.any()
    run()
    assert y.any()


def test_it_runs_with_other_options_and_another_module(scale):
    run, x, y = scale
    with intercepted(lambda launch: launch.run(mode="late", seed=3, profile=True)) as launches:
        run()
    assert (y == 2 * x).all()
    assert launches[0].profile.as_dict()["launch"]["mode"] == "late"
    changed = Module(SCALE.replace("mul.f32", "add.f32").replace("mul.rn.f32", "add.rn.f32"))
    with intercepted(lambda launch: launch.run(changed)):
        run()
    assert (y == 2 + x).all()


def test_what_the_handler_raises_is_raised(scale):
    run, _, _ = scale
    with pytest.raises(ZeroDivisionError), intercepted(lambda launch: 1 // 0):
        run(may_fail=True)
    with pytest.raises(ZeroDivisionError), intercepted(lambda launch: 1 // 0):
        run()  # raises RuntimeError inside
    run()  # and all is as before


def test_races_come_through():
    module = Module(RACY)
    (kernel,) = module.kernels.values()
    driver = Driver(RACY)
    arrays = [np.zeros(1024, np.uint32) for _ in kernel.parameters]
    with pytest.raises(Race), intercepted(lambda launch: launch.run()):
        driver.launch(kernel.name, 1, 64, arrays, may_fail=True)


def test_a_mutant_in_place_of_a_launch_is_given_up_when_it_runs_away():
    driver = Driver(ROUNDS)

    def run(module, **options):
        with intercepted(lambda launch: launch.run(module, **options)):
            driver.launch("k", 1, 1, [], may_fail=True)

    (dropped,) = mutate(ROUNDS, run, kinds=["drop atomic"]).verdicts
    assert int(re.search(r"(\d+) warp instructions", dropped.text)[1]) < 2_000_000
