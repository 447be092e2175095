"""What the emulator counts of a kernel: PTX instructions, shared memory cycles, bytes, cycles.

Shared memory cycles are counted by a rule that needs no emulator and can be applied to machine
code, which is how the peers' were found: what wgmma reads and what copies and stores write, at 128
bytes a cycle, and one cycle for each warp instruction that loads from shared memory, shuffles, or
accesses global memory through registers (which is assumed). The emulator's modelled bound has bank
conflicts and the lines of global accesses, too.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import numpy as np

from bench.counts.cases import Case, arguments
from dsa_kernels._op import OPS

BYTES_A_CYCLE = 128
PARTITIONS = 4


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of a unit of work. Issue slots are those of an SM partition: the sum over warps, by four."""

    kernel: str
    ptx: dict[str, float]  # issue slots by role
    shared: float  # cycles
    l2: float  # bytes that copies and lanes ask for
    tensor: float  # cycles
    modelled: dict[str, float]  # cycles by unit, as of ptx_emulator/docs/profile.md
    executions: dict[int, np.ndarray]  # line of the PTX -> times a unit, by warp
    collectives: dict[str, float]  # "tensor", "shfl": instructions that no predicate leaves out


def figures(case: Case) -> Figures:
    large = _run(case, case.large)
    small = _run(case, case.small) if case.small else None

    def per_unit(count):
        return (count(large) - (count(small) if small else 0)) / case.units

    lines = _executions(large)
    if small:
        before = _executions(small)
        lines = {line: n - before.get(line, 0) for line, n in lines.items()}
    slots = per_unit(_issue_slots)
    units = large.profile.bounds["cta"]["cycles"]
    return Figures(
        kernel=large.kernel,
        ptx={role: float(slots[list(warps)].sum()) for role, warps in case.roles.items()},
        shared=per_unit(_shared_cycles),
        l2=per_unit(lambda run: run.profile.memory["global"]["all"]["read_bytes"]),
        tensor=per_unit(lambda run: run.modelled("tensor")),
        modelled={unit: per_unit(lambda run, u=unit: run.modelled(u)) for unit in units},
        executions={line: n / case.units for line, n in lines.items()},
        collectives={
            kind: per_unit(lambda run, k=kind: _instructions(run, k)) for kind in ("tensor", "shfl")
        },
    )


def only(ptx: str, kernel: str) -> str:
    """The module without its other kernels: faster to read, and for ptxas to compile."""
    others = rf"\.visible \.entry (?!{kernel}\().*?\n}}\n"
    return re.sub(others, "", ptx, flags=re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Run:
    kernel: str
    ctas: int
    profile: object

    def modelled(self, unit: str) -> float:
        return self.ctas * self.profile.bounds["cta"]["cycles"][unit]


@functools.lru_cache(maxsize=2)
def _module(ptx: str):
    from ptx_emulator import Module

    return Module(ptx)


def _run(case: Case, shape: dict) -> Run:
    from ptx_emulator.driver import intercepted

    def profiled(launch) -> Run:
        if case.ctas is not None:
            launch.grid[0] = case.ctas
        done = launch.run(_module(only(launch.ptx, launch.kernel)), races=False, profile=True)
        return Run(launch.kernel, math.prod(launch.grid), done.profile)

    with intercepted(profiled) as runs:
        OPS[case.op](*arguments(case.op, shape), backend="emulated")
    (run,) = runs
    return run


def _issue_slots(run: Run) -> np.ndarray:
    """By warp. ptxas makes moves and conversions to fewer bits parts of other instructions."""
    counts = run.profile.counts
    issued = np.array([counts.code[pc].pipe != "none" for pc in counts.pcs])
    return counts.values @ issued / PARTITIONS


def _kinds(run: Run) -> np.ndarray:
    """By instruction that ran: its class, but shuffles without votes and reductions."""
    counts = run.profile.counts
    code = [counts.code[pc] for pc in counts.pcs]
    votes = [at.kind == "shfl" and not at.opcode.startswith("shfl") for at in code]
    return np.where(votes, "vote", [at.kind for at in code])


def _instructions(run: Run, *kinds: str) -> float:
    return float(run.profile.counts.values[:, np.isin(_kinds(run), kinds)].sum())


def _shared_cycles(run: Run) -> float:
    accesses, kinds = run.profile.counts.accesses, _kinds(run)

    def moved(kind: str, *names: str) -> float:
        return sum(float(accesses[name][:, kinds == kind].sum()) for name in names)

    written = ("shared_written", "remote_written")
    bytes_moved = (
        moved("tensor", "shared_read")
        + moved("copy", "shared_read", "remote_read", *written)
        + moved("sts", *written)
    )
    return bytes_moved / BYTES_A_CYCLE + _instructions(run, "lds", "shfl", "ldg", "stg")


def _executions(run: Run) -> dict[int, np.ndarray]:
    counts = run.profile.counts
    found: dict[int, np.ndarray] = {}
    for column, pc in enumerate(counts.pcs):
        line, times = counts.code[pc].line, counts.values[:, column]
        found[line] = np.maximum(found[line], times) if line in found else times
    return found
