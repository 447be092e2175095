"""`make bench-check`: measures what the CPU backend promises and fails below any bar.

Each figure is a ratio of medians taken in one process, the best of three repeats, on one thread at
level avx512_bf16 unless its name says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from bench import bars, options, report
from dsa_kernels._native import cpu_isa
from dsa_kernels.cli import output
from dsa_kernels.cli.info import environment


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only the bar named TEXT, or those named *TEXT*"
    )
    parser.add_argument(
        "--allow-skips", action="store_true", help="do not fail for what could not be measured"
    )
    parser.add_argument("--json", action="store_true", help="print figures as JSON; judge nothing")
    parser.add_argument(
        "--markdown",
        type=options.page("bars"),
        metavar="FILE",
        help="write the table there, between <!-- bars --> and <!-- /bars --> if it has them",
    )
    return parser.parse_args(argv)


def figures_here(checks: list[bars.Bar]) -> dict[str, float | str]:
    """Figure of each bar, or why there is none."""
    found: dict[str, float | str] = {}
    torch.set_num_threads(1)
    with torch.inference_mode():
        for check in checks:
            try:
                best = min if check.at_most else max
                found[check.name] = best(check.measure() for _ in range(3))
            except bars.NotHere as reason:
                found[check.name] = str(reason)
    return found


def figures_at(isa: str, checks: list[bars.Bar]) -> dict[str, float | str]:
    """The same in a process at that level."""
    if cpu_isa() == isa:
        return figures_here(checks)
    found: dict[str, float | str] = {}
    for check in checks:
        run = subprocess.run(
            [sys.executable, "-m", "bench.check", "--json", "--only", check.name],
            env={**os.environ, "DSA_CPU_ISA": isa},
            capture_output=True,
            text=True,
        )
        if run.returncode == 0:
            found.update(json.loads(run.stdout))
        else:
            said = run.stderr.strip().splitlines() or [f"its process ended with {run.returncode}"]
            found[check.name] = said[-1]
    return found


def judge(check: bars.Bar, figure: float | str) -> str:
    if isinstance(figure, str):
        return "SKIPPED"
    return "PASS" if (figure <= check.bar if check.at_most else figure >= check.bar) else "FAIL"


def chosen_bars(text: str) -> list[bars.Bar]:
    """The one of that name, or else all whose names contain it."""
    exact = [check for check in bars.BARS if check.name == text]
    return exact or [check for check in bars.BARS if text in check.name]


def publish(path: Path, rows: list[list[str]]) -> None:
    """What ran, and the table."""
    facts = environment()
    lines = [f"{facts['cpu']}; dsa_kernels {report.commit()}, torch {facts['torch']}", ""]
    lines += report.markdown_table(["ratio", "measured", "bar", "verdict"], rows)
    report.publish(path, "bars", "\n".join(lines))


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    chosen = chosen_bars(args.only)
    if not chosen:
        print("no such bar")
        return 2
    if args.json:
        print(json.dumps(figures_here(chosen)))
        return 0
    figures: dict[str, float | str] = {}
    for check in chosen:
        print(f"measuring {check.name}", file=sys.stderr, flush=True)
        figures |= figures_at(check.isa, [check])
    verdicts = {check.name: judge(check, figures[check.name]) for check in chosen}
    rows = [
        [
            check.name,
            "-" if isinstance(f := figures[check.name], str) else f"{f:.2f}",
            f"{'<=' if check.at_most else '>='} {check.bar:g}",
            verdicts[check.name],
        ]
        for check in chosen
    ]
    print(output.table(["ratio", "measured", "bar", ""], rows))
    if args.markdown:
        publish(args.markdown, rows)
    for name, verdict in verdicts.items():
        if verdict == "SKIPPED":
            print(f"{name}: {figures[name]}")
    failed = "FAIL" in verdicts.values()
    return int(failed or ("SKIPPED" in verdicts.values() and not args.allow_skips))


if __name__ == "__main__":
    sys.exit(main())
