"""torch's variants, which the ops are measured against, compute what the ops do."""

from __future__ import annotations

import pytest
import torch

from bench import torch_ops
from dsa_kernels._op import OPS
from dsa_kernels.cli.bench import make_arguments
from dsa_kernels.testing.cases import _scoring, case
from dsa_kernels.testing.differential import copy_written, named

SIZES = dict(
    num_rows=11,
    num_queries=5,
    num_tokens=6,
    num_pages=3,
    rows_per_request=3,
    num_heads=8,
    seq_len=90,
    num_kv=100,
    extra_kv=70,
    topk=24,
    extra_topk=10,
)
TOLERANCES = {"fp32": 1e-4, "bf16": 2.0**-5, "sorted": 0.0, "unsorted": 0.0}


def smaller(shape: dict) -> dict:
    """`shape` with smaller sizes, and all else that it says."""
    small = {k: min(v, SIZES.get(k, v)) for k, v in shape.items() if isinstance(v, int)}
    small |= {k: [min(n, 70) for n in v] for k, v in shape.items() if isinstance(v, list)}
    # With as many rows as keys the first see few keys, or none; so they are to here.
    if "seq_len" in shape and shape.get("num_rows", 0) >= shape["seq_len"]:
        small |= dict(num_rows=30, seq_len=30 * shape["seq_len"] // shape["num_rows"])
    return {**shape, **small}


SHAPES = {
    f"{op} {small}": pytest.param(op, small, id=f"{op} {name}")
    for op in sorted(OPS)
    for name, shape in case(op).BENCH.items()
    for small in [smaller(shape)]
}


def scores_of(op: str, arguments: dict) -> torch.Tensor:
    if op == "topk_indices":
        return arguments["scores"].double()
    if op == "indexer_topk":
        scores, _ = _scoring.ragged_scores(arguments)
        ends = arguments["row_end"]
    else:
        scores, _ = _scoring.paged_scores(arguments, arguments["max_seq_len"])
        ends = arguments["seq_lens"].flatten()
    if ends is None:
        return scores
    return scores.masked_fill(torch.arange(scores.shape[1]) >= ends[:, None], -torch.inf)


def selected(scores: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Scores of what was selected, sorted: among equals another choice is as good."""
    count = min(indices.shape[1], scores.shape[1])
    chosen = scores.gather(1, indices[:, :count].clamp(min=0).long())
    return chosen.masked_fill(indices[:, :count] < 0, -torch.inf).sort(descending=True).values


@pytest.mark.parametrize(("op", "shape"), SHAPES.values())
def test_variants_agree_with_the_reference(op, shape, monkeypatch):
    copies = []
    monkeypatch.setattr(
        torch_ops, "copy_written", lambda *args: copies.append(copy_written(*args)) or copies[-1]
    )
    monkeypatch.setattr(torch_ops, "BLOCK_BYTES", 6_000)  # several blocks
    arguments = make_arguments(op, shape)
    calls = torch_ops.variants(op, arguments)
    OPS[op](*arguments, backend="reference")
    expected, actual = named(OPS[op], arguments), named(OPS[op], copies[0])
    assert calls
    for variant, call in calls.items():
        for spec in OPS[op].tensors:
            if spec.written:
                actual[spec.name].view(torch.uint8).fill_(0xFF)
        with torch.inference_mode():
            result = call()
        if variant == "":
            case(op).compare(expected, actual)
            continue
        e, a = expected["out"], actual["out"]
        if op == "topk_indices":
            a = result.indices
        if e.dtype == torch.int32:
            assert all(len(set(row)) == len(row) for row in a.tolist() if -1 not in row)
            scores = scores_of(op, expected)
            e, a = selected(scores, e), selected(scores, a)
        tolerance = max(TOLERANCES[variant], 2.0**-7 if e.dtype == torch.bfloat16 else 0.0)
        assert torch.equal(e.isneginf(), a.isneginf())
        e, a = e[e.isfinite()].double(), a[e.isfinite()].double()
        assert e.numel() > 0
        assert float((a - e).abs().max()) <= tolerance * float(e.abs().max())
