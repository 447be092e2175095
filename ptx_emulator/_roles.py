"""Roles of a CTA's warps: those that run the same loops."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from ._counts import Counts
from ._loops import EFFECTS, Loop

# Warps whose loops have this part of their executed instructions in common are of one role: a role
# may have a leader, which does a little more.
_ALIKE = 0.8
_IDLE = 0.1  # of the instructions of the busiest warp


@dataclasses.dataclass
class LoopOfRole:
    loop: Loop
    iterations: float  # of a warp, on average, in the whole launch
    remainder: float  # the same, if it was unrolled: what is done outside, in parts of an iteration
    instructions: int  # of all warps, its own
    is_main: bool = False


@dataclasses.dataclass
class Role:
    name: str
    warps: tuple[int, ...]
    loops: list[LoopOfRole]  # that ran, but for those that wait

    @property
    def main(self) -> LoopOfRole | None:
        return next((loop for loop in self.loops if loop.is_main), None)


def find_roles(counts: Counts, loops: Iterable[Loop]) -> list[Role]:
    working = [loop for loop in loops if not loop.waits]
    ran = counts.values > 0
    iterations = [(loop, counts.iterations(loop)) for loop in working]
    shapes = []
    for warp in range(counts.warps):
        inside = np.zeros(len(counts.pcs), bool)
        for loop, of_warps in iterations:
            if of_warps[warp]:
                inside |= counts.columns(loop.pcs)
        shapes.append((bool(inside.any()), ran[warp] & inside if inside.any() else ran[warp]))
    groups: list[list[int]] = []
    for warp, (has_loop, shape) in enumerate(shapes):
        for group in groups:
            first_has_loop, first = shapes[group[0]]
            common, either = (first & shape).sum(), (first | shape).sum()
            if has_loop == first_has_loop and common >= _ALIKE * either:
                group.append(warp)
                break
        else:
            groups.append([warp])
    named: dict[str, list[list[int]]] = {}
    busiest = counts.values.sum(axis=1).max(initial=0)
    for group in groups:
        has_loop, shape = shapes[group[0]]
        kinds = {counts.code[pc].kind for pc in counts.pcs[shape]}
        if len(groups) == 1:
            name = "all"
        elif "tensor" in kinds:
            name = "math"
        elif "copy" in kinds or ({"ldg", "sts"} <= kinds and "stg" not in kinds):
            name = "copy"
        else:
            most = counts.values[group].sum(axis=1).max()
            name = "idle" if not has_loop and most < _IDLE * busiest else "other"
        named.setdefault(name, []).append(group)
    if "idle" in named:
        named["idle"] = [sorted(warp for group in named["idle"] for warp in group)]
    roles = [
        _role(name if len(all_of) == 1 else f"{name} {i}", warps, counts, working)
        for name, all_of in named.items()
        for i, warps in enumerate(all_of, 1)
    ]
    return sorted(roles, key=lambda role: role.warps)


def named_roles(
    counts: Counts, loops: Iterable[Loop], names: Mapping[str, Iterable[int]]
) -> list[Role]:
    """Roles that the caller knows."""
    working = [loop for loop in loops if not loop.waits]
    seen: set[int] = set()
    roles = []
    for name, warps in names.items():
        warps = tuple(warps)
        if not warps or not set(warps) <= set(range(counts.warps)) - seen:
            raise ValueError(f"role {name}: a CTA has warps 0 to {counts.warps - 1}, each once")
        seen.update(warps)
        roles.append(_role(name, warps, counts, working))
    if rest := [warp for warp in range(counts.warps) if warp not in seen]:
        roles.append(_role("rest", rest, counts, working))
    return roles


def _role(name: str, warps: Iterable[int], counts: Counts, loops: Iterable[Loop]) -> Role:
    warps = tuple(warps)
    values = counts.values[list(warps)].sum(axis=0)
    ran, sizes = [], []
    for loop in loops:
        iterations = float(counts.iterations(loop)[list(warps)].mean())
        if iterations:
            own, rest = values[counts.columns(loop.own)], values[counts.columns(loop.remainder)]
            remainder = iterations * _part(counts, loop, values)
            ran.append(LoopOfRole(loop, iterations, remainder, int(own.sum())))
            sizes.append((own.sum() + rest.sum(), -loop.header))
    if ran:
        ran[sizes.index(max(sizes))].is_main = True
    return Role(name, warps, ran)


def _part(counts: Counts, loop: Loop, values: np.ndarray) -> float:
    """How much was done in a loop's remainder, as a part of what was done in the loop."""
    with_effects = values * [counts.code[pc].kind in EFFECTS for pc in counts.pcs]
    rest = with_effects[counts.columns(loop.remainder)].sum()
    return float(rest / with_effects[counts.columns(loop.pcs)].sum()) if rest else 0.0
