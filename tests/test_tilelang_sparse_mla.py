"""TileLang's attention: what its machine code is made of, and how decode splits keys."""

from __future__ import annotations

import pytest

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

from dsa_kernels.formats import D_V
from tilelang_kernels import lowering, objects, sparse_mla_decode, sparse_mla_prefill
from tilelang_kernels.compilers import NoCompiler
from tilelang_kernels.targets import TARGETS

MATRIX = {
    "sm_80": "HMMA",
    "sm_89": "HMMA",
    "sm_90a": "HGMMA",
    "sm_100a": "HMMA",
    "sm_120": "HMMA",
    "gfx942": "v_mfma_f32_16x16x16_bf16",
    "gfx950": "v_mfma_f32_16x16x32_bf16",
}
DEPTH = {"gfx942": 16, "gfx950": 32}


@pytest.mark.slow  # each kernel takes seconds to compile
@pytest.mark.parametrize("cache_format", ["bf16", "v32", "v4"])
@pytest.mark.parametrize("target", MATRIX)
def test_objects_have_the_products_and_no_spills(target, cache_format):
    d_qk = 512 if cache_format == "v4" else 576
    function = sparse_mla_prefill.kernel(
        TARGETS[target], cache_format=cache_format, d_qk=d_qk, narrow=False, out_dtype="bfloat16"
    )
    try:
        made = objects.compile_object(lowering.lower(function, TARGETS[target]))
    except NoCompiler as error:
        pytest.skip(str(error))
    assert set(made.matrix) == {MATRIX[target]} and made.spills == 0
    if depth := DEPTH.get(target):  # half of a product would go unnoticed otherwise
        tile = TARGETS[target].tiles["sparse_mla"]
        waves = tile.threads // TARGETS[target].wave
        scores = tile.columns // 16 * d_qk // depth
        values = D_V // 16 * tile.columns // depth
        assert made.matrix[MATRIX[target]] == tile.rows // 16 * (scores + values) // waves


def test_parts_do_not_depend_on_the_batch_where_they_must_not():
    parts = sparse_mla_decode.keys_of_part
    assert parts(1, 2048, True) == parts(1000, 2048, True) == sparse_mla_decode.FIXED_KEYS
    assert parts(1, 2048, False) == sparse_mla_decode.FEWEST_KEYS
    assert parts(1000, 2048, False) == 2048
    assert parts(100, 2048, False) == 1024
    assert parts(1, 150, False) == 150
