"""AscendC sources: what they multiply and gather with, and that the check of them sees mistakes."""

from __future__ import annotations

import importlib
import re

import pytest
import torch

from dsa_kernels._op import OPS
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import copy_written, named, watched_run

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

import ascend_model

from tilelang_kernels import ascend
from tilelang_kernels.__main__ import main
from tilelang_kernels.ascend import lowering
from tilelang_kernels.toolchain import compilers
from tilelang_kernels.toolchain.compilers import NoCompiler, find_clang

MQA = {"heads": 64, "dim": 128, "dtype": "bfloat16", "out_dtype": "float32"}
MLA = {"heads": 64, "d_qk": 576}


def source(op: str, configuration: dict) -> str:
    module = importlib.import_module(f"tilelang_kernels.ascend.{op}")
    return lowering.lower(module.kernel(**configuration))


def check(text: str) -> None:
    try:
        find_clang()
    except NoCompiler as error:
        pytest.skip(str(error))
    lowering.check_syntax(text)


@pytest.mark.parametrize("dtype, name", [("bfloat16", "bfloat16_t"), ("float8_e4m3fn", "fp8_e4_t")])
def test_mqa_logits(dtype, name):
    text = source("mqa_logits", MQA | {"dtype": dtype})
    assert f"__gm__ {name}* q" in text
    # 128 rows of heads by 128 keys, over 128 dims.
    products = re.findall(r"ascend_gemm_l1<([^>]*)>", text)
    assert [row.split(", ")[:3] for row in products] == [["128", "128", "128"]]
    # The product goes to both vector cores, half of its rows to each.
    assert len(re.findall(r"asc_copy_l0c2ub\(.*static_cast<asc_dual_dst_mode>\(1\)", text)) == 1
    assert len(re.findall(r"asc_vf_call<", text)) == 1
    check(text)


