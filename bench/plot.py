"""A roofline of all rows, and time against context of decode, as one picture."""

from __future__ import annotations

from pathlib import Path

from bench.peaks import Peaks
from bench.suite import Row

DECODE = ("paged_mqa_logits", "paged_indexer_topk", "sparse_mla_decode", "topk_indices")
CONTEXTS = {"8k": 8192, "32k": 32768, "128k": 131072, "1m": 1 << 20}


def draw(rows: list[Row], peaks: Peaks, title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5.5))
    figure.suptitle(title, fontsize=10)
    _roofline(left, rows, peaks)
    _contexts(right, rows)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _roofline(axes, rows: list[Row], peaks: Peaks) -> None:
    intensity = [10 ** (e / 10) for e in range(-15, 46)]
    roofs = {"fp32": peaks.fp32, "bf16": peaks.bf16}
    for kind, top in roofs.items():
        if top is None:
            continue
        for memory, style in (("L2", "--"), ("DRAM", "-")):
            roof = [min(top, i * peaks.read[memory]) / 1e9 for i in intensity]
            axes.loglog(intensity, roof, style, lw=1, label=f"{kind} on {memory}")
    for number, op in enumerate(sorted({r.op for r in rows if r.flops})):
        mine = [r for r in rows if r.op == op and r.flops]
        x = [r.flops / r.bytes for r in mine]
        y = [r.flops / r.seconds / 1e9 for r in mine]
        axes.plot(x, y, "os^Dv<>p*hX"[number % 11], ms=6, label=op)
    axes.set(xlabel="FLOP per byte", ylabel="GFLOP/s", title="Roofline")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _contexts(axes, rows: list[Row]) -> None:
    for op in DECODE:
        points = sorted(
            (keys, r.seconds * 1e3)
            for context, keys in CONTEXTS.items()
            for r in rows
            if (r.op, r.shape) == (op, f"v32-decode-{context}")
        )
        if points:
            axes.loglog(*zip(*points, strict=True), "o-", label=op)
    axes.set_xticks(list(CONTEXTS.values()), [name.upper() for name in CONTEXTS])
    axes.minorticks_off()
    axes.set(xlabel="context, tokens", ylabel="ms a call", title="DeepSeek-V3.2 decode, 2 requests")
    axes.grid(alpha=0.3)
    if axes.get_lines():
        axes.legend(fontsize=8)
