"""What the benchmark measures, and how: clocks, shapes, rows and the scaling of others' times."""

from __future__ import annotations

import inspect
import time

import pytest
import torch

from bench import peaks, suite, timing
from bench.floors import DOT_OPS
from dsa_kernels._op import OPS
from dsa_kernels.cli.bench import make_arguments
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.cases._common import MODELS

KiB, MiB = 1 << 10, 1 << 20


class Clock:
    """A call that takes `durations` one after another, the last of them for ever."""

    def __init__(self, monkeypatch, *durations: float):
        self.now, self.calls, self.durations = 0.0, 0, durations
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def __call__(self) -> None:
        self.now += self.durations[min(self.calls, len(self.durations) - 1)]
        self.calls += 1


@pytest.mark.parametrize(
    ("durations", "budget", "seconds", "calls"),
    [
        ([9e-1, 0.1], 0.45, 0.1, 6),  # the first, which warms up, does not count
        ([0.1, 0.1, 7.0, 0.1, 0.1, 0.1], 0.05, 0.1, 4),  # nor does one that was disturbed
        ([0.3], 0.0, 0.3, 4),
        ([1.5], 0.5, 1.5, 1),  # too slow to repeat
        ([1.5, 1.0], 2.0, 1.0, 4),
    ],
)
def test_median_seconds(monkeypatch, durations, budget, seconds, calls):
    clock = Clock(monkeypatch, *durations)
    assert timing.median_seconds(clock, budget) == pytest.approx(seconds)
    assert clock.calls == calls


def test_threads_come_back(threads):
    threads(2)
    with pytest.raises(KeyError), timing.threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2


def test_calls_run_side_by_side():
    taken = timing.side_by_side([lambda: time.sleep(0.2)] * 3)
    assert 0.2 <= taken < 0.4


def complete(op: str, shape: dict) -> dict:
    """With the defaults of the op's inputs."""
    parameters = inspect.signature(case(op).make).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**defaults, **shape}


def fits(op: str, shape: dict, model) -> bool:
    """Whether what the shape says of a model is that model's."""
    shape = complete(op, shape)
    attends = op.startswith("sparse_mla") or op == "merge_attention_states"
    sizes = dict(num_heads=model.heads if attends else model.index_heads, topk=model.topk)
    sizes |= dict(cache_format=model.cache_format, rope_layout=model.rope_layout)
    if shape.get("cache_format") == "v4":
        sizes["topk"] = shape.get("topk")  # beside its window, which has its own
    elif attends:
        sizes["d_qk"] = model.d_qk
    return all(shape.get(name) in (None, "", size) for name, size in sizes.items())


@pytest.mark.parametrize("op", sorted(OPS))
def test_published_models_have_rows(op):
    rows = case(op).BENCH
    for name, model in MODELS.items():
        assert any(fits(op, shape, model) for shape in rows.values()), name
        for row, shape in rows.items():
            assert not row.startswith(f"{name}-") or fits(op, shape, model), row


def contexts(op: str, shape: dict) -> int:
    lengths = shape.get("seq_lens") or shape.get("lengths")
    return lengths[0] if lengths else shape.get("seq_len") or shape["num_kv"]


def rows_named(op: str, start: str) -> list[dict]:
    return [shape for name, shape in case(op).BENCH.items() if name.startswith(start)]


@pytest.mark.parametrize("op", sorted({*DOT_OPS, "topk_indices", "indices_to_slots"}))
def test_lengths_that_matter_have_rows(op):
    if op != "sparse_mla_prefill":
        found = {contexts(op, shape) for shape in rows_named(op, "v32-decode-")}
        assert {8 * KiB, 32 * KiB, 128 * KiB, MiB} <= found
    if not op.startswith("paged") and op != "sparse_mla_decode":
        rows = [shape[case(op).ROWS] for shape in rows_named(op, "v32-prefill-")]
        assert KiB in rows
        assert 8 * KiB in rows or op == "sparse_mla_prefill"


def test_shapes_are_filtered():
    ops = ["mqa_logits", "topk_indices"]
    every = list(suite.shapes(ops))
    assert every == [(op, name, s) for op in ops for name, s in case(op).BENCH.items()]
    some = list(suite.shapes(ops, "decode-128k"))
    assert some == [row for row in every if "decode-128k" in row[1]]
    assert len(some) == 6
    assert list(suite.shapes(["topk_indices"], "no such shape")) == []
    assert list(suite.shapes(["topk_indices"], "no such shape", quick=True)) == []


