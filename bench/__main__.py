"""Every op at published shapes, against this machine's limits, torch and peers."""

from __future__ import annotations

import argparse
import os
import sys

import torch

from bench import options, peaks as machine, plot, report, suite
from bench.peers import VERSIONS, load_peers
from bench.timing import threads
from dsa_kernels.cli import output, select
from dsa_kernels.cli.info import environment

EPILOG = """\
time is a median. "of peak" is the least time that the measured peaks allow
(work / peak or bytes / bandwidth, whichever is longer; "bound" names it) over
the time taken. The other columns are their time over ours; "~" was timed on
fewer rows and scaled.
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    select.add_op_filter(parser)
    add("--shape", default="", metavar="TEXT", help="only shapes named *TEXT*")
    add("--quick", action="store_true", help="each op's smallest shape, briefly")
    add("--threads", type=options.count, default=torch.get_num_threads(), metavar="N")
    add("--no-peers", action="store_true", help="leave the peers out")
    add("--json", type=options.target, metavar="FILE", help="append a record of the run")
    add(
        "--compare",
        type=options.record,
        metavar="FILE",
        help="with the last record of FILE; fails where a row is slower",
    )
    add("--plot", type=options.picture, metavar="FILE.png", help="draw the results")
    add(
        "--markdown",
        type=options.page("table"),
        metavar="FILE",
        help="write the table there, between <!-- table --> and <!-- /table --> if it has them",
    )
    return parser.parse_args(argv)


def publish(args: argparse.Namespace, heading: list[str], table: str) -> None:
    """What ran, the table, and the picture where one was drawn."""
    text = ["```", *heading, "```", "", table]
    if args.plot:
        picture = os.path.relpath(args.plot, args.markdown.parent)
        text += ["", f"![A roofline, and time against context]({picture})"]
    report.publish(args.markdown, "table", "\n".join(text))


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    todo = list(suite.shapes(select.chosen_ops(args), args.shape, args.quick))
    if not todo:
        print("no shape fits")
        return 2
    peers, absent = ({}, {}) if args.no_peers else load_peers()
    facts = {
        **environment(),
        "threads": args.threads,
        "commit": report.commit(),
        "peers": {name: VERSIONS.get(name) for name in peers},
    }
    peaks = machine.measure(args.threads, quick=args.quick)
    heading = report.heading(facts, peaks)
    print("\n".join(heading))
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
        publish(args, heading, report.markdown(rows, list(peers)))
    if args.plot:
        plot.draw(rows, peaks, " | ".join(heading[:2]), args.plot)
    if not args.compare:
        return 0
    if different := report.differences(args.compare, facts):
        print(f"\nthe earlier run differs: {different}")
    slower = report.regressions(args.compare, rows)
    if slower:
        print("\n".join(["", "slower than before:", *slower]))
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
