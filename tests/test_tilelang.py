"""TileLang kernels: what lowering refuses, and the contracts of the ops, in the emulator."""

import dataclasses
import types

import pytest
import torch
from dtypes import taken_by_cuda

import dsa_kernels
from dsa_kernels import _gpu, _tilelang
from dsa_kernels._op import OPS
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import random_case, watched_run
from dsa_kernels.testing.emulation import SCHEDULES, emulation
from dsa_kernels.testing.generators import hostile_rows
from dsa_kernels.testing.tilelang import in_emulator

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

import tilelang.language as T

from tilelang_kernels import mqa_logits, topk_indices
from tilelang_kernels.__main__ import main
from tilelang_kernels.toolchain import compilers, device, lowering
from tilelang_kernels.toolchain.targets import TARGETS, Refused, Tile

PORTED = [op for op in sorted(OPS) if op in _tilelang.ported()]
each_op = pytest.mark.parametrize("op", PORTED)
# Each kernel takes seconds to compile.
each_target = pytest.mark.parametrize(
    "target", ["sm_90a", pytest.param("sm_80", marks=pytest.mark.slow)]
)
MQA = {"heads": 8, "dim": 64, "dtype": "bfloat16", "out_dtype": "float32"}


def agrees(op: str, target: str, arguments: list) -> None:
    expected = watched_run(OPS[op], arguments, "reference")
    for schedule in SCHEDULES[:4]:
        with in_emulator(target), emulation(*schedule):
            case(op).compare(expected, watched_run(OPS[op], arguments, "tilelang"))


@each_target
@each_op
@pytest.mark.parametrize("which", [0, 1])
def test_small_cases(op, which, target):
    arguments = case(op).make(torch.Generator().manual_seed(which), **case(op).SMALL[which])
    if not taken_by_cuda(op, arguments):
        pytest.skip("refused")
    agrees(op, target, arguments)


@pytest.mark.slow
@each_target
@each_op
@pytest.mark.parametrize("seed", range(12))
def test_random_cases(op, target, seed):
    shape, arguments = random_case(op, seed)
    if not taken_by_cuda(op, arguments):
        pytest.skip(f"refused: {shape}")
    agrees(op, target, arguments)


@each_target
@pytest.mark.parametrize("blocks", [1, 2, 6])  # a row whole, a row in two slices, two rows in three
@pytest.mark.parametrize("kind", ["random", "zero_plateau", "few_levels", "nan_and_neg_inf"])
def test_topk_indices_of_long_rows(target, blocks, kind, monkeypatch):
    monkeypatch.setattr(topk_indices, "BLOCKS", blocks)
    num_rows = 2 if blocks > 2 else 1
    row = dict(hostile_rows(70_003, torch.Generator().manual_seed(1)))[kind]
    scores = row.expand(num_rows, -1)
    start = torch.tensor([3, 50_001][:num_rows], dtype=torch.int32)
    out = torch.empty(num_rows, 2048, dtype=torch.int32)
    agrees("topk_indices", target, [scores, start, None, 2048, out])


def test_the_command_writes_source_and_says_what_it_refuses(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mqa_logits, "CONFIGURATIONS", [MQA, {**MQA, "dim": 128}])
    limit = lowering.lower(mqa_logits.kernel(TARGETS["gfx942"], **MQA), TARGETS["gfx942"])
    small = dataclasses.replace(TARGETS["gfx942"], shared_bytes=limit.shared_bytes)
    monkeypatch.setitem(TARGETS, "gfx942", small)
    status = main(["lower", "--target", "gfx942", "--op", "mqa_logits", "--out", str(tmp_path)])
    text = capsys.readouterr().out.splitlines()
    assert status == 0 and len(text) == 2
    assert "mfma" in (tmp_path / "mqa_logits_8_64_bfloat16_float32.gfx942.hip").read_text()
    assert "8_128_bfloat16_float32.gfx942: refused: " in text[1]


def test_a_tile_that_does_not_fit_is_refused():
    tiles = {"mqa_logits": Tile(rows=256, columns=512, threads=256)}
    small = dataclasses.replace(TARGETS["gfx942"], tiles=tiles)
    with pytest.raises(Refused, match=r"takes \d+ bytes of .*a block on gfx942 has 65536"):
        lowering.lower(mqa_logits.kernel(small, **{**MQA, "dim": 128}), small)


def test_half_a_wave_is_refused():
    lowered = lowering.lower(mqa_logits.kernel(TARGETS["sm_90a"], **MQA), TARGETS["sm_90a"])
    with pytest.raises(Refused, match="96 threads are no multiple of gfx950's 64"):
        lowering.check(dataclasses.replace(lowered, target=TARGETS["gfx950"], block=(96, 1, 1)))


def test_a_fragment_that_only_the_producer_has_is_refused():
    lowered = lowering.lower(mqa_logits.kernel(TARGETS["sm_90a"], **MQA), TARGETS["sm_90a"])
    source = lowered.source + "\nfloat scale_producer_ws[4];"
    with pytest.raises(Refused, match=r"consumers never see .*scale_producer_ws"):
        lowering.check(dataclasses.replace(lowered, source=source))


