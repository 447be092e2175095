"""What a launch counted, by warp of a CTA and instruction."""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from ._instructions import Instruction
from ._loops import Loop

SECTOR_BYTES = 32

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
    pcs: np.ndarray
    issued: np.ndarray  # executions
    skipped: np.ndarray  # those without a lane, as the guard was false
    accesses: dict[str, np.ndarray] | None
    loops: Sequence[Loop]  # of the module

    @property
    def warps(self) -> int:
        return len(self.issued)

    def columns(self, pcs: Iterable[int]) -> np.ndarray:
        return np.isin(self.pcs, list(pcs))

    def executions(self, pcs: Iterable[int]) -> np.ndarray:
        """Of these instructions, by warp."""
        return self.issued[:, self.columns(pcs)].sum(axis=1)

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
        return values
