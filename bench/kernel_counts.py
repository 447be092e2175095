"""`make kernel-counts`: what the CUDA kernels issue and move for a unit of work, against recorded
figures, and against FlashMLA's and DeepGEMM's. Needs no GPU.

PTX, bytes and cycles are counted by the emulator; issue slots of SASS are machine code, weighted
with these counts. Of two problem sizes the difference is taken, so what is done once is not in it.
Bounds are modelled, and decide nothing. Fails where a figure is above the one in
csrc/cuda/counts.json, or above the peer's; after a wanted change, --update records what there is.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from bench.counts import sass
from bench.counts.cases import CASES, METRICS, Case
from bench.counts.emulated import Figures, figures, only
from dsa_kernels import _cuda

RECORDED = Path(__file__).resolve().parents[1] / "csrc" / "cuda" / "counts.json"
SLACK = 0.2  # for rounding; an instruction more in the loop of one role is 0.5 or more
OTHER_COMPILER = 0.03  # the part by which the code of another one may be more


def ptx_of(op: str) -> str:
    return (_cuda.code_directory() / f"{op}.sm90.ptx").read_text()


def compiler_of(ptx: str) -> str:
    return re.search(r"release [\d.]+, (V[\d.]+)", ptx[:1000])[1]


def machine_code_slots(case: Case, counted: Figures) -> dict[str, float]:
    """By role."""
    code = sass.disassemble(only(ptx_of(case.op), counted.kernel))
    slots = sass.issue_slots(code, counted.executions, counted.collectives)
    return {role: float(slots[list(warps)].sum()) for role, warps in case.roles.items()}


def total(figure: float | dict) -> float:
    return round(sum(figure.values()) if isinstance(figure, dict) else figure, 1)


def complaints(case: Case, totals: dict, recorded: dict | None, compiler: str) -> list[str]:
    """Of the figures that were measured here; the others have been when they were recorded."""
    if recorded is None:
        return [f"{case.name}: not in {RECORDED.name}"]
    more = case.varies if recorded["compiler"] == compiler else OTHER_COMPILER
    bad = [
        f"{case.name}: {METRICS[name]}: {value:g}, recorded {recorded[name]:g}"
        for name, value in totals.items()
        if value > recorded[name] * (1 + more) + SLACK
    ]
    for name, limit in case.peer.figures.items() if case.peer else ():
        if name not in case.above and (value := (recorded | totals)[name]) > limit:
            bad.append(f"{case.name}: {METRICS[name]}: {value:g}, {case.peer.name}: {limit:g}")
    return bad


def row(case: Case, name: str, figure: float | dict | None, recorded: dict | None) -> str:
    theirs = case.peer.figures.get(name) if case.peer else None
    values = (None if figure is None else total(figure), (recorded or {}).get(name), theirs)
    cells = "".join(f"{'-' if value is None else f'{value:g}':>10}" for value in values)
    mark = "above" if name in case.above else ""
    roles = ""
    if isinstance(figure, dict) and len(figure) > 1:
        roles = ", ".join(f"{role} {slots:.0f}" for role, slots in figure.items() if slots)
    return f"  {METRICS[name]:22}{cells} {mark:5}  {roles}".rstrip()


def table(case: Case, counted: Figures, measured: dict, recorded: dict | None) -> str:
    peer = case.peer.name if case.peer else ""
    head = f"  {'':22}{'here':>10}{'recorded':>10}{'peer':>10}         {peer}"
    rows = [row(case, name, measured.get(name), recorded) for name in METRICS]
    cycles = sorted(counted.modelled.items(), key=lambda item: -item[1])
    bound = ", ".join(f"{unit} {of:.0f}" for unit, of in cycles if of > 0)
    return "\n".join(
        [
            f"{case.name}, of {case.unit}    [{counted.kernel}]",
            head.rstrip(),
            *rows,
            f"  modelled cycles, uncalibrated: {bound}",
        ]
    )


def write(book: dict) -> None:
    rows = (f"{json.dumps(c.name)}: {json.dumps(book[c.name])}" for c in CASES if c.name in book)
    RECORDED.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kernel_counts", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases named *TEXT*")
    parser.add_argument("--ptx-only", action="store_true", help="leave machine code out")
    parser.add_argument("--update", action="store_true", help="record what there is")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    cases = [case for case in CASES if options.only in case.name]
    for op in dict.fromkeys(case.op for case in cases):
        if problem := _cuda.emulation_problem(op):
            raise SystemExit(problem)
    missing = "--ptx-only" if options.ptx_only else sass.missing_tool()
    if missing and options.update:
        raise SystemExit(f"--update records machine code, too: {missing}")
    if missing:
        print(f"Machine code is not counted: {missing}")
    book = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    bad: list[str] = []
    for case in cases:
        counted = figures(case)
        measured = {name: getattr(counted, name) for name in METRICS if name != "sass"}
        if case.machine_code and not missing:
            measured["sass"] = machine_code_slots(case, counted)
        totals = {name: total(measured[name]) for name in METRICS if name in measured}
        compiler = compiler_of(ptx_of(case.op))
        if options.update:
            book[case.name] = {"compiler": compiler, **totals}
        print(table(case, counted, measured, book.get(case.name)), flush=True)
        bad += complaints(case, totals, book.get(case.name), compiler)
    if options.update:
        write(book)
    print("\n".join(bad) if bad else f"{len(cases)} kernels are not above what they are held to")
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
