"""Judges the demo's runs against each other, and puts what was found into words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsa_kernels.cli.demo_worker import VOCAB, Spec
from dsa_kernels.cli.output import seconds

# Bounds on the logit difference, as a share of the logits' root mean square, where both selected
# the same tokens. float32: sums in another order. bfloat16: the model's own rounding.
LOGIT_BOUND = {"float32": 1e-3, "bfloat16": 0.1}

# Two indexer scores are a near-tie if they differ by at most this share of the query's best score.
# Rounding decides between them, so only there may selections differ. Swapping one token for another
# changes that position's logits by far more than the bound, and rightly so.
NEAR_TIE = {"float32": 1e-5, "bfloat16": 1e-2}

# What `--check` asks of the enabled model, relative to the better of the others.
MIN_DECODE_SPEEDUP = 15.0
MIN_PREFILL_SPEEDUP = 5.0
MAX_GROWTH_SHARE = 0.25

NEEDED = "enabled"


def compare(reference: Path, other: Path, spec: Spec) -> dict:
    """Agreement of two runs of `spec`, from the files that they left.

    Positions are those of the text that both runs reached. Those past the first `topk` have a
    selection, in each layer.
    """
    a, b = (_load(path, "logits", np.float32, VOCAB) for path in (reference, other))
    positions = min(len(a), len(b))
    a, b = a[:positions], b[:positions]
    choosing = max(0, positions - spec.topk)
    swapped = np.zeros(choosing, np.int64)
    near_tie = np.zeros(choosing, bool)
    unexplained = np.zeros(choosing, bool)
    stride = (spec.contexts[-1] + spec.steps + 7) // 8
    for layer in range(spec.layers):
        bits_a, bits_b = (
            _rows(_load(path, f"selected{layer}", np.uint8, stride), choosing, 0)
            for path in (reference, other)
        )
        closeness = _load(reference, f"closeness{layer}", np.float32, 1)
        closeness = _rows(closeness, choosing, np.inf)[:, 0]
        # A token that is swapped for another differs in two bits.
        swaps = (np.unpackbits(bits_a ^ bits_b, axis=1).sum(1, dtype=np.int64) + 1) // 2
        tie = closeness <= NEAR_TIE[spec.dtype]
        # Once a layer has selected otherwise, the next one's scores differ in earnest.
        unexplained |= (swaps > 0) & ~tie & (swapped == 0)
        near_tie |= tie
        swapped = np.maximum(swapped, swaps)
    same_set = np.concatenate([np.ones(positions - choosing, bool), swapped == 0])
    rms = float(np.sqrt(np.mean(np.square(a, dtype=np.float64)))) if positions else 0.0
    difference = np.abs(a - b).max(1) / (rms or 1.0)
    return {
        "positions": positions,
        "logit_rms": rms,
        "logit_difference": _largest(difference[same_set]),  # these two relative to logit_rms
        "logit_difference_at_swaps": _largest(difference[~same_set]),
        "logit_bound": LOGIT_BOUND[spec.dtype],
        "same_greedy_token": int((a.argmax(1) == b.argmax(1)).sum()),
        "selections": choosing,
        "near_ties": int(near_tie.sum()),
        "selections_that_differ": int((swapped > 0).sum()),
        "of_these_not_near_ties": int(unexplained.sum()),
        "most_tokens_swapped": int(swapped.max(initial=0)),
    }


def _load(path: Path, kind: str, dtype, width: int) -> np.ndarray:
    file = Path(f"{path}.{kind}")
    flat = np.fromfile(file, dtype) if file.exists() else np.empty(0, dtype)
    return flat.reshape(-1, width)


def _rows(array: np.ndarray, count: int, fill) -> np.ndarray:
    """The first `count` rows; missing ones, which nothing agrees with, are `fill`."""
    missing = max(0, count - len(array))
    return np.pad(array[:count], ((0, missing), (0, 0)), constant_values=fill)


def _largest(values: np.ndarray) -> float:
    return float(values.max()) if values.size else 0.0  # NaN stays NaN


def continuation_agrees(reference: list[dict], other: list[dict], tie: float) -> bool:
    """Whether two greedy continuations are the same until one where the lead is at most `tie`."""
    for a, b in zip(reference, other, strict=False):
        if a["token"] != b["token"]:
            return min(a["lead"], b["lead"]) <= tie
    return True


def common_context(runs: dict[str, dict]) -> int | None:
    """The longest context that every run reached."""
    reached = [{c["tokens"] for c in run["contexts"]} for run in runs.values()]
    return max(set.intersection(*reached), default=None) if reached else None


def at(run: dict, context: int) -> dict:
    return next(c for c in run["contexts"] if c["tokens"] == context)


def ratios(runs: dict[str, dict], context: int) -> dict:
    """The enabled model at `context`, relative to the better of the others in each respect."""
    ours = at(runs[NEEDED], context)
    theirs = [at(run, context) for name, run in runs.items() if name != NEEDED]

    def best(key):
        return min(record[key] for record in theirs)

    return {
        "context": context,
        "decode_speedup": best("decode_s") / ours["decode_s"],
        "prefill_speedup": best("prefill_s") / ours["prefill_s"],
        "growth_share": ours["growth_bytes"] / max(1, best("growth_bytes")),
    }


def disagreements(name: str, record: dict, dtype: str) -> list[str]:
    """What in a `compare` record is out of bounds."""
    found = []
    if record["positions"] == 0:
        found.append(f"{name}: no logits to compare with eager's")
    elif not record["logit_difference"] <= record["logit_bound"]:  # NaN must fail
        found.append(
            f"{name}: logits differ from eager's by {record['logit_difference']:.1e} of their "
            f"scale; the bound in {dtype} is {record['logit_bound']:.0e}"
        )
    if record["of_these_not_near_ties"]:
        found.append(
            f"{name}: at {record['of_these_not_near_ties']:,} positions it selects other tokens "
            "than eager, though their indexer scores differ clearly"
        )
    if not record["continuation_agrees"]:
        found.append(f"{name}: its greedy continuation differs from eager's, and not in a near-tie")
    return found


def missed_bars(r: dict, wanted_context: int) -> list[str]:
    """What `--check` finds wanting in `ratios`."""
    found = []
    if r["context"] < wanted_context:
        found.append(f"only {r['context']:,} of {wanted_context:,} tokens were reached in time")
    if r["decode_speedup"] < MIN_DECODE_SPEEDUP:
        found.append(
            f"a decode step is {r['decode_speedup']:.1f}x faster than the faster of eager and "
            f"sdpa; {MIN_DECODE_SPEEDUP:.0f}x is asked"
        )
    if r["prefill_speedup"] < MIN_PREFILL_SPEEDUP:
        found.append(f"prefill takes {1 / r['prefill_speedup']:.2f}x the faster one's time")
    if r["growth_share"] > MAX_GROWTH_SHARE:
        found.append(
            f"memory grows by {r['growth_share']:.0%} of the smaller of theirs; "
            f"{MAX_GROWTH_SHARE:.0%} is allowed"
        )
    return found


def context_name(tokens: int) -> str:
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else f"{tokens:,}"


def megabytes(value: float) -> str:
    return f"{value / 1e6:,.0f} MB" if value < 1e9 else f"{value / 1e9:.2f} GB"


def table(rows: list[list[str]]) -> list[str]:
    """Rows as aligned lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def cost_lines(runs: dict[str, dict], alone: dict | None) -> list[str]:
    """Decode time, prefill time and memory of each run, a column per context."""
    shown = {**runs, f"{NEEDED}, alone": alone} if alone else runs
    contexts = sorted({c["tokens"] for run in shown.values() for c in run["contexts"]})
    rows = []
    for title, key, text in (
        ("Decode step (median) at", "decode_s", seconds),
        ("Prefill up to", "prefill_s", seconds),
        ("Memory growth since load, at", "growth_bytes", megabytes),
    ):
        rows.append([title, *map(context_name, contexts)])
        for name, run in shown.items():
            known = {c["tokens"]: text(c[key]) for c in run["contexts"]}
            rows.append([f"  {name}", *(known.get(c, "-") for c in contexts)])
        rows.append([""] * len(rows[0]))
    return table(rows)