def test_sparse_mla_decode():
    text = source("sparse_mla_decode", MLA)
    # q by keys: 64 heads, 96 of 576 dims at a time, 128 keys; p by values: 64 heads, 128 keys, 128
    # columns.
    assert re.findall(r"asc_mmad\(.*?, (\d+, \d+, \d+), 0, 1, 0, (.*)\);", text) == [
        ("64, 96, 128", "(n == 0)"),
        ("64, 128, 128", "(bool)1"),
    ]
    assert "asc_copy_l12l0b_transpose(" in text
    # A record of 1152 bytes is copied by its slot, where that is listed and valid.
    (copy,) = re.findall(r"asc_copy_gm2ub_align\((.*cache\[.*)\);", text)
    assert copy.split(", ")[2:4] == ["1", "1152"]
    assert (
        "slot % page_size)) * (int64_t)576) + (((int64_t)(slot / page_size)) * page_stride" in copy
    )
    conditions = re.findall(r"if \((.*)\) \{", text[: text.index(copy)])[-2:]
    assert re.search(
        r"< \(length\w* - .*\(0 <= slot\)\) && \(slot <= last_slot\)", "".join(conditions)
    )
    check(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Makes models of an op's kernels."""
    made = {}

    def make(op: str, configuration: dict) -> ascend_model.Model:
        key = (op, *configuration.values())
        if key not in made:
            text, folder = source(op, configuration), tmp_path_factory.mktemp("model")
            try:
                made[key] = ascend_model.Model(text, 32, folder)
            except NoCompiler as error:
                pytest.skip(str(error))
        return made[key]

    return make


def agrees(op: str, made: ascend_model.Model, seed: int = 0, **shape) -> None:
    arguments = case(op).make(torch.Generator().manual_seed(seed), **shape)
    expected = watched_run(OPS[op], arguments, "reference")
    arguments = copy_written(OPS[op], arguments)
    getattr(ascend_model, op)(made, *arguments)
    case(op).compare(expected, named(OPS[op], arguments))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_values_of_mqa_logits(model, dtype):
    """Rows and keys that fill no tile, ranges that are empty or reach past the keys."""
    made = model("mqa_logits", MQA | {"dtype": dtype})
    shape = dict(num_heads=64, head_dim=128, dtype=dtype)
    for seed, bounds in enumerate(["full", "causal", "ragged", "ragged"]):
        agrees("mqa_logits", made, seed, num_rows=5, seq_len=300, bounds=bounds, **shape)
    for num_rows in (1, 70):
        ragged = dict(num_rows=num_rows, seq_len=700, bounds="ragged", fill=False)
        agrees("mqa_logits", made, **ragged, **shape)
    compressed = dict(bounds="ragged", layout="compressed", width=90)
    agrees("mqa_logits", made, num_rows=3, seq_len=257, **compressed, **shape)


def test_values_of_sparse_mla_decode(model):
    """NaN in records that no index selects, slots past the cache, lengths of 0, pages that lie
    apart."""
    made = model("sparse_mla_decode", MLA)
    shape = dict(num_heads=64, d_qk=576, cache_format="bf16", num_kv=200, page_size=7)
    for seed, topk in enumerate([1, 128, 200, 300]):
        agrees("sparse_mla_decode", made, seed, batch=3, topk=topk, topk_length=True, **shape)
    for selection in ("hostile", "first_invalid", "none_valid", "duplicates"):
        agrees("sparse_mla_decode", made, batch=2, topk=140, selection=selection, **shape)
    for sink in ("normal", "inf"):
        agrees("sparse_mla_decode", made, batch=2, next_n=2, topk=70, attn_sink=sink, **shape)


@pytest.mark.slow
@pytest.mark.parametrize("heads, d_qk", [(16, 512), (128, 576)])
def test_values_of_sparse_mla_decode_with_other_heads(model, heads, d_qk):
    made = model("sparse_mla_decode", {"heads": heads, "d_qk": d_qk})
    shape = dict(num_heads=heads, d_qk=d_qk, cache_format="bf16", num_kv=300, page_size=64)
    agrees("sparse_mla_decode", made, batch=35, topk=130, topk_length=True, **shape)


@pytest.mark.slow
@pytest.mark.parametrize("heads, dim", [(8, 64), (32, 128)])
def test_values_of_mqa_logits_with_other_heads(model, heads, dim):
    configuration = {"heads": heads, "dim": dim, "dtype": "bfloat16", "out_dtype": "bfloat16"}
    made = model("mqa_logits", configuration)
    shape = dict(num_heads=heads, head_dim=dim, dtype="bfloat16", out_dtype="bfloat16")
    for fill in (False, True):
        agrees("mqa_logits", made, num_rows=41, seq_len=300, bounds="ragged", fill=fill, **shape)


@pytest.mark.parametrize(
    "found, complaint",
    [
        (r"asc_sync_intra_arrive\(PIPE_FIX, .*\);", "all cores wait"),
        (r"asc_sync_notify\(PIPE_M, PIPE_FIX, .*\);", "nobody notified"),
        (r"asc_sync_wait\(PIPE_M, PIPE_FIX, .*\);", "nobody waited for"),
    ],
)
def test_the_model_sees_synchronisation_that_is_missing(tmp_path, found, complaint):
    text, count = re.subn(found, "", source("mqa_logits", MQA), count=1)
    assert count == 1
    check(text)
    made = ascend_model.Model(text, 32, tmp_path)
    with pytest.raises(RuntimeError, match=complaint):
        agrees("mqa_logits", made, num_rows=3, seq_len=10, num_heads=64, dtype="bfloat16")


@pytest.mark.slow  # up to half a minute a kernel
@pytest.mark.parametrize("op", ascend.OPS)
def test_all_kernels(op):
    for configuration in importlib.import_module(f"tilelang_kernels.ascend.{op}").CONFIGURATIONS:
        check(source(op, configuration))


@pytest.mark.parametrize(
    "found, replacement, complaint",
    [
        (r"row_start, row_end", "row_start, k_scale", "no viable conversion|static assertion"),
        (r"fill, compressed", "fill, compresed", "undeclared identifier"),
        (r"__ubuf__ float\* products", "__gm__ float* products", "static assertion"),
        (
            r"asc_relu_pre_mode>\(0\), 0, 1, 0, 0\)",
            "asc_relu_pre_mode>(0), 0, 1, 0)",
            "no matching",
        ),
        (r"static_cast<event_t>\(0\)", "static_cast<pipe_t>(0)", "no matching function"),
        (r"ascend_gemm_l1<128, 128, 128, 128", "ascend_gemm_l1<128, 128, 128, 48", "divisible"),
        (r"(&\(products)\[", r"(float*)\1[", "no matching function"),
    ],
)
def test_the_check_sees_mistakes(found, replacement, complaint):
    text, count = re.subn(found, replacement, source("mqa_logits", MQA), count=1)
    assert count == 1
    with pytest.raises(ValueError, match=complaint):
        check(text)


@pytest.mark.parametrize(
    "found, replacement, complaint",
    [
        (
            r"simd_inst::vmax\(lanes_top, score_1,",
            "simd_inst::vmax(lanes_top, slot,",
            "no matching",
        ),
        (r"vlds_norm<float>", "vlds_norm<int32_t>", "no matching function"),
        (r"asc_mmad\((.*), 64, 128, 128,", r"asc_mmad(\1, 64, 128,", "no matching function"),
        (r"(asc_copy_ub2gm_align\()\(__gm__", r"\1(__ubuf__", "address space|no matching"),
    ],
)
def test_the_check_sees_mistakes_of_vectors_and_copies(found, replacement, complaint):
    text, count = re.subn(found, replacement, source("sparse_mla_decode", MLA), count=1)
    assert count == 1
    with pytest.raises(ValueError, match=complaint):
        check(text)


def test_the_command_writes_source(tmp_path, capsys, monkeypatch):
    from tilelang_kernels.ascend import mqa_logits

    monkeypatch.setattr(mqa_logits, "CONFIGURATIONS", [MQA])
    command = ["lower", "--target", "ascend", "--op", "mqa_logits", "--out", str(tmp_path)]
    check("")
    assert main(command) == 0
    assert "source only, syntax checked" in capsys.readouterr().out
    (written,) = tmp_path.iterdir()
    assert written.read_text() == source("mqa_logits", MQA)

    monkeypatch.setattr(compilers.shutil, "which", lambda *_, **__: None)
    assert main(command) == 0
    assert "source only, not checked: clang++-22 was not found" in capsys.readouterr().out


def test_the_command_refuses_ops_without_a_kernel(capsys):
    with pytest.raises(SystemExit):
        main(["lower", "--target", "ascend", "--op", "paged_mqa_logits"])
    assert "paged_mqa_logits has no kernel for ascend" in capsys.readouterr().err
