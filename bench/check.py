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

import torch

from bench import bars
from dsa_kernels._native import cpu_isa
from dsa_kernels.cli import output


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only bars named *TEXT*")
    parser.add_argument(
        "--allow-skips", action="store_true", help="do not fail for what could not be measured"
    )
    parser.add_argument("--json", action="store_true", help="print figures as JSON; judge nothing")
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
            found[check.name] = run.stderr.strip().splitlines()[-1]
    return found


def judge(check: bars.Bar, figure: float | str) -> str:
    if isinstance(figure, str):
        return "SKIPPED"
    return "PASS" if (figure <= check.bar if check.at_most else figure >= check.bar) else "FAIL"


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    chosen = [check for check in bars.BARS if args.only in check.name]
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
    for name, verdict in verdicts.items():
        if verdict == "SKIPPED":
            print(f"{name}: {figures[name]}")
    failed = "FAIL" in verdicts.values()
    return int(failed or ("SKIPPED" in verdicts.values() and not args.allow_skips))


if __name__ == "__main__":
    sys.exit(main())