def agreement_lines(agreement: dict[str, dict], spec: Spec) -> list[str]:
    rows = [["Agreement with eager", *agreement]]
    for label, text in (
        ("  positions of the text", lambda r: f"{r['positions']:,}"),
        (f"  of these with more than {spec.topk:,} keys", lambda r: f"{r['selections']:,}"),
        ("    top-k boundary is a near-tie", lambda r: _of(r["near_ties"], r["selections"])),
        (
            "    selected set differs",
            lambda r: _of(r["selections_that_differ"], r["selections"]),
        ),
        ("      and not in a near-tie", lambda r: f"{r['of_these_not_near_ties']:,}"),
        ("      most tokens swapped", lambda r: f"{r['most_tokens_swapped']:,}"),
        ("  largest logit difference / rms logit", lambda r: f"{r['logit_difference']:.1e}"),
        ("    bound", lambda r: f"{r['logit_bound']:.0e}"),
        ("    where the set differs", lambda r: f"{r['logit_difference_at_swaps']:.1e}"),
        ("  same greedy token", lambda r: _of(r["same_greedy_token"], r["positions"])),
        ("  greedy continuation agrees", _continuation),
    ):
        rows.append([label, *map(text, agreement.values())])
    return [*table(rows), ""]


def _continuation(record: dict) -> str:
    if not record["tokens_continued"]:
        return "-"
    return f"yes, {record['tokens_continued']} tokens" if record["continuation_agrees"] else "NO"


def _of(part: int, whole: int) -> str:
    return f"{part:,} = {part / whole:.2%}" if whole else "-"


def meaning(
    agreement: dict[str, dict], r: dict | None, alone: dict | None, dtype: str
) -> list[str]:
    """Sentences that say what the tables mean."""
    said = []
    ours = agreement.get(NEEDED)
    if ours and not disagreements(NEEDED, ours, dtype):
        said.append(
            "The enabled model computes what the eager one does: where both select the same "
            f"tokens, its logits stay within {ours['logit_difference']:.0e} of their scale."
        )
    if ours and ours["selections_that_differ"]:
        said.append(
            f"At {ours['selections_that_differ'] / ours['selections']:.2%} of the positions that "
            "select, two indexer scores are so close that rounding decides between their tokens."
        )
    if r:
        name = context_name(r["context"])
        said.append(
            f"At {name} tokens of context a decode step is {_times(r['decode_speedup'])} and "
            f"prefill {_times(r['prefill_speedup'])} than with the faster of eager and sdpa, and "
            f"memory grows by {r['growth_share']:.0%} of the smaller of theirs."
        )
        said.append(
            "Eager and sdpa expand every cached latent into keys and values of all heads, score "
            "all tokens for all heads, and mask. The enabled model attends to the selected "
            "latents only, so its attention no longer grows with the context; its indexer does."
        )
    if alone and alone["contexts"]:
        last = alone["contexts"][-1]
        said.append(
            f"Enabled alone went on to {context_name(last['tokens'])} tokens: "
            f"{seconds(last['decode_s'])} a step, {megabytes(last['growth_bytes'])}."
        )
    return said


def _times(speedup: float) -> str:
    return f"{speedup:.1f}x faster" if speedup >= 1 else f"{1 / speedup:.1f}x slower"
