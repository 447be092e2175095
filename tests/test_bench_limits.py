"""The machine's peaks that the benchmark measures, and the floors that it makes of them.

Speeds are compared with wide margins and again where a try fails: others may use the machine.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bench import peaks, timing
from bench.floors import COPYING_OPS, DOT_OPS, floor
from dsa_kernels._native import cpu_isa
from dsa_kernels._op import OPS
from dsa_kernels.testing.cases import Work

KiB, MiB = 1 << 10, 1 << 20


def eventually(holds, tries: int = 6) -> None:
    """`holds()` gives pairs (larger, smaller) of measured figures."""
    for _ in range(tries):
        found = holds()
        if all(larger >= smaller for larger, smaller in found):
            return
    raise AssertionError(f"in {tries} tries, the last: {found}")


def test_native_peak_counts_what_it_says():
    lanes = {"scalar": 4, "avx2": 8}.get(cpu_isa(), 16)
    for kind, flops_a_lane in (("fma", 2), ("bf16_dot", 4)):
        one = peaks.native_peak(kind, 1)
        if kind == "bf16_dot" and cpu_isa() != "avx512_bf16":
            assert one == 0
            assert peaks.flops_rate(kind, 1) is None
            continue
        assert one > 0
        assert one % (flops_a_lane * lanes) == 0
        assert [peaks.native_peak(kind, n) for n in (0, 7, 1000)] == [0, 7 * one, 1000 * one]
    data = torch.ones(4096, dtype=torch.uint8)
    assert [peaks.native_peak("read", n, data) for n in (0, 1, 5)] == [0, 4096, 5 * 4096]
    assert peaks.native_peak("no such kind", 1) == -1


def test_native_peak_does_what_it_counts():
    """Eight times the count takes about eight times as long."""
    data = torch.ones(512 * KiB, dtype=torch.uint8)

    def fastest(*arguments) -> float:
        return min(timing.once(lambda: peaks.native_peak(*arguments)) for _ in range(5))

    def pairs():
        for small, large in (
            (("fma", 1 << 15), ("fma", 1 << 18)),
            (("read", 20, data), ("read", 160, data)),
            (("read", 160, data[: 64 * KiB]), ("read", 160, data)),
        ):
            ratio = fastest(*large) / fastest(*small)
            yield from ((ratio, 4), (20, ratio))

    eventually(lambda: list(pairs()))


def test_onednn_comes_near_the_peak():
    """Its matrix products take the best instructions that there are, and nearly all of them."""
    if cpu_isa() not in ("avx512", "avx512_bf16") or not torch.backends.mkldnn.is_available():
        pytest.skip("oneDNN may use better instructions than the level's")
    n = 1024
    a = torch.randn(n, n)
    products = {"fma": (torch.nn.functional.linear, a.to_mkldnn())}
    if cpu_isa() == "avx512_bf16" and not torch.cpu._is_amx_tile_supported():
        products["bf16_dot"] = (torch.matmul, a.bfloat16())

    def pairs():
        for kind, (multiply, x) in products.items():
            taken = min(timing.once(lambda m=multiply, x=x: m(x, x)) for _ in range(8))
            share = 2 * n**3 / taken / peaks.flops_rate(kind, 1)
            yield from ((share, 0.6), (1.3, share))

    with timing.threads(1), torch.inference_mode():
        eventually(lambda: list(pairs()))


def test_peaks_are_sane():
    def pairs():
        one, two = (peaks.measure(n, quick=True) for n in (1, 2))
        for measured in (one, two):
            assert measured.as_dict()["threads"] == measured.threads
            assert (measured.bf16 is None) == (cpu_isa() != "avx512_bf16")
            assert set(measured.read) == set(measured.copy) == set(peaks.MEMORY)
            rates = [measured.fp32, *measured.read.values(), *measured.copy.values()]
            rates += [] if measured.bf16 is None else [measured.bf16]
            assert all(1e8 < rate < 1e14 for rate in rates)  # also of a slow machine, and of two
            for moved in (measured.read, measured.copy):
                yield moved["L2"], 0.8 * moved["DRAM"]
                yield moved["L3"], 0.8 * moved["DRAM"]
            if measured.bf16 is not None:
                yield 4.5 * measured.fp32, measured.bf16
        yield two.fp32, 0.6 * one.fp32
        yield two.read["L2"], 0.5 * one.read["L2"]
        yield two.read["DRAM"], 0.5 * one.read["DRAM"]

    eventually(lambda: list(pairs()), tries=3)


def test_measure_asks_for_each_peak(monkeypatch):
    """bf16 is None where the level has no such instruction, at whatever level this runs."""
    monkeypatch.setattr(peaks, "flops_rate", lambda kind, threads: f"{kind} on {threads}")
    monkeypatch.setattr(peaks, "read_rate", lambda data, threads, tries: data.numel())
    monkeypatch.setattr(peaks, "copy_rate", lambda a, b, threads, tries: a.numel() + b.numel())
    sizes = dict(L2=2 * KiB, L3=4 * KiB, DRAM=8 * KiB)
    monkeypatch.setattr(peaks, "footprints", lambda threads, dram: sizes)
    measured = peaks.measure(3)
    assert (measured.fp32, measured.bf16) == ("fma on 3", "bf16_dot on 3")
    assert measured.read == measured.copy == sizes
    monkeypatch.undo()
    monkeypatch.setattr(peaks, "native_peak", lambda kind, n: 0)
    assert peaks.flops_rate("bf16_dot", 1) is None


def test_rates_add_up_over_threads(monkeypatch):
    """On a machine that takes half a second for whatever runs side by side."""
    done = []

    def native_peak(kind, n, buffer=None):
        done.append((n, buffer))
        return 3 * n

    def side_by_side(calls):
        done.clear()
        for call in calls:
            call()
        return 0.5

    monkeypatch.setattr(peaks, "native_peak", native_peak)
    monkeypatch.setattr(peaks, "side_by_side", side_by_side)
    for threads in (1, 3):
        rate = peaks.flops_rate("fma", threads, tries=1)
        assert len({n for n, _ in done}) == 1
        assert rate == 3 * sum(n for n, _ in done) / 0.5
        assert len(done) == threads
    data = torch.zeros(3 * 32 * MiB + 100, dtype=torch.uint8)
    assert peaks.read_rate(data, 3, tries=1) == 2 * 3 * 32 * MiB / 0.5
    assert {(n, part.numel()) for n, part in done} == {(2, 32 * MiB)}
    begins = [part.data_ptr() - data.data_ptr() for _, part in done]
    assert begins == [0, 32 * MiB, 64 * MiB]


def test_copy_rate_copies(monkeypatch):
    source = torch.arange(3 * 1000, dtype=torch.int32).view(torch.uint8)
    target = torch.zeros_like(source)
    assert peaks.copy_rate(source, target, 3, tries=1) > 0
    assert torch.equal(source, target)
    monkeypatch.setattr(peaks, "once", lambda call: 2.0)
    monkeypatch.setattr(peaks, "side_by_side", lambda calls: 0.5)
    half = torch.zeros(16 * MiB, dtype=torch.uint8)
    assert peaks.copy_rate(half, half.clone(), 1, tries=1) == 2 * 32 * MiB / 0.5


def test_cache_sizes_are_read(tmp_path, monkeypatch):
    size_of = peaks.cache_bytes.__wrapped__
    monkeypatch.setattr(peaks, "Path", lambda _: tmp_path)
    assert [size_of(n) for n in (1, 2, 3)] == [32 * KiB, MiB, 32 * MiB]  # typical ones
    for i, (level, kind, size) in enumerate(
        [(1, "Instruction", "64K"), (1, "Data", "48K"), (2, "Unified", "2M")]
    ):
        (tmp_path / f"index{i}").mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (tmp_path / f"index{i}" / name).write_text(f"{value}\n")
    (tmp_path / "index3").mkdir()  # says nothing
    assert [size_of(n) for n in (1, 2, 3)] == [48 * KiB, 2 * MiB, 32 * MiB]


def set_caches(monkeypatch, l2: int, l3: int) -> None:
    monkeypatch.setattr(peaks, "cache_bytes", lambda level: {2: l2, 3: l3}[level])


def test_memory_of(monkeypatch):
    set_caches(monkeypatch, MiB, 32 * MiB)
    assert peaks.memory_of(0, 1) == peaks.memory_of(MiB * 3 // 4, 1) == "L2"
    assert peaks.memory_of(MiB, 1) == peaks.memory_of(24 * MiB, 1) == "L3"
    assert peaks.memory_of(MiB, 2) == "L2"
    assert peaks.memory_of(24 * MiB + 1, 1) == peaks.memory_of(1 << 40, 2) == "DRAM"


@pytest.mark.parametrize(
    ("l2", "l3", "threads"),
    [
        (MiB, 32 * MiB, 1),
        (MiB, 32 * MiB, 8),
        (512 * KiB, 16 * MiB, 2),
        (2 * MiB, 260 * MiB, 1),
        (2 * MiB, 320 * MiB, 60),
        (MiB, 1152 * MiB, 96),
    ],
)
@pytest.mark.parametrize("dram", [256 * MiB, 1024 * MiB])
def test_buffers_lie_in_the_memory_that_they_stand_for(monkeypatch, l2, l3, threads, dram):
    set_caches(monkeypatch, l2, l3)
    sizes = peaks.footprints(threads, dram)
    assert {name: peaks.memory_of(size, threads) for name, size in sizes.items()} == {
        name: name for name in peaks.MEMORY
    }
    assert sizes["DRAM"] >= 2 * l3
    assert max(sizes.values()) == sizes["DRAM"]


GB = 10**9
PEAKS = peaks.Peaks(
    threads=2,
    fp32=100 * GB,
    bf16=200 * GB,
    read={"L2": 40 * GB, "L3": 20 * GB, "DRAM": 10 * GB},
    copy={"L2": 20 * GB, "L3": 8 * GB, "DRAM": 4 * GB},
)
NO_BF16 = dataclasses.replace(PEAKS, bf16=None)
SLOW_BF16 = dataclasses.replace(PEAKS, bf16=50 * GB)


def test_every_op_has_a_kind_of_floor():
    assert not DOT_OPS & COPYING_OPS
    assert DOT_OPS | COPYING_OPS | {"topk_indices"} == set(OPS)


@pytest.mark.parametrize(
    ("op", "shape", "measured", "work", "seconds", "bound"),
    [
        # arithmetic: its kind
        ("mqa_logits", {}, PEAKS, Work(4 * GB, MiB), 0.02, "bf16"),
        ("mqa_logits", {"dtype": "bfloat16"}, PEAKS, Work(4 * GB, MiB), 0.02, "bf16"),
        ("mqa_logits", {"dtype": "float32"}, PEAKS, Work(4 * GB, MiB), 0.04, "fp32"),
        ("mqa_logits", {}, NO_BF16, Work(4 * GB, MiB), 0.04, "fp32"),
        ("mqa_logits", {}, SLOW_BF16, Work(4 * GB, MiB), 0.04, "fp32"),
        ("sparse_mla_decode", {"cache_format": "v32"}, PEAKS, Work(4 * GB, MiB), 0.02, "bf16"),
        ("topk_indices", {}, PEAKS, Work(4 * GB, MiB), 0.04, "fp32"),
        ("indexer_q_rope_quant", {}, PEAKS, Work(4 * GB, MiB), 0.04, "fp32"),
        # memory: which, and read or copied
        ("topk_indices", {}, PEAKS, Work(0, MiB), MiB / 40e9, "L2"),
        ("topk_indices", {}, PEAKS, Work(0, 8 * MiB), 8 * MiB / 20e9, "L3"),
        ("topk_indices", {}, PEAKS, Work(0, 64 * MiB), 64 * MiB / 10e9, "DRAM"),
        ("mla_cache_store", {}, PEAKS, Work(0, MiB), MiB / 20e9, "L2"),
        ("mla_cache_gather", {}, PEAKS, Work(0, 8 * MiB), 8 * MiB / 8e9, "L3"),
        ("indices_to_slots", {}, PEAKS, Work(0, 64 * MiB), 64 * MiB / 4e9, "DRAM"),
        ("sparse_mla_prefill", {}, PEAKS, Work(0, 64 * MiB), 64 * MiB / 10e9, "DRAM"),
        # the larger of the two
        ("mqa_logits", {}, PEAKS, Work(20, 4), 1e-10, "bf16"),
        ("mqa_logits", {}, PEAKS, Work(20, 5), 1.25e-10, "L2"),
        ("mqa_logits", {"dtype": "float32"}, PEAKS, Work(20, 5), 2e-10, "fp32"),
        ("merge_attention_states", {}, PEAKS, Work(20, 5), 2.5e-10, "L2"),
        ("topk_indices", {}, PEAKS, Work(10, 5), 1.25e-10, "L2"),
    ],
)
def test_floor(monkeypatch, op, shape, measured, work, seconds, bound):
    set_caches(monkeypatch, MiB, 32 * MiB)
    least = floor(op, shape, work, measured)
    assert (least.seconds, least.bound) == (pytest.approx(seconds, rel=1e-9), bound)
    assert least.computes == (bound in ("bf16", "fp32"))
