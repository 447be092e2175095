"""Programs that TileLang lowers wrongly without a word are refused, and ones like them are not."""

import pytest

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

import tilelang
import tilelang.language as T

from tilelang_kernels.toolchain import lowering
from tilelang_kernels.toolchain.targets import TARGETS, Refused

N = T.dynamic("n")
SM80 = TARGETS["sm_80"]


@T.prim_func
def else_branch(a: T.Tensor((N, 8), "float32"), b: T.Tensor((N, 8), "float32"), fill: T.int32):
    with T.Kernel(1, threads=32):
        for i, j in T.Parallel(64, 8):
            if i < N:
                if a[i, j] > 0:
                    b[i, j] = 1
                elif fill != 0:
                    b[i, j] = 2


@T.prim_func
def then_branch(a: T.Tensor((N, 8), "float32"), b: T.Tensor((N, 8), "float32"), fill: T.int32):
    with T.Kernel(1, threads=32):
        for i, j in T.Parallel(64, 8):
            if i < N:
                if a[i, j] > 0:
                    if fill != 0:
                        b[i, j] = 2
                else:
                    b[i, j] = 1


@T.prim_func
def both_branches(a: T.Tensor((N, 8), "float32"), b: T.Tensor((N, 8), "float32"), fill: T.int32):
    with T.Kernel(1, threads=32):
        for i, j in T.Parallel(64, 8):
            if i < N:
                if a[i, j] > 0:
                    b[i, j] = 1
                elif fill != 0:
                    b[i, j] = 2
                else:
                    b[i, j] = 3


@T.prim_func
def neighbour(a: T.Tensor((N, 8), "float32"), b: T.Tensor((N, 8), "float32"), fill: T.int32):
    with T.Kernel(1, threads=32):
        for i, j in T.Parallel(64, 8):
            if i < N:
                b[i, j] = a[i, j]
                if fill != 0:
                    b[i, j] = 2


@pytest.mark.parametrize("function", [else_branch, then_branch])
def test_a_condition_that_leaves_its_loop_and_loses_a_branch(function):
    with pytest.raises(Refused, match=r"fill != 0 would be hoisted out of the loop over i"):
        lowering.lower(function, SM80)


@pytest.mark.parametrize("function", [both_branches, neighbour])
def test_conditions_that_lose_nothing(function):
    source = lowering.lower(function, SM80).source
    assert source.count("fill != 0") == 1 and "0x1p+1f" in source


def test_the_compiler_still_needs_this():
    """Without the refusal, what `else_branch` does where a > 0 is lost where fill is 0."""
    target = tilelang.backend.target.determine_target(SM80.specification, return_object=True)
    with tilelang.transform.PassContext(opt_level=3), target:
        made = tilelang.lower(else_branch, target=target, enable_device_compile=False)
    body = made.kernel_source[made.kernel_source.rindex("__launch_bounds__") :]
    assert body.index("if (fill != 0)") < body.index("for (int i")
    assert body.count("fill") == 2  # the parameter and this condition, which has no else
