"""Kernels that Triton compiled, against torch."""

import pytest
import torch

from ptx_emulator import TensorMap

from .case import assert_near, compiled_once, poisoned, schedules, uniform

pytest.importorskip("triton", reason="triton is not installed: pip install .[ptx]")

from . import triton_kernels

compiled = compiled_once(triton_kernels.KERNELS)


def launch(made, grid, args, **options):
    """Launches a kernel as Triton's launcher would; (tensor, 'map') pairs become descriptors."""
    kernel, module = made
    descriptions = iter(kernel.metadata.tensordesc_meta)
    grid = tuple(grid) + (1,) * (3 - len(grid))
    flat = []
    for argument in args:
        if isinstance(argument, Descriptor):
            flat += triton_kernels.descriptor_arguments(
                argument.tensor, next(descriptions), TensorMap
            )
        else:
            flat.append(argument)
    flat += triton_kernels.scratch_arguments(kernel, grid)
    ctas = (kernel.ctas, 1, 1)
    return module.launch(
        kernel.name,
        grid=(grid[0] * kernel.ctas, *grid[1:]),
        block=(kernel.threads, 1, 1),
        cluster=ctas,
        shared=kernel.metadata.shared,
        args=flat,
        **options,
    )


class Descriptor:
    def __init__(self, tensor):
        self.tensor = tensor


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fp8(*shape):
    return uniform(generator(3), *shape, dtype=torch.float8_e4m3fn)


def swish(x):
    return x * torch.sigmoid(x)


@schedules
@pytest.mark.parametrize("name", ["matmul_bf16", "matmul_persistent", "matmul_two_ctas"])
def test_matmul_bf16(compiled, name, schedule):
    m, n, k = 192, 256, 320
    a, b = uniform(generator(1), m, k), uniform(generator(2), n, k)
    c = poisoned(m, n, dtype=torch.bfloat16)
    grid = (4,) if name == "matmul_persistent" else (2, 2)
    args = [Descriptor(a), Descriptor(b), Descriptor(c), m, n, k]
    launch(compiled(name), grid, args, **schedule)
    assert_near(c, a.double() @ b.double().T, 2**-8)


@schedules
@pytest.mark.parametrize("coarse_fp8", [False, True])
def test_matmul_fp8(compiled, coarse_fp8, schedule):
    m, n, k = 128, 256, 384
    a, b = fp8(m, k), fp8(n, k)
    c = poisoned(m, n, dtype=torch.bfloat16)
    args = [Descriptor(a), Descriptor(b), Descriptor(c), m, n, k]
    launch(compiled("matmul_fp8"), (1, 2), args, coarse_fp8=coarse_fp8, **schedule)
    # Hopper keeps 13 bits behind the point of the largest summand and cuts the others off.
    tolerance = 2**-6 if coarse_fp8 else 2**-8
    assert_near(c, a.double() @ b.double().T, tolerance)


@schedules
def test_matmul_with_maps_made_on_the_device(compiled, schedule):
    m, n, k = 112, 208, 160
    a, b = uniform(generator(1), m, k), uniform(generator(2), k, n)
    c = poisoned(m, n, dtype=torch.bfloat16)
    launch(compiled("matmul_device"), (2, 2), [a, b, c, m, n, k], **schedule)
    assert_near(c, a.double() @ b.double(), 2**-8)


@schedules
@pytest.mark.parametrize(
    "name, m, n, k",
    [
        ("matmul_ampere", 80, 96, 144),
        ("matmul_hopper", 80, 96, 144),
        ("matmul_unaligned", 65, 70, 37),
    ],
)
def test_matmul_with_pointers(compiled, name, m, n, k, schedule):
    a, b = uniform(generator(1), m, k), uniform(generator(2), k, n)
    c = poisoned(m, n, dtype=torch.bfloat16)
    launch(compiled(name), (2, 2), [a, b, c, m, n, k], **schedule)
    assert_near(c, swish(a.double() @ b.double()), 2**-8)


@schedules
@pytest.mark.parametrize("name, columns", [("softmax", 784), ("softmax_unaligned", 777)])
def test_softmax(compiled, name, columns, schedule):
    rows = 5
    x = 10 * torch.randn(rows, columns, generator=generator())
    x[1] = -float("inf")
    x[1, 3] = 0
    x[2, 4] = float("inf")  # a row without a softmax
    y = poisoned(rows, columns)
    launch(compiled(name), (rows,), [x, y, columns, columns], **schedule)
    expected = x.double().softmax(1)
    assert torch.isnan(y[2]).all() == torch.isnan(expected[2]).all()
    keep = [0, 1, 3, 4]
    assert_near(y[keep], expected[keep], 1e-6)


@schedules
def test_layer_norm(compiled, schedule):
    rows, columns, eps = 3, 1111, 1e-5
    x = (3 + torch.randn(rows, columns, generator=generator())).half()
    w, b = (
        torch.randn(columns, generator=generator(1)),
        torch.randn(columns, generator=generator(2)),
    )
    y = poisoned(rows, columns, dtype=torch.float16)
    mean, rstd = poisoned(rows), poisoned(rows)
    launch(compiled("layer_norm"), (rows,), [x, w, b, y, mean, rstd, columns, eps], **schedule)
    expected = torch.nn.functional.layer_norm(x.double(), (columns,), w.double(), b.double(), eps)
    assert_near(y, expected, 2**-10)
    assert_near(mean, x.double().mean(1), 1e-6)
    assert_near(rstd, (x.double().var(1, unbiased=False) + eps).rsqrt(), 1e-6)


@schedules
def test_attention(compiled, schedule):
    heads, length, d = 2, 256, 64
    q, k, v = (uniform(generator(i), heads * length, d) for i in range(3))
    o, lse = poisoned(heads * length, d, dtype=torch.bfloat16), poisoned(heads * length)
    scale = d**-0.5
    maps = [Descriptor(t) for t in (q, k, v, o)]
    args = [*maps, lse, scale, length]
    launch(compiled("attention"), (length // 128, heads), args, **schedule)
    q, k, v = (t.double().view(heads, length, d) for t in (q, k, v))
    score = scale * q @ k.transpose(1, 2)
    score += torch.full((length, length), -float("inf"), dtype=torch.float64).triu(1)
    assert_near(o.view(heads, length, d), score.softmax(-1) @ v, 2**-7)
    assert_near(lse.view(heads, length), score.logsumexp(-1), 1e-6)


@schedules
def test_histogram_and_scan(compiled, schedule):
    n, bins = 2500, 128
    x = torch.randint(0, 1000, (n,), generator=generator(), dtype=torch.int32)
    counts, ends = torch.zeros(bins, dtype=torch.int32), torch.full((n,), -1, dtype=torch.int32)
    launch(compiled("histogram"), (3,), [x, counts, ends, n], **schedule)
    assert torch.equal(counts.long(), torch.bincount(x % bins, minlength=bins))
    blocks = [block.cumsum(0).int() for block in x.split(1024)]
    assert torch.equal(ends, torch.cat(blocks))


@schedules
def test_sort(compiled, schedule):
    rows, columns = 3, 199
    x = torch.randn(rows, columns, generator=generator())
    x[0, 5] = float("inf")
    x[1] = 1
    y = poisoned(rows, columns)
    launch(compiled("sort"), (rows,), [x, y, columns], **schedule)
    assert torch.equal(y, x.sort(1).values)
