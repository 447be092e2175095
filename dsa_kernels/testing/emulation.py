"""How the emulator runs launches of the "emulated" backend."""

from __future__ import annotations

import contextlib

from dsa_kernels.testing import on_gpu

# Schedules that a kernel has to be right and free of races in: asynchronous operations done at
# once, as late as they may be, and at random times.
SCHEDULES = (("eager", 0), ("late", 0), *(("random", seed) for seed in range(1, 5)))


@contextlib.contextmanager
def emulation(mode: str = "eager", seed: int = 0, *, coarse_fp8: bool = False):
    """Launches inside run in `mode` ("eager", "random", "late") with `seed`, looking for races.

    coarse_fp8: fp8 products are summed as coarsely as Hopper was found to.

    Nothing of this can be chosen where a GPU stands in for the emulator (on_gpu.py).
    """
    if on_gpu.active():
        yield
        return
    from ptx_emulator import driver  # of the repository, not of the wheel

    before = driver.options()
    driver.set_options(driver.Options(driver.MODES.index(mode), 1, int(coarse_fp8), seed))
    try:
        yield
    finally:
        driver.set_options(before)
