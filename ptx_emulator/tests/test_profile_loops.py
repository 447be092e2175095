"""Natural loops of random control flow, against their definition."""

import random

import pytest

from ptx_emulator._flow import Flow
from ptx_emulator._instructions import Instruction
from ptx_emulator._loops import find_loops


def function(successors, first=0, number=0, traps=()):
    """Instructions that only branch."""
    return [
        Instruction(
            first + i,
            "trap" if i in traps else "bra",
            i,
            "",
            number,
            "ctrl",
            "",
            tuple(first + to for to in of),
        )
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
        check_weights(loop, code)


def check_weights(loop, code):
    """One for each instruction of its own that every way round passes, and for inner loops that
    they pass, all of which is put on the last of these instructions in front."""
    flow = [of.successors for of in code]
    first = next(pc for pc, of in enumerate(code) if of.function == code[loop.header].function)
    own = loop.own & loop.always
    expected = dict.fromkeys(own, 1)
    for child in loop.children:
        if child.header in loop.always:
            in_front = [
                pc
                for pc in own
                if child.header not in reachable(flow, first, without=pc) or pc == first
            ]
            (last,) = [
                pc
                for pc in in_front
                if all(pc == it or pc not in reachable(flow, first, without=it) for it in in_front)
            ]
            expected[last] += len(child.pcs)
    assert loop.weights == expected


@pytest.mark.parametrize("seed", range(200))
def test_dominators(seed):
    """Against ways with and without a block, of instructions that each are one."""
    generator = random.Random(seed)
    successors = random_flow(generator, generator.randrange(3, 25))
    successors = [of if len(of) != 1 else of * 2 for of in successors]  # a block each
    ends = {pc for pc, of in enumerate(successors) if not of}
    traps = {pc for pc in ends if generator.random() < 0.5}
    flow = Flow(function(successors, traps=traps), 0, len(successors))
    first = [start for start, _ in flow.ranges]
    alive = reachable(successors, 0)
    assert sorted(first) == sorted(alive)
    for block, pc in enumerate(first):
        before = {first[other] for other in flow.dominators(block)}
        assert before == {it for it in alive - {pc} if pc not in reachable(successors, 0, it)}
        behind = {first[it] for it in flow.postdominators(block)}
        left = (ends - traps) & alive
        if not left & reachable(successors, pc):
            assert not behind
        else:
            assert behind == {it for it in alive - {pc} if not left & reachable(successors, pc, it)}
