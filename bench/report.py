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
REGRESSION = 0.9  # of the earlier share of the peak


def commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


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
        f"peaks, measured: {arithmetic}; read/copy GB/s: {memory}",
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


def markdown(rows: list[Row], peers: list[str]) -> str:
    header = ["op", "shape", "time", "rate", "of peak", "bound", "torch", *peers]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join([f"`{r.op}`", *cells(r, peers)]) + " |" for r in rows]
    return "\n".join(lines)


def record(facts: dict, peaks: Peaks, rows: list[Row]) -> dict:
    return {"environment": facts, "peaks": asdict(peaks), "rows": [row.as_dict() for row in rows]}


def append(path: Path, entry: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def last_record(path: Path) -> dict:
    return json.loads(path.read_text().splitlines()[-1])


def regressions(old: dict, rows: list[Row]) -> list[str]:
    """Rows that reach less of the peak that binds them; clocks that drifted cancel."""
    before = {(r["op"], r["shape"]): r["of_peak"] for r in old["rows"]}
    found = []
    for row in rows:
        was = before.get((row.op, row.shape))
        if was is not None and row.of_peak < REGRESSION * was:
            found.append(f"{row.op} {row.shape}: {was:.0%} of peak before, {row.of_peak:.0%} now")
    return found