def test_quick_takes_the_smallest_shape_of_each_op():
    rows = list(suite.shapes(sorted(OPS), quick=True))
    assert [op for op, _, _ in rows] == sorted(OPS)
    for op, _, shape in rows:
        least = case(op).work(**shape)
        for other in map(lambda s: case(op).work(**s), case(op).BENCH.values()):
            assert least.flops <= other.flops or least.bytes <= other.bytes
    assert dict((op, name) for op, name, _ in rows)["mqa_logits"] == "v32-decode-8k"
    ((_, name, _),) = suite.shapes(["topk_indices"], "prefill", quick=True)
    assert name == "v32-prefill-128x8k"


EVERY_ROW = [
    pytest.param(op, shape, id=f"{op} {name}")
    for op in sorted(OPS)
    for name, shape in case(op).BENCH.items()
]


@pytest.mark.parametrize("at_least", [1, suite.PEER_ROWS])
@pytest.mark.parametrize(("op", "shape"), EVERY_ROW)
def test_a_part_of_the_rows_stands_for_all(op, shape, at_least):
    timed, scale = suite.part_of(op, shape, at_least)
    if timed is shape:
        assert scale == 1.0
        return
    whole, part = case(op).work(**shape), case(op).work(**timed)
    assert {k: v for k, v in timed.items() if v != shape[k]}.keys() == {case(op).ROWS}
    assert scale > 1.0
    kind = "flops" if whole.flops else "bytes"
    assert getattr(part, kind) * scale == pytest.approx(getattr(whole, kind))
    size = timed[case(op).ROWS]
    one_more = 1 + 1 / (len(size) if isinstance(size, list) else size)
    if size != at_least:
        longest = 4  # times the mean: the last rows of a causal prefill
        assert part.flops <= suite.OTHERS_FLOPS * one_more * longest
        assert part.bytes <= suite.OTHERS_BYTES * one_more


def test_torch_on_fewer_rows_is_scaled(monkeypatch):
    rows = []

    def variants(op, arguments):
        rows.append(arguments[0].shape[0])
        return {"slow": lambda: 8.0, "fast": lambda: 2.0}

    monkeypatch.setattr(suite, "variants", variants)
    monkeypatch.setattr(suite, "median_seconds", lambda call, budget: call())
    shape = dict(num_rows=400, seq_len=65536, num_heads=64)
    assert suite.torch_seconds("mqa_logits", shape, 0.1) == (2.0 * 400 / rows[0], True)
    assert rows[0] < 20
    assert suite.torch_seconds("mqa_logits", dict(shape, num_rows=3), 0.1) == (2.0, False)
    assert rows[1:] == [3]


class Peer:
    """Of one op; `log` gets the shape of q at each call."""

    def __init__(self, log: list, error: Exception | None = None):
        self.log, self.error = log, error

    def call(self, op, shape, arguments):
        if op != "mqa_logits":
            return None
        if self.error is not None:
            raise self.error
        return lambda: self.log.append(arguments[0].shape[0])


def test_measure_makes_a_row(monkeypatch):
    """Ours takes 2 s a call, each other 8 s, the floor is 1 s."""
    budgets, modes = [], []

    def median_seconds(call, budget):
        call()
        budgets.append(budget)
        modes.append(torch.is_inference_mode_enabled())
        return 2.0 if len(budgets) == 1 else 8.0

    shape = dict(num_rows=4, seq_len=64, num_heads=8)
    work = case("mqa_logits").work(**shape)
    limits = peaks.Peaks(
        threads=1, fp32=work.flops, bf16=None, read={"L2": 1e12}, copy={"L2": 1e12}
    )
    monkeypatch.setattr(suite, "median_seconds", median_seconds)
    log: list[int] = []
    row = suite.measure("mqa_logits", "name", shape, limits, {"peer": Peer(log)}, 0.5)
    assert (row.op, row.shape, row.seconds, row.bound) == ("mqa_logits", "name", 2.0, "fp32")
    assert (row.flops, row.bytes) == (work.flops, work.bytes)
    assert (row.of_peak, row.torch, row.peers) == (0.5, 4.0, {"peer": 4.0})
    assert not row.torch_scaled
    assert not row.peers_scaled
    assert log == [4]
    assert budgets == [0.5, 0.25, 0.25, 0.25]  # ours, torch in fp32 and bf16, the peer
    assert all(modes)  # outside, each call of ours would cost microseconds more than the others'

    row = suite.measure("topk_indices", "name", dict(num_rows=1, seq_len=9, topk=3), limits, {}, 0)
    assert row.peers == {}
    assert row.as_dict()["peers"] == {}


def test_a_peer_that_fails_stops_nothing(capsys):
    peers = {"bad": Peer([], RuntimeError("out of luck\nmore")), "good": Peer([])}
    shape = dict(num_rows=4, seq_len=64, num_heads=8)
    seconds, scaled = suite.peer_seconds(
        peers, "mqa_logits", shape, make_arguments("mqa_logits", shape), 0.0
    )
    assert set(seconds) == {"good"}
    assert not scaled
    assert capsys.readouterr().err == "bad failed at mqa_logits: out of luck\n"
