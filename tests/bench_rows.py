"""Made-up measurements for the tests of the benchmark's reports, and what a table has to be."""

from __future__ import annotations

from bench import peaks
from bench.peers import VERSIONS
from bench.suite import Row
from dsa_kernels.testing.cases import case

PEERS = list(VERSIONS)
PEAKS = peaks.Peaks(
    threads=2,
    fp32=1234e9,
    bf16=2345e9,
    read={"L2": 1234e9, "L3": 1234e9, "DRAM": 123e9},
    copy={"L2": 1234e9, "L3": 1234e9, "DRAM": 123e9},
)


def made_up(op="mqa_logits", shape="v32-decode-8k", of_peak=0.5, **more) -> Row:
    return Row(
        op,
        shape,
        more.pop("seconds", 1e-3),
        flops=more.pop("flops", 10**9),
        bytes=more.pop("bytes", 10**6),
        bound=more.pop("bound", "bf16"),
        of_peak=of_peak,
        **more,
    )


def wide(op: str) -> list[Row]:
    """A row of each shape, each cell as wide as any can be."""
    return [
        made_up(
            op,
            shape,
            seconds=0.0123,
            flops=10**11,
            bytes=10**11,
            bound="DRAM" if i % 2 else "bf16",
            of_peak=1.04,
            torch=12345.0,
            torch_scaled=True,
            peers=dict.fromkeys(PEERS, 1234.0),
            peers_scaled=True,
        )
        for i, shape in enumerate(case(op).BENCH)
    ]


def columns(line: str) -> list[str]:
    assert line.startswith("| ") or line.startswith("|-")
    assert line.endswith("|")
    return [cell.strip() for cell in line[1:-1].split("|")]


def check_markdown(text: str, rows: list[Row]) -> None:
    lines = [columns(line) for line in text.splitlines()]
    header, rule, *body = lines
    assert len(header) == len(set(header))
    assert all(cells for cells in header)
    assert rule == ["---"] * len(header)
    assert all(len(cells) == len(header) and all(cells) for cells in body)
    assert [cells[:2] for cells in body] == [[f"`{r.op}`", r.shape] for r in rows]
