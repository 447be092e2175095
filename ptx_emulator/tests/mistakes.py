"""The mistakes whose reports docs/debugging.md shows.

python -m ptx_emulator.tests.mistakes
"""

import numpy as np

from ptx_emulator import EmulatorError, Module, Uninitialized

from . import test_gemm_ring, test_races
from .compile import kernel_ptx


def scale_tiles(*macros, tiles=6):
    """Runs kernels/mistakes.cu with a mistake."""

    def run(**options):
        x = np.arange(6 * 128, dtype=np.float32)
        y = np.full_like(x, np.nan)
        module = Module(kernel_ptx("mistakes", macros))
        module.launch("scale_tiles", 1, 160, [x, Uninitialized(y), tiles], **options)
        assert (y == 2 * x).all()

    return run


def races(kernel, *macros):
    def run(**options):
        kernel(test_races.module(*macros), **options)

    return run


def gemm_ring(dropped):
    """Runs kernels/gemm_ring.cu without the last instruction of this kind."""

    def run(**options):
        case = test_gemm_ring.case(128, 64, 64)
        at = case.ptx.rindex(dropped)
        case.run(Module(case.ptx[:at] + "//" + case.ptx[at:]), **options)

    return run


MISTAKES = {
    "no barrier": races(test_races.reverse_shared, "NO_SYNC"),
    "no fence": races(test_races.chain, "VOLATILE", "NO_FENCE"),
    "no __syncwarp": races(test_races.SWAPS["swap_words"], "NO_SYNCWARP"),
    "early release": scale_tiles("EARLY_RELEASE"),
    "no proxy fence": scale_tiles("NO_PROXY_FENCE"),
    "no wait for a store's read": scale_tiles("NO_READ_WAIT"),
    "no wait for a wgmma": gemm_ring("wgmma.wait_group.sync.aligned 0;"),
    "too many bytes expected": scale_tiles("MANY_BYTES"),
    "a stage is never released": scale_tiles("NO_RELEASE"),
    "a forgotten element": scale_tiles("FORGOTTEN_ELEMENT"),
    "past the end": scale_tiles(tiles=7),
}


def report(name, **options):
    """What the mistake raises, as the command line prints it."""
    try:
        MISTAKES[name](**options)
    except EmulatorError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"{name} is not found")


if __name__ == "__main__":
    for mistake in MISTAKES:
        print(f"## {mistake}\n\n```\n{report(mistake)}\n```\n")
