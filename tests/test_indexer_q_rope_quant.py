"""indexer_q_rope_quant against its steps written out in fp64 (indexer_oracle.py)."""

from __future__ import annotations

import functools
import math

import indexer_oracle as oracle
import pytest
import torch
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal

BACKENDS = dsa_kernels.backends("indexer_q_rope_quant")
FP8 = torch.float8_e4m3fn
OP = dsa_kernels.indexer_q_rope_quant


def inputs(num_tokens, num_heads, head_dim, dtype, *, rope_dim=64, max_position=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(num_tokens, num_heads, head_dim, generator=generator) * 3
    weights = torch.randn(num_tokens, num_heads, generator=generator)
    positions = torch.randint(0, max_position, (num_tokens,), generator=generator)
    return {
        "q": q.to(dtype),
        "weights": weights.to(dtype),
        "positions": positions,
        "cos_sin": oracle.rope_table(max_position, rope_dim),
    }


def without_rope(args):
    return {"q": args["q"], "weights": args["weights"]}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("hadamard", [False, True])
@pytest.mark.parametrize("layout", ["neox", "interleaved", "none"])
@pytest.mark.parametrize(("head_dim", "rope_dim"), [(128, 64), (64, 64), (128, 6), (64, 2)])
def test_formulas(backend, dtype, hadamard, layout, head_dim, rope_dim):
    args = inputs(8, 5, head_dim, dtype, rope_dim=rope_dim)
    gold = oracle.prepare(args["q"], args["positions"], args["cos_sin"], layout, hadamard)
    gold_codes, gold_scale = oracle.quantize(gold.float(), "ue8m0")
    call = args if layout != "none" else without_rope(args)
    codes, weights = OP(
        **call, rope_layout=layout, hadamard=hadamard, weights_scale=0.1, backend=backend
    )
    assert codes.dtype == FP8 and weights.dtype == torch.float32
    # fp32 arithmetic against fp64: a value at a rounding boundary may fall to the other side.
    oracle.assert_codes_close(codes.view(torch.uint8), gold_codes, rate=2e-3)
    expected = args["weights"].float() * gold_scale * 0.1
    assert_bitwise_equal(weights, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale_format", ["ue8m0", "float32"])
@pytest.mark.parametrize("layout", ["neox", "interleaved", "none"])
@pytest.mark.parametrize("hadamard", [False, True])
def test_bitwise_equal_to_reference(backend, dtype, scale_format, layout, hadamard):
    args = inputs(33, 9, 128, dtype, seed=3)
    args["q"][:7] = oracle.hostile_keys(128)[:63].view(7, 9, 128).to(dtype)
    args["weights"][1, :3] = torch.tensor([math.nan, math.inf, -0.0])
    args["positions"][4] = -1
    call = args if layout != "none" else without_rope(args)
    call = functools.partial(
        OP, **call, rope_layout=layout, hadamard=hadamard, scale_format=scale_format
    )
    got, expected = (
        call(weights_scale=0.1, backend=backend),
        call(weights_scale=0.1, backend="reference"),
    )
    assert_bitwise_equal(got[0].view(torch.uint8), expected[0].view(torch.uint8), "q_out")
    assert_bitwise_equal(got[1], expected[1], "weights_out")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale_format", ["ue8m0", "float32"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_raw_quantiser_is_exact(backend, scale_format, head_dim):
    q = oracle.hostile_keys(head_dim)[:, None]
    weights = torch.ones(q.shape[:2])
    expected_codes, expected_scales = oracle.quantize(q, scale_format)
    codes, folded = OP(
        q, weights, rope_layout="none", hadamard=False, scale_format=scale_format, backend=backend
    )
    assert_bitwise_equal(codes.view(torch.uint8), expected_codes)
    assert_bitwise_equal(folded, expected_scales)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_heads", [16, 17, 40, 64])
@pytest.mark.parametrize("rope_dim", [64, 10])
def test_many_heads(backend, num_heads, rope_dim):
    """More heads than a kernel does at a time, and not a multiple of them."""
    args = inputs(3, num_heads, 128, torch.bfloat16, rope_dim=rope_dim)
    call = functools.partial(OP, **args, rope_layout="neox", hadamard=True, weights_scale=0.1)
    got, expected = call(backend=backend), call(backend="reference")
    assert_bitwise_equal(got[0].view(torch.uint8), expected[0].view(torch.uint8), "q_out")
    assert_bitwise_equal(got[1], expected[1], "weights_out")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_invalid_positions_are_nan_and_never_read(backend, dtype):
    args = inputs(7, 3, 128, torch.bfloat16)
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    args["positions"] = torch.tensor([3, -1, low, 40, high, 39, 0], dtype=dtype)
    invalid = torch.tensor([0, 1, 1, 1, 1, 0, 0], dtype=torch.bool)
    for hadamard in (False, True):
        call = functools.partial(OP, rope_layout="neox", hadamard=hadamard, backend=backend)
        codes, weights = call(**args)
        assert codes[invalid].view(torch.uint8).eq(0x7F).all() and weights[invalid].isnan().all()
        assert not codes[~invalid].float().isnan().any() and not weights[~invalid].isnan().any()
        empty = dict(args, cos_sin=torch.empty(0, 64))
        codes, weights = call(**empty)
        assert codes.view(torch.uint8).eq(0x7F).all() and weights.isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_position_dtypes_agree(backend):
    args = inputs(6, 2, 64, torch.float32)
    call = functools.partial(OP, rope_layout="interleaved", hadamard=True, backend=backend)
    wide, narrow = call(**args), call(**dict(args, positions=args["positions"].int()))
    assert_bitwise_equal(wide[0], narrow[0])
    assert_bitwise_equal(wide[1], narrow[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_strided_inputs_and_guarded_outputs(backend, dtype):
    args = inputs(5, 3, 128, dtype)
    call = functools.partial(OP, rope_layout="neox", hadamard=True, backend=backend)
    codes, weights = call(**args)
    wide = torch.full((5, 3, 200), math.nan, dtype=dtype)
    wide[:, :, 37:165] = args["q"]
    transposed = torch.full((3, 6, 128), math.nan, dtype=dtype).transpose(0, 1)
    transposed[:5] = args["q"]
    wide_weights = torch.full((5, 11), math.nan, dtype=dtype)
    wide_weights[:, 8:] = args["weights"]
    table = torch.full((40, 70), math.nan)
    table[:, 6:] = args["cos_sin"]
    for q in (wide[:, :, 37:165], transposed[:5]):
        q_out = Guarded((5, 3, 128), FP8, strides=(3 * 140 + 9, 140, 1), shift=3)
        weights_out = Guarded((5, 3), torch.float32, strides=(7, 1), shift=1)
        result = call(
            q,
            wide_weights[:, 8:],
            positions=args["positions"],
            cos_sin=table[:, 6:],
            q_out=q_out.tensor,
            weights_out=weights_out.tensor,
        )
        assert result[0] is q_out.tensor and result[1] is weights_out.tensor
        q_out.check()
        weights_out.check()
        assert_bitwise_equal(q_out.tensor, codes)
        assert_bitwise_equal(weights_out.tensor, weights)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3, 128), (4, 0, 64), (0, 0, 64)])
def test_empty(backend, shape):
    args = inputs(*shape, torch.bfloat16)
    codes, weights = OP(**args, rope_layout="neox", hadamard=True, backend=backend)
    assert codes.shape == shape and weights.shape == shape[:2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    args = inputs(70, 5, 128, torch.bfloat16)
    call = functools.partial(OP, rope_layout="interleaved", hadamard=True, backend=backend)
    cos_sin = args.pop("cos_sin")
    whole = call(**args, cos_sin=cos_sin)

    def check(rows):
        got = call(**{name: t[rows] for name, t in args.items()}, cos_sin=cos_sin)
        for x, y in zip(got, whole, strict=True):
            assert_bitwise_equal(x, y[rows])

    check(torch.randperm(70))
    for count in (1, 2, 5):
        threads(count)
        check(slice(None))
        check(slice(69, 70))
        check(slice(13, 14))


def test_rope_layouts_differ():
    args = inputs(4, 2, 128, torch.float32)
    neox = OP(**args, rope_layout="neox", hadamard=False)[0]
    interleaved = OP(**args, rope_layout="interleaved", hadamard=False)[0]
    assert neox.float().ne(interleaved.float()).any()


def test_hadamard_of_both_sides_keeps_the_dot_product():
    args = inputs(2, 1, 128, torch.float32)
    q, k = args["q"].unbind(0)
    ones = torch.ones(1, 1)
    for hadamard in (False, True):
        parts = [
            OP(x[None], ones, rope_layout="none", hadamard=hadamard, scale_format="float32")
            for x in (q, k)
        ]
        a, b = (codes.double()[0, 0] * float(scale) for codes, scale in parts)
        assert abs(float(a @ b - q[0].double() @ k[0].double())) < 0.05 * float(a.norm() * b.norm())


ARGS = inputs(4, 2, 128, torch.bfloat16)


def bad(**changes):
    call = {**ARGS, "rope_layout": "neox", "hadamard": False, **changes}
    return lambda: OP(**call)


ERRORS = {
    "q dtype": (
        bad(q=torch.zeros(4, 2, 128, dtype=torch.float16)),
        TypeError,
        r"indexer_q_rope_quant: q must be bfloat16 or float32 \[num_tokens, num_heads, head_dim\]; "
        r"got float16 \[4, 2, 128\] on cpu",
    ),
    "q rank": (bad(q=torch.zeros(4, 128)), ValueError, r"q must be .*; got float32 \[4, 128\]"),
    "q is no tensor": (bad(q=3), TypeError, "q must be .*; got int"),
    "q strided": (
        bad(q=torch.zeros(4, 2, 256)[..., ::2]),
        ValueError,
        "q .* must be contiguous in its last dim",
    ),
    "head_dim": (
        bad(q=torch.zeros(4, 2, 96)),
        ValueError,
        r"head_dim must be 64 or 128; got 96",
    ),
    "weights shape": (
        bad(weights=torch.zeros(4, 3)),
        ValueError,
        r"weights must be .* with num_heads = 2 from q; got float32 \[4, 3\]",
    ),
    "weights dtype": (bad(weights=torch.zeros(4, 2).int()), TypeError, "weights must be bfloat16"),
    "rope_layout": (
        bad(rope_layout="gptj"),
        ValueError,
        "rope_layout must be one of neox, interleaved, none; got 'gptj'",
    ),
    "no positions": (
        bad(positions=None),
        ValueError,
        "positions is required with rope_layout 'neox'",
    ),
    "no cos_sin": (bad(cos_sin=None), ValueError, "cos_sin is required with rope_layout 'neox'"),
    "positions without rope": (
        bad(rope_layout="none", cos_sin=None),
        ValueError,
        "positions must be None with rope_layout 'none'",
    ),
    "cos_sin without rope": (
        bad(rope_layout="none", positions=None),
        ValueError,
        "cos_sin must be None with rope_layout 'none'",
    ),
    "positions dtype": (
        bad(positions=torch.zeros(4)),
        TypeError,
        r"positions must be int32 or int64 \[num_tokens\] or None; got float32",
    ),
    "positions length": (
        bad(positions=torch.zeros(5).long()),
        ValueError,
        "positions must be .* with num_tokens = 4 from q",
    ),
    "cos_sin dtype": (
        bad(cos_sin=torch.zeros(40, 64).bfloat16()),
        TypeError,
        r"cos_sin must be float32 .* Convert with \.float\(\)",
    ),
    "rope_dim odd": (
        bad(cos_sin=torch.zeros(40, 63)),
        ValueError,
        r"rope_dim must be even and in \[2, head_dim = 128\]; got 63",
    ),
    "rope_dim zero": (bad(cos_sin=torch.zeros(40, 0)), ValueError, "rope_dim must .*; got 0"),
    "rope_dim too large": (
        bad(cos_sin=torch.zeros(40, 130)),
        ValueError,
        "rope_dim must .*; got 130",
    ),
    "scale_format": (
        bad(scale_format="e8m0"),
        ValueError,
        "scale_format must be one of ue8m0, float32; got 'e8m0'",
    ),
    "q_out dtype": (
        bad(q_out=torch.zeros(4, 2, 128, dtype=torch.uint8)),
        TypeError,
        "q_out must be float8_e4m3fn",
    ),
    "weights_out shape": (
        bad(weights_out=torch.zeros(4, 3)),
        ValueError,
        "weights_out must be float32 .* with num_heads = 2 from q",
    ),
    "overlapping q_out": (
        bad(q_out=torch.zeros(1, 2, 128, dtype=FP8).expand(4, 2, 128)),
        ValueError,
        "q_out .* must not overlap itself",
    ),
    "q needs grad": (
        bad(q=torch.zeros(4, 2, 128, requires_grad=True)),
        ValueError,
        "q requires grad, and this op has no backward",
    ),
    "weights need grad": (
        bad(weights=torch.zeros(4, 2, requires_grad=True)),
        ValueError,
        "weights requires grad, and this op has no backward",
    ),
    "unknown backend": (bad(backend="cuda"), ValueError, "backend 'cuda' was asked for"),
}


test_errors = errors_test(ERRORS)


@pytest.mark.parametrize("name", ["rope_layout", "hadamard"])
def test_required_arguments(name):
    call = {**ARGS, "rope_layout": "neox", "hadamard": False}
    del call[name]
    with pytest.raises(TypeError, match=name):
        OP(**call)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.indexer_q_rope_quant
    good = {
        **ARGS,
        "rope_layout": "neox",
        "hadamard": True,
        "weights_scale": 1.0,
        "scale_format": "ue8m0",
        "q_out": torch.zeros(4, 2, 128, dtype=FP8),
        "weights_out": torch.zeros(4, 2),
    }
    op(**good)
    q = good["q"]
    for changes in (
        {"q": q.double()},
        {"q": q[0]},
        {"q": q[..., :96], "q_out": good["q_out"][..., :96]},
        {"q": torch.zeros(4, 2, 256, dtype=FP8), "q_out": torch.zeros(4, 2, 256, dtype=FP8)},
        {"q": torch.zeros(4, 2, 256), "q_out": torch.zeros(4, 2, 256, dtype=FP8)},
        {"q": torch.zeros(4, 2, 256)[..., ::2]},
        {"weights": good["weights"][:3]},
        {"weights": good["weights"].int()},
        {"positions": None},
        {"cos_sin": None},
        {"positions": good["positions"][:3]},
        {"positions": good["positions"].float()},
        {"positions": torch.zeros(8, dtype=torch.int64)[::2]},
        {"rope_layout": "gptj"},
        {"rope_layout": ""},
        {"rope_layout": "none"},
        {"cos_sin": torch.zeros(40, 63)},
        {"cos_sin": torch.zeros(40, 130)},
        {"cos_sin": torch.zeros(40)},
        {"cos_sin": good["cos_sin"].double()},
        {"scale_format": "e8m0"},
        {"q_out": good["q_out"].view(torch.uint8)},
        {"q_out": good["q_out"][:, :1]},
        {"weights_out": torch.zeros(4, 1)},
        {"weights_out": torch.zeros(4, 2, dtype=torch.bfloat16)},
    ):
        with pytest.raises(RuntimeError, match="indexer_q_rope_quant: "):
            op(**{**good, **changes})
