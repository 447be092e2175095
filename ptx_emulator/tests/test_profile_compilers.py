"""Profiles of kernels that Triton and TileLang compiled."""

import json

import pytest
import torch

from . import test_tilelang, test_triton
from .case import poisoned, uniform
from .profiled import by_opcode

tilelang_compiled = test_tilelang.compiled
triton_compiled = test_triton.compiled


def generator(seed):
    return torch.Generator().manual_seed(seed)


def tilelang_gemm(compiled, name, m, n, k, dtype, **options):
    a, b = uniform(generator(1), m, k, dtype=dtype), uniform(generator(2), n, k, dtype=dtype)
    tensors = {"A": a, "B": b, "C": poisoned(m, n, dtype=torch.bfloat16)}
    return test_tilelang.launch(compiled(name), tensors, profile=True, **options).profile


@pytest.mark.parametrize(
    "name, m, n, k, dtype, operation, steps",
    [
        ("gemm_bf16", 256, 384, 512, torch.bfloat16, "wgmma m64n64k16 f32.bf16.bf16", 8),
        ("gemm_fp8", 256, 256, 512, torch.float8_e4m3fn, "wgmma m64n64k32 f32.e4m3.e4m3", 4),
        ("gemm_ampere", 128, 128, 256, torch.bfloat16, "mma m16n8k16 f32.bf16.bf16", 6),
    ],
)
def test_tilelang_gemm(tilelang_compiled, name, m, n, k, dtype, operation, steps):
    """Steps of 128 bytes along k, or of 64 on sm_80, where the last two are behind the loop."""
    profile = tilelang_gemm(tilelang_compiled, name, m, n, k, dtype)
    assert profile.tensor["flops"] == 2 * m * n * k
    assert list(profile.tensor["operations"]) == [operation]
    path = "copy" if name == "gemm_ampere" else "bulk"
    memory = profile.memory["global"]
    assert memory[path]["unique_read_bytes"] == (m + n) * k * dtype.itemsize
    assert memory["all"]["unique_written_bytes"] == m * n * 2
    roles = {role["name"]: role for role in profile.as_dict()["roles"]}
    assert set(roles) == ({"all"} if name == "gemm_ampere" else {"math", "copy", "other"})
    working = roles.get("math") or roles["all"]
    (main,) = [loop for loop in working["loops"] if loop["is_main"]]
    assert main["per_iteration"]["tensor"] > 0
    # Steps are bound by what they fill and multiply, wherever the copies were issued.
    loops = profile.bounds["loops"]
    assert loops["iterations_per_cta"] == steps
    assert loops["cycles"]["l2"] > 0 and loops["cycles"]["tensor"] > 0
    json.dumps(profile.as_dict())


def test_tilelang_attention(tilelang_compiled):
    heads, length, d = 2, 256, 64
    q, k, v = (uniform(generator(i), heads, length, d) for i in range(3))
    tensors = {"Q": q, "K": k, "V": v, "O": poisoned(heads, length, d, dtype=torch.bfloat16)}
    profile = test_tilelang.launch(tilelang_compiled("attention"), tensors, profile=True).profile
    assert profile.tensor["flops"] == 2 * 2 * heads * length * length * d
    (math,) = [role for role in profile.as_dict()["roles"] if role["name"] == "math"]
    (main,) = [loop for loop in math["loops"] if loop["is_main"]]
    # A warp's share of 64 x 64 scores: 32 ex2 a thread, and 2 to rescale.
    assert main["per_iteration"]["sfu"] == 34
    # The scores' 64 x 64 x 16 take A from shared memory, the weighted sums' from registers.
    products = heads * (length // 64) ** 2 * (d // 16)
    shared = profile.memory["shared"]
    assert shared["wgmma A"] == {"read": products * 64 * 16 * 2}
    assert shared["wgmma B"] == {"read": 2 * products * 64 * 16 * 2}


@pytest.mark.parametrize("name, grid", [("matmul_bf16", (2, 2)), ("matmul_persistent", (4,))])
def test_triton_matmul(triton_compiled, name, grid):
    m, n, k = 256, 256, 320
    a, b = uniform(generator(1), m, k), uniform(generator(2), n, k)
    c = poisoned(m, n, dtype=torch.bfloat16)
    args = [*map(test_triton.Descriptor, (a, b, c)), m, n, k]
    profiles = [
        test_triton.launch(
            triton_compiled(name), grid, args, profile=True, mode="random", seed=2
        ).profile
        for _ in range(2)
    ]
    assert profiles[0].tensor["flops"] == 2 * m * n * k
    bulk = profiles[0].memory["global"]["bulk"]
    assert bulk["unique_read_bytes"] == 2 * (m + n) * k
    assert bulk["unique_written_bytes"] == 2 * m * n
    texts = [json.dumps(profile.as_dict()) for profile in profiles]
    assert texts[0] == texts[1]
    assert "triton_kernels.py" in profiles[0].report()


def test_tensor_maps_that_a_kernel_writes(triton_compiled):
    """128 bytes each, in four sectors."""
    m, n, k = 128, 256, 160
    a, b = uniform(generator(1), m, k), uniform(generator(2), k, n)
    args = [a, b, poisoned(m, n, dtype=torch.bfloat16), m, n, k]
    made = triton_compiled("matmul_device")
    profile = test_triton.launch(made, (2, 2), args, profile=True).profile
    copies = by_opcode(profile, "tensormap.cp_fenceproxy")
    assert len(copies) == 3
    for line in copies:
        assert line["global_requests"] > 0
        assert line["sectors"] == 4 * line["global_requests"]
        assert line["global_written"] == 128 * line["global_requests"]
        assert line["shared_read"] == line["global_written"]


def test_triton_softmax(triton_compiled):
    """No loop, and every element is read and written once."""
    rows, columns = 5, 784
    x, y = torch.randn(rows, columns, generator=generator(0)), poisoned(rows, columns)
    made = triton_compiled("softmax")
    profile = test_triton.launch(made, (rows,), [x, y, columns, columns], profile=True).profile
    direct = profile.memory["global"]["direct"]
    for name in ("read_bytes", "written_bytes", "unique_read_bytes", "unique_written_bytes"):
        assert direct[name] == rows * columns * 4
    assert profile.tensor == {"flops": 0, "operations": {}}
    assert [role["loops"] for role in profile.as_dict()["roles"]] == [[]]
    assert profile.bounds["loops"] is None and profile.bounds["cta"]["binds"]
