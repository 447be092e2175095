"""Tables of measured rows, records of runs, and what got slower between two."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path

from bench.peaks import Peaks
from bench.suite import Row
from dsa_kernels.cli import output

ROOT = Path(__file__).parent.parent
MEASURED = ("bench", "csrc", "dsa_kernels", "setup.py")  # not the page that a run writes
REGRESSION = 0.9  # of the earlier share of the peak


def commit() -> str:
    """Of the code; its name ends in -dirty where what is measured has changed since."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)

    try:
        name = git("describe", "--always").stdout.strip()
        changed = git("diff", "--quiet", "HEAD", "--", *MEASURED).returncode == 1
    except FileNotFoundError:  # no git
        return "unknown"
    return name + "-dirty" * changed if name else "unknown"


def heading(facts: dict, peaks: Peaks) -> list[str]:
    arithmetic = f"fp32 {peaks.fp32 / 1e9:.0f} GFLOP/s"
    if peaks.bf16 is not None:
        arithmetic = f"bf16 {peaks.bf16 / 1e9:.0f}, {arithmetic}"
    memory = ", ".join(
        f"{name} {peaks.read[name] / 1e9:.0f}/{peaks.copy[name] / 1e9:.0f}" for name in peaks.read
    )
    return [
        f"{facts['cpu']}, isa {facts['isa']}, threads {peaks.threads}",
        f"dsa_kernels {facts['commit']}, torch {facts['torch']}",
        f"peaks, measured: {arithmetic}",
        f"read/copy GB/s: {memory}",
    ]


def cells(row: Row, peers: list[str]) -> list[str]:
    rate = row.flops / row.seconds / 1e9
    unit = "GF/s"
    if row.bound not in ("bf16", "fp32"):
        rate, unit = row.bytes / row.seconds / 1e9, "GB/s"
    torch_cell = "-" if row.torch is None else times(row.torch) + "~" * row.torch_scaled
    return [
        row.shape,
        output.seconds(row.seconds),
        f"{output.number(rate)} {unit}",
        f"{row.of_peak:.0%}",
        row.bound,
        torch_cell,
        *(times(row.peers[p]) + "~" * row.peers_scaled if p in row.peers else "-" for p in peers),
    ]


def times(ratio: float) -> str:
    return f"{output.number(ratio)}x"


def table(rows: list[Row], peers: list[str]) -> str:
    header = ["shape", "time", "rate", "of peak", "bound", "torch", *peers]
    return output.table(header, [cells(row, peers) for row in rows])


def markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def markdown(rows: list[Row], peers: list[str]) -> str:
    header = ["op", "shape", "time", "rate", "of peak", "bound", "torch", *peers]
    return "\n".join(markdown_table(header, [[f"`{r.op}`", *cells(r, peers)] for r in rows]))


def around(page: str, marker: str) -> tuple[str, str] | None:
    """What of `page` precedes and follows the text between its markers; None if it has none."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if begin not in page and end not in page:
        return None
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"a page needs both {begin} and, behind it, {end}")
    return before + begin, end + after


def publish(path: Path, marker: str, text: str) -> None:
    """Puts `text` between the markers of the page at `path`, or writes a page of it alone."""
    found = around(path.read_text(), marker) if path.exists() else None
    if found is None:
        path.write_text(f"{text}\n")
    else:
        path.write_text(f"{found[0]}\n\n{text}\n\n{found[1]}")


def record(facts: dict, peaks: Peaks, rows: list[Row]) -> dict:
    return {"environment": facts, "peaks": asdict(peaks), "rows": [row.as_dict() for row in rows]}


def append(path: Path, entry: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def last_record(path: Path) -> dict:
    """Raises ValueError where the last line that is not blank is none."""
    lines = path.read_text().split("\n")
    try:
        found = json.loads(next(line for line in reversed(lines) if line.strip()))
        if {"environment", "peaks", "rows"} <= found.keys():
            return found
    except (StopIteration, ValueError, AttributeError):
        pass
    raise ValueError(f"{path} has no record of a run as its last line")


def differences(old: dict, facts: dict) -> str:
    """What of the machine is not as in the record; its figures are no measure then."""
    was = old["environment"]
    return ", ".join(
        f"{name} {was.get(name)}, now {facts[name]}"
        for name in ("cpu", "isa", "threads")
        if was.get(name) != facts[name]
    )


def regressions(old: dict, rows: list[Row]) -> list[str]:
    """Rows that reach less of the peak that binds them; clocks that drifted cancel."""
    before = {(r["op"], r["shape"]): r["of_peak"] for r in old["rows"]}
    found = []
    for row in rows:
        was = before.get((row.op, row.shape))
        if was is not None and row.of_peak < REGRESSION * was:
            found.append(f"{row.op} {row.shape}: {was:.0%} of peak before, {row.of_peak:.0%} now")
    return found
