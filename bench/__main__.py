"""`python -m bench`: every op at published shapes, against this machine's limits, torch, peers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from bench import peaks as machine, plot, report, suite
from bench.peers import load_peers
from bench.timing import threads
from dsa_kernels.cli import output, select
from dsa_kernels.cli.info import environment

EPILOG = """\
time is a median. "of peak" is the least time that the measured peaks allow (work / peak or
bytes / bandwidth, whichever is longer; "bound" names it) over the time taken. The other columns
are their time over ours; "~" was timed on fewer rows and scaled.
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    select.add_op_filter(parser)
    parser.add_argument("--shape", default="", metavar="TEXT", help="only shapes named *TEXT*")
    parser.add_argument("--quick", action="store_true", help="each op's smallest shape, briefly")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a record of the run")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="with the last record of FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the results")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    todo = list(suite.shapes(select.chosen_ops(args), args.shape, args.quick))
    if not todo:
        print("no shape fits")
        return 2
    old = report.last_record(args.compare) if args.compare else None
    facts = {**environment(), "commit": report.commit()}
    peaks = machine.measure(args.threads, quick=args.quick)
    print("\n".join(report.heading(facts, peaks)))
    peers, absent = ({}, {}) if args.no_peers else load_peers()
    for name, reason in absent.items():
        print(f"without {name}: {reason}")
    rows: list[suite.Row] = []
    budget = 0.05 if args.quick else 0.5
    with threads(args.threads), output.progress(len(todo)) as bar:
        for i, (op, name, shape) in enumerate(todo):
            bar.update(i, f"{op} {name}")
            rows.append(suite.measure(op, name, shape, peaks, peers, budget))
            if i + 1 == len(todo) or todo[i + 1][0] != op:
                with bar.pause():
                    mine = [r for r in rows if r.op == op]
                    named = [p for p in peers if any(p in r.peers for r in mine)]
                    print(f"\n{op}\n{report.table(mine, named)}", flush=True)
    if args.json:
        report.append(args.json, report.record(facts, peaks, rows))
    if args.markdown:
        args.markdown.write_text(report.markdown(rows, list(peers)) + "\n")
    if args.plot:
        plot.draw(rows, peaks, " | ".join(report.heading(facts, peaks)[:2]), args.plot)
    slower = report.regressions(old, rows) if old else []
    if slower:
        print("\n".join(["", "slower than before:", *slower]))
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
