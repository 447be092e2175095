"""What a launch counted, by warp of a CTA and instruction."""

import ctypes
import dataclasses
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from ._instructions import Instruction
from ._loops import Loop

SECTOR_BYTES = 32

PATHS = ("direct", "copy", "bulk", "atomic")  # Path of csrc/profile.h
# Profile::Counter of csrc/profile.h
ACCESSES = (
    "global_requests",
    "global_read",
    "global_written",
    "sectors",
    "shared_read",
    "shared_written",
    "remote_read",
    "remote_written",
    "wavefronts",
    "ideal_wavefronts",
    "local",
)


@dataclasses.dataclass
class Counts:
    """Arrays [warps of a CTA, instructions that ran], summed over CTAs."""

    code: Sequence[Instruction]  # of the module
    loops: Sequence[Loop]  # of the module
    pcs: np.ndarray
    issued: np.ndarray  # executions
    skipped: np.ndarray  # those without a lane, as the guard was false
    accesses: dict[str, np.ndarray] | None

    @property
    def warps(self) -> int:
        return len(self.issued)

    def columns(self, pcs: Iterable[int]) -> np.ndarray:
        return np.isin(self.pcs, list(pcs))

    def iterations(self, loop: Loop) -> np.ndarray:
        """How often most of a loop ran, by warp: the part in front of an exit may run once more
        than what is behind it."""
        pcs = np.array(sorted(loop.weights))
        weights = np.array([loop.weights[pc] for pc in pcs])
        ran = np.zeros((self.warps, len(pcs)), np.int64)
        ran[:, np.isin(pcs, self.pcs)] = self.values[:, self.columns(pcs)]
        order = np.argsort(ran, axis=1)
        half = np.cumsum(weights[order], axis=1) * 2 >= weights.sum()
        median = np.take_along_axis(order, half.argmax(axis=1)[:, None], axis=1)
        return np.take_along_axis(ran, median, axis=1)[:, 0]

    def polls(self, loop: Loop) -> np.ndarray:
        """How often a loop went back to its header, by warp."""
        total = np.zeros(self.warps, np.int64)
        for latch in loop.latches:
            column = self.columns([latch])
            issued = self.issued[:, column].sum(axis=1)
            skipped = self.skipped[:, column].sum(axis=1)
            following = self.code[latch].successors
            if len(following) == 1:
                total += issued
            else:  # a branch that lanes took, or a fall through past one that none did
                total += issued - skipped if following[0] == loop.header else skipped
        return total

    @cached_property
    def values(self) -> np.ndarray:
        """Executions without those of polls that failed, which depend on who was faster."""
        values = self.issued.copy()
        for loop in self.loops:
            if loop.waits:
                values[:, self.columns(loop.always)] -= self.polls(loop)[:, None]
        # Lanes that parted may go back on their own, and go on together.
        return np.maximum(values, 0)


def read_counts(lib, outcome: int, warps: int, instructions: int, profiled: bool) -> tuple:
    """The arrays of Counts, of a launch that is over."""
    issued, skipped = np.empty((2, warps, instructions), np.int64)
    lib.ptx_outcome_counts(outcome, False, issued.ctypes.data)
    lib.ptx_outcome_counts(outcome, True, skipped.ctypes.data)
    pcs = np.flatnonzero(issued.any(axis=0))
    accesses = _read_accesses(lib, outcome, warps, pcs) if profiled else None
    return pcs, issued[:, pcs], skipped[:, pcs], accesses


def _read_accesses(lib, outcome: int, warps: int, pcs: np.ndarray) -> dict[str, np.ndarray]:
    accesses = {name: np.zeros((warps, len(pcs)), np.int64) for name in ACCESSES}
    numbers = ctypes.POINTER(ctypes.c_uint64)()
    for warp in range(warps):
        n = lib.ptx_outcome_accesses(outcome, warp, ctypes.byref(numbers))
        if not n:
            continue
        rows = np.ctypeslib.as_array(numbers, (n,)).reshape(-1, 1 + len(ACCESSES))
        for name, values in zip(ACCESSES, rows.T[1:], strict=True):
            accesses[name][warp, np.searchsorted(pcs, rows[:, 0])] = values
    return accesses


def read_unique(lib, outcome: int) -> dict[str, dict[str, int]]:
    """Bytes of the sectors that a launch touched, by path and by all of them."""

    def touched(path: int, read: bool, written: bool) -> int:
        return SECTOR_BYTES * lib.ptx_outcome_unique_sectors(outcome, path, read, written)

    return {
        name: {
            "unique_read_bytes": touched(path, True, False),
            "unique_written_bytes": touched(path, False, True),
            "unique_bytes": touched(path, True, True),
        }
        for path, name in [*enumerate(PATHS), (-1, "all")]
    }