@T.prim_func
def pipelined(a: T.Tensor((512, 64), "bfloat16"), out: T.Tensor((512, 64), "float32")):
    with T.Kernel(1, threads=128):
        tile = T.alloc_shared((64, 64), "bfloat16")
        product = T.alloc_fragment((64, 64), "float32")
        for i in T.Pipelined(8, num_stages=2):
            T.copy(a[i * 64, 0], tile)
            T.gemm(tile, tile, product, clear_accum=True)
            T.copy(product, out[i * 64, 0])


def test_a_pipelined_loop_is_refused():
    with pytest.raises(Refused, match=r"pipelined_kernel: what cp.async writes may"):
        lowering.lower(pipelined, TARGETS["sm_80"])


def test_sizes_that_do_not_fit_the_function_are_refused():
    function = mqa_logits.kernel(TARGETS["sm_80"], **MQA)
    row = torch.zeros(3, dtype=torch.int32)
    arguments = [torch.zeros(24, 8, 8), torch.zeros(5, 8, 8), torch.zeros(3, 8), torch.zeros(5)]
    arguments += [row, row, 0, 1, torch.zeros(3, 5)]
    values = lowering.bind(function, arguments)
    assert (values["seq_len"], values["width"], values["out_row"]) == (5, 5, 5)
    arguments[0] = torch.zeros(23, 8, 8)
    with pytest.raises(ValueError, match="size 0 of q must be 24; got 23"):
        lowering.bind(function, arguments)


@T.macro
def fill_rows(array, count):
    for i in T.Parallel(32):
        if i < count:
            array[i] = 0.0


N, M = T.dynamic("n, m")


@T.prim_func
def renamed(a: T.Tensor((N,), "float32"), b: T.Tensor((M,), "float32")):
    with T.Kernel(1, threads=32):
        fill_rows(a, N)
        fill_rows(b, M)


def test_symbols_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two symbols are called count"):
        lowering.bind(renamed, [torch.zeros(3), torch.zeros(5)])


def test_availability():
    for op in OPS:
        assert "no tilelang implementation for cpu" in dsa_kernels.explain(op).refused["tilelang"]
    with in_emulator("sm_80"):
        assert [op for op in sorted(OPS) if "tilelang" in dsa_kernels.backends(op)] == PORTED
    assert not any("tilelang" in dsa_kernels.backends(op) for op in OPS)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as torch describes it, and what is compiled for it: [(target, function)]."""
    compiled = []

    def compile(function, target, pass_configs):
        assert pass_configs == lowering.PASS_CONFIGS
        compiled.append((target["arch"], function))
        return lambda *arguments: compiled.append(arguments)

    monkeypatch.setattr(device.tilelang, "compile", compile)
    monkeypatch.setattr(_tilelang, "problem", lambda: None)

    def describe(major, minor):
        properties = types.SimpleNamespace(major=major, minor=minor)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        return compiled

    caches = _gpu.architecture, device.target_of, device._compiled
    for cache in caches:
        cache.cache_clear()
    yield describe
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("version, target", [((8, 0), "sm_80"), ((9, 0), "sm_90a")])
def test_a_gpu_gets_the_kernels_of_its_target(gpu, version, target):
    compiled = gpu(*version)
    scores, out = torch.zeros(3, 5), torch.zeros(3, 2, dtype=torch.int32)
    for _ in range(2):
        _tilelang.launcher("topk_indices")(device.OnDevice(None), scores, None, None, 2, out)
    assert [what[0] for what in compiled if what[0] == target] == [target]  # once
    assert len(compiled) == 3 and compiled[1][-1] is out


def test_a_gpu_without_a_target_is_refused(gpu):
    gpu(7, 5)
    with pytest.raises(Refused, match="no TileLang target is for sm_75; there are sm_80"):
        device.OnDevice(None)


def test_warmup_compiles_every_kernel_that_is_not_refused(gpu, monkeypatch):
    compiled = gpu(9, 0)
    configurations = [MQA, {**MQA, "dim": 128}]
    monkeypatch.setattr(device, "OPS", ["mqa_logits"])
    monkeypatch.setattr(mqa_logits, "CONFIGURATIONS", configurations)
    limit = lowering.lower(mqa_logits.kernel(TARGETS["sm_90a"], **MQA), TARGETS["sm_90a"])
    small = dataclasses.replace(TARGETS["sm_90a"], shared_bytes=limit.shared_bytes)
    monkeypatch.setitem(TARGETS, "sm_90a", small)
    dsa_kernels.warmup("cuda:0", backend="tilelang")
    assert [target for target, _ in compiled] == ["sm_90a"]


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(_tilelang, "problem", _tilelang.problem.__wrapped__)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("NVCC", "")
    monkeypatch.setattr(compilers.shutil, "which", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="warmup: nvcc was not found"):
        dsa_kernels.warmup("cuda:0", backend="tilelang")
    monkeypatch.setattr(_tilelang.importlib.util, "find_spec", lambda _: None)
    assert _tilelang.problem() == (
        "tilelang is not installed "
        "(in the repository: pip install --no-build-isolation '.[tilelang]')"
    )
