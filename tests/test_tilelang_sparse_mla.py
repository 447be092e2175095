"""How TileLang's sparse MLA decode splits keys."""

from __future__ import annotations

import pytest

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

from tilelang_kernels import sparse_mla_decode


def test_parts_do_not_depend_on_the_batch_where_they_must_not():
    parts = sparse_mla_decode.keys_of_part
    assert parts(1, 2048, True) == parts(1000, 2048, True) == sparse_mla_decode.FIXED_KEYS
    assert parts(1, 2048, False) == sparse_mla_decode.FEWEST_KEYS
    assert parts(1000, 2048, False) == 2048
    assert parts(100, 2048, False) == 1024
    assert parts(1, 150, False) == 150
