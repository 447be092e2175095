"""Natural loops of random control flow, against their definition."""

import random

import pytest

from ptx_emulator._instructions import Instruction
from ptx_emulator._loops import find_loops


def function(successors, first=0, number=0):
    """Instructions that only branch."""
    return [
        Instruction(first + i, "bra", i, "", number, "ctrl", "", tuple(first + to for to in of))
        for i, of in enumerate(successors)
    ]


def reachable(successors, start, without=None):
    seen, left = set(), [start]
    while left:
        pc = left.pop()
        if pc != without and pc not in seen:
            seen.add(pc)
            left += successors[pc]
    return seen


def loops_by_definition(successors):
    """{header: pcs}: of each edge to a dominator, what reaches its source without the header."""
    alive = reachable(successors, 0)
    loops = {}
    for latch in alive:
        for header in successors[latch]:
            if header != latch and latch in reachable(successors, 0, without=header):
                continue
            body = {header} | {
                pc for pc in alive - {header} if latch in reachable(successors, pc, without=header)
            }
            loops.setdefault(header, set()).update(body)
    return loops


def random_flow(generator, size):
    """Mostly forward, with a few ways back, tables, and dead ends."""
    successors = []
    for pc in range(size):
        kind = generator.random()
        onward = [min(pc + 1, size - 1)] if pc + 1 < size else []
        if kind < 0.5:
            successors.append(onward)
        elif kind < 0.9:
            successors.append(list({*onward, generator.randrange(size)}))
        elif kind < 0.97:
            successors.append(generator.sample(range(size), 3))
        else:
            successors.append([])
    return successors


@pytest.mark.parametrize("seed", range(300))
def test_random_control_flow(seed):
    generator = random.Random(seed)
    flows = [random_flow(generator, generator.randrange(3, 25)) for _ in range(2)]
    code, expected = [], {}
    for number, flow in enumerate(flows):
        first = len(code)
        code += function(flow, first, number)
        for header, body in loops_by_definition(flow).items():
            expected[first + header] = {first + pc for pc in body}
    found = find_loops(code)
    assert {loop.header: set(loop.pcs) for loop in found} == expected
    for loop in found:
        around = [other for other in found if loop.pcs < other.pcs]
        smallest = min((len(other.pcs) for other in around), default=0)
        assert (len(loop.parent.pcs) if loop.parent else 0) == smallest
        for latch in loop.latches:
            assert loop.header in code[latch].successors and latch in loop.pcs
        # What every way round passes.
        edges = {pc: [to for to in code[pc].successors if to in loop.pcs] for pc in loop.pcs}
        edges |= {pc: [to for to in edges[pc] if to != loop.header] for pc in loop.pcs}
        for pc in loop.pcs - {loop.header}:
            passed = not set(loop.latches) & reachable(edges, loop.header, without=pc)
            assert (pc in loop.always) == passed
