"""Natural loops of random control flow, against their definition; iterations of each form."""

import random

import numpy as np
import pytest

from ptx_emulator._instructions import Instruction
from ptx_emulator._loops import find_loops

from .profiled import profiled


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


WORK = "fma.rn.f32 %f1, %f1, %f1, %f1;\n" * 4
# Each does WORK n times; n is of %r1's steps.
FORMS = {
    "tested at its end": "LOOP: {work} {step} @%p1 bra LOOP;",
    "tested at its top": "LOOP: {test} @!%p1 bra END; {work} add.u32 %r1, %r1, 1; bra LOOP;",
    "left in the middle": "LOOP: {work} {step} @!%p1 bra END; mov.u32 %r3, %r1; bra LOOP;",
    "left soon": "LOOP: mov.u32 %r3, %r1; {step} @!%p1 bra END; {work} bra LOOP;",
}
TEST = "setp.lt.u32 %p1, %r1, {n};"


@pytest.mark.parametrize("n", [1, 2, 3, 20])
@pytest.mark.parametrize("form", FORMS)
def test_iterations_are_times_that_the_work_is_done(form, n):
    test = TEST.format(n=n + 1 if form == "left soon" else n)
    body = FORMS[form].format(work=WORK, test=test, step=f"add.u32 %r1, %r1, 1; {test}")
    profile = profiled(f"mov.u32 %r1, 0;\n{body}\nEND: ret;", block=64)
    (role,) = profile.as_dict()["roles"]
    (loop,) = role["loops"]
    assert loop["iterations_per_warp"] == n
    assert loop["per_iteration"]["fp"] == 4
    assert profile.bounds["loops"]["cycles"]["fma"] == 4


def test_a_loop_that_never_goes_round_is_none():
    body = FORMS["tested at its top"].format(work=WORK, test=TEST.format(n=0))
    profile = profiled(f"mov.u32 %r1, 0;\n{body}\nEND: ret;")
    assert not profile.as_dict()["roles"][0]["loops"]


def test_the_rest_of_an_unrolled_loop_counts_with_it():
    """Warp 0 copies 11 times, unrolled by 4; warp 1 works 11 times on what was copied."""
    copy = "cp.async.ca.shared.global [%r5], [%rd0], 16;\n"
    profile = profiled(
        f"""
        mov.u32 %r5, box;
        mov.u32 %r1, 0;
        setp.lt.u32 %p2, %r0, 32;
        @%p2 bra COPY;
        WORKS: {WORK} add.u32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, 11;
        @%p1 bra WORKS;
        ret;
        COPY: {copy * 4} add.u32 %r1, %r1, 4;
        setp.lt.u32 %p1, %r1, 8;
        @%p1 bra COPY;
        REST: {copy} add.u32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, 11;
        @%p1 bra REST;
        cp.async.wait_all;
        ret;
        """,
        np.zeros(16, np.uint8),
        block=64,
        before=".shared .align 16 .b8 box[16];",
    )
    roles = {role["name"]: role for role in profile.as_dict()["roles"]}
    assert [loop["iterations_per_warp"] for loop in roles["copy"]["loops"]] == [2, 3]
    loops = profile.bounds["loops"]
    assert loops["iterations_per_cta"] == 11
    assert loops["shared"]["copies"] == 32 * 16 / 128
