"""What the CUDA kernels issue and move is not above csrc/cuda/counts.json, and it would be seen."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from bench import kernel_counts
from bench.counts import cases, emulated, sass
from dsa_kernels import _cuda

BOOK = json.loads(kernel_counts.RECORDED.read_text())
BY_NAME = {case.name: case for case in cases.CASES}
LOGITS, PREFILL = BY_NAME["mqa_logits fp8"], BY_NAME["sparse_mla_prefill bf16"]
# Others run much of the same code.
ALIKE = (
    "paged_mqa_logits fp8, next_n 1",
    "sparse_mla_decode v32 with float scales, 128 heads",
    "sparse_mla_decode v32, 64 heads",
    "sparse_mla_decode v32 with float scales, 64 heads",
    "sparse_mla_decode v32, 32 heads",
)

each_case = pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
needs_tools = pytest.mark.skipif(sass.missing_tool() is not None, reason=str(sass.missing_tool()))


def needs_ptx(case: cases.Case) -> None:
    if problem := _cuda.emulation_problem(case.op):
        pytest.skip(problem)


def complaints(case: cases.Case, **figures: float) -> list[str]:
    recorded = BOOK[case.name]
    return kernel_counts.complaints(case, figures, recorded, recorded["compiler"])


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.name in ALIKE else [])
        for case in cases.CASES
    ],
)
def test_kernels_are_not_above_what_is_recorded(case, capsys):
    needs_ptx(case)
    assert kernel_counts.main(["--ptx-only", "--only", case.name]) == 0, capsys.readouterr().out
    assert case.name in capsys.readouterr().out


@each_case
def test_recorded_figures_are_not_above_the_peers(case):
    assert complaints(case) == []


def test_every_case_is_recorded_and_nothing_else():
    assert list(BOOK) == list(BY_NAME)
    for case in cases.CASES:
        assert ("sass" in BOOK[case.name]) == case.machine_code


@pytest.mark.parametrize(
    ("case", "before", "extra", "more"),
    [
        (LOGITS, "shfl.sync.bfly", "add.u32 x, 1, 2;", ["ptx"]),
        (LOGITS, "shfl.sync.bfly", "ld.shared.u32 x, [1024];", ["ptx", "shared"]),
        (PREFILL, "stmatrix", "fence.proxy.async;", ["ptx"]),
    ],
)
def test_one_instruction_more_in_a_loop_is_refused(case, before, extra, more, monkeypatch):
    needs_ptx(case)
    only, of_a_unit = emulated.only, emulated.figures(case).executions

    def bloated(ptx: str, kernel: str) -> str:
        lines = only(ptx, kernel).split("\n")
        in_the_loop = (i for i, n in of_a_unit.items() if n.any() and before in lines[i - 1])
        lines[next(in_the_loop) - 1] += f" {{ .reg .b32 x; {extra} }}"
        return "\n".join(lines)

    monkeypatch.setattr(emulated, "only", bloated)
    figures = emulated.figures(case)
    found = {name: kernel_counts.total(getattr(figures, name)) for name in ("ptx", "shared", "l2")}
    bad = complaints(case, **found)
    assert [line.split(": ")[1] for line in bad] == [cases.METRICS[name] for name in more]


@pytest.mark.parametrize("name", cases.METRICS)
def test_each_figure_is_held_to_the_recorded_one(name):
    figure = BOOK[LOGITS.name][name]
    assert complaints(LOGITS, **{name: figure}) == []
    bad = complaints(LOGITS, **{name: figure + 0.5})[0]
    assert LOGITS.name in bad and cases.METRICS[name] in bad


def test_another_compiler_may_differ_a_little():
    recorded = BOOK[LOGITS.name]
    for factor, refused in ((1.02, False), (1.04, True)):
        figures = {"ptx": recorded["ptx"] * factor}
        assert bool(kernel_counts.complaints(LOGITS, figures, recorded, "V99")) == refused


def test_a_figure_above_the_peers_is_refused_though_it_be_recorded():
    limit = LOGITS.peer.figures["shared"]
    recorded = {**BOOK[LOGITS.name], "shared": limit + 1}
    (bad,) = kernel_counts.complaints(LOGITS, {}, recorded, recorded["compiler"])
    assert "DeepGEMM" in bad
    known = dataclasses.replace(LOGITS, above=("shared",))
    assert kernel_counts.complaints(known, {}, recorded, recorded["compiler"]) == []


def test_a_kernel_that_was_not_recorded_is_refused():
    assert kernel_counts.complaints(LOGITS, {}, None, "V13.0.88")


def test_update_needs_machine_code():
    with pytest.raises(SystemExit, match="machine code"):
        kernel_counts.main(["--update", "--ptx-only"])


@needs_tools
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(LOGITS, id="logits"),
        pytest.param(PREFILL, id="prefill", marks=pytest.mark.slow),
    ],
)
def test_machine_code_is_counted(case):
    needs_ptx(case)
    slots = kernel_counts.machine_code_slots(case, emulated.figures(case))
    assert kernel_counts.total(slots) == pytest.approx(BOOK[case.name]["sass"], rel=0.03)


def disassembly(*lines: str | int) -> str:
    """Of instructions, labels, and numbers of lines of the PTX."""
    out, address = [], 0
    for line in lines:
        if isinstance(line, int):
            out.append(f'\t//## File ".nv_debug_ptx_txt", line {line}')
        elif line.endswith(":"):
            out.append(line)
        else:
            out.append(f"        /*{address:04x}*/                   {line} ;")
            address += 16
    return "\n".join(out)


def slots(text: str, times: dict[int, float], shuffles: float = 0) -> float:
    """Of one warp."""
    executions = {line: np.array([float(n)]) for line, n in times.items()}
    (found,) = sass.issue_slots(text, executions, {"shfl": shuffles}) * emulated.PARTITIONS
    return found


LOOP = (1, "MOV R1, R2", ".L_x_0:", 2, "FADD R1, R1, R2", "@!P1 FMUL R1, R1, R2")


def test_a_block_counts_as_often_as_most_of_it():
    loop = (*LOOP, 1, "IADD3 R4, R4, R5, RZ", 2, "@P0 BRA `(.L_x_0)", 3, "EXIT")
    assert slots(disassembly(*loop), {1: 1, 2: 10, 3: 1}) == 1 + 4 * 10 + 1


def test_a_branch_that_was_not_taken_counts_for_nothing():
    code = (1, "@P0 BRA `(.L_x_0)", 2, "FADD R1, R1, R2", "FADD R1, R1, R3", ".L_x_0:", 3, "EXIT")
    assert slots(disassembly(*code), {1: 5, 3: 5}) == 10


def test_retries_of_a_wait_do_not_count():
    tries = "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2"
    code = (1, tries, "@!P0 BRA `(.L_x_1)", ".L_x_0:", 2, "EXIT")
    code += (".L_x_1:", 1, tries, "@!P0 BRA `(.L_x_1)", "BRA `(.L_x_0)")
    assert slots(disassembly(*code), {1: 3, 2: 3}) == 9


def test_a_loop_that_only_waits_counts_where_it_is_the_first_try():
    tries = "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2"
    code = (1, "MOV R1, R2", ".L_x_1:", 2, tries, "@!P0 BRA `(.L_x_1)", 1, "EXIT")
    assert slots(disassembly(*code), {1: 3, 2: 3}) == 12


def test_copies_of_a_shuffle_are_noticed():
    shuffle = "SHFL.BFLY PT, R1, R2, 0x1, 0x1f"
    copied = disassembly(1, shuffle, "@P0 BRA `(.L_x_9)", 1, shuffle, 2, "EXIT")
    with pytest.raises(sass.NotCounted, match="20 shfl instructions, and 10 in PTX"):
        slots(copied, {1: 10, 2: 1}, shuffles=10)


def test_a_subroutine_is_noticed():
    with pytest.raises(sass.NotCounted, match="subroutine"):
        slots(disassembly(1, "CALL.REL.NOINC `(division)", 1, "EXIT"), {1: 10})


def test_code_of_unknown_origin_counts_for_nothing():
    code = disassembly(1, "MOV R1, R2", "EXIT", "$__internal_0_$__division:", "MOV R1, R2", "EXIT")
    assert slots(code, {1: 7}) == 14
