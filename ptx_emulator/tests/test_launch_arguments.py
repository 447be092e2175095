"""What Module.launch is given: odd numbers and arrays work, or have one error that names them."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from ptx_emulator import LimitError, Module, TensorMap, Uninitialized

from .ptx_kernel import kernel

# out[CTA] = in[CTA] + x
BODY = """
ld.param.u64 %rd0, [in]; ld.param.u64 %rd1, [out]; ld.param.u32 %r1, [x];
mov.u32 %r0, %ctaid.x; mul.wide.u32 %rd2, %r0, 4;
add.u64 %rd0, %rd0, %rd2; add.u64 %rd1, %rd1, %rd2;
ld.global.u32 %r2, [%rd0]; add.u32 %r2, %r2, %r1; st.global.u32 [%rd1], %r2;
ret;
"""
PARAMS = ".param .u64 in, .param .u64 out, .param .u32 x"


@pytest.fixture(scope="module")
def add():
    return Module(kernel(BODY, PARAMS))


def zeros(n=4):
    return np.zeros(n, np.uint32)


GRIDS = [4, np.int64(4), (4,), [4, 1, 1], np.array([4, 1]), torch.Size([4])]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_numbers_of_any_integer_type_make_a_grid(add, grid):
    out = zeros()
    add.launch("k", grid, np.uint8(1), [zeros(), out, np.int16(5)], seed=np.int64(3), shared=0)
    assert out[0] == 5


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"grid": 4.0}, TypeError, "grid: expected a number, or up to three; got 4.0"),
        ({"grid": "4"}, TypeError, "grid: expected"),
        ({"grid": None}, TypeError, "grid: expected"),
        ({"block": ()}, ValueError, "block: expected"),
        ({"block": (1, 1, 1, 1)}, ValueError, "block: expected"),
        ({"grid": (1, 2.5)}, TypeError, "grid"),
        ({"grid": 2**32 + 4}, ValueError, "grid: 4294967300 is out of range"),
        ({"grid": -1}, ValueError, "grid: -1 is out of range"),
        ({"grid": 0}, LimitError, "CTAs along x: 0"),
        ({"grid": (4, 0)}, LimitError, "CTAs along y: 0"),
        ({"block": 0}, LimitError, "threads along x: 0"),
        ({"cluster": 0}, LimitError, "cluster"),
        ({"grid": 2**31 - 1}, LimitError, "in at most"),
        ({"shared": -1}, ValueError, "shared: -1"),
        ({"shared": 2**70}, ValueError, "shared: 1180"),
        ({"shared": 1.5}, TypeError, "shared"),
        ({"seed": 2**64}, ValueError, "seed: 1844"),
        ({"seed": "1"}, TypeError, "seed"),
        ({"max_instructions": -1}, ValueError, "max_instructions: -1"),
        ({"max_instructions": 0}, LimitError, "more than 0 warp instructions"),
        ({"mode": "lazy"}, ValueError, "mode must be one of eager, random, late; got 'lazy'"),
        ({"memory": [3]}, TypeError, r"memory\[0\]: an array or a CPU tensor is expected"),
    ],
)
def test_wrong_options_are_named(add, options, error, message):
    shape = {"grid": 4, "block": 1, **options}
    with pytest.raises(error, match=message):
        add.launch("k", args=[zeros(), zeros(), 1], **shape)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.array([object()] * 4), "argument 0: an array of Python objects"),
        (np.zeros(4, np.dtype([("a", object)])), "argument 0: an array of Python objects"),
        (torch.empty(4, device="meta"), "argument 0: a CPU tensor is expected"),
        (torch.zeros(4, dtype=torch.complex64).conj(), "argument 0: a lazy conjugate"),
        (torch.zeros(4, dtype=torch.complex64).conj().imag, "argument 0: a lazy conjugate or neg"),
        (Uninitialized([1, 2]), "argument 0: an array or a CPU tensor is expected"),
        (Uninitialized(Uninitialized(zeros())), "argument 0: an array or a CPU tensor"),
        ("text", "argument 0: 'text' for a parameter of 8 bytes"),
        ([0.5], "argument 0: .* for a parameter of 8 bytes"),
        (2j, "argument 0: 2j for a parameter of 8 bytes"),
        (b"1234", "argument 0 has 4 bytes, the parameter has 8"),
        (TensorMap(np.zeros((64, 64), np.float16), (64, 64)), "argument 0 has 128 bytes"),
    ],
)
def test_wrong_arguments_are_named(add, array, message):
    with pytest.raises(TypeError, match=message):
        add.launch("k", 4, 1, [array, zeros(), 1])


@pytest.mark.parametrize("value", [None, 2.5e0j, "1", zeros(), torch.tensor(1)])
def test_wrong_numbers_are_named(add, value):
    with pytest.raises(TypeError, match="argument 2"):
        add.launch("k", 4, 1, [zeros(), zeros(), value])


@pytest.mark.parametrize(
    "array",
    [
        torch.zeros(16, dtype=torch.float8_e4m3fn),
        torch.zeros(16, dtype=torch.bool),
        torch.zeros(8, dtype=torch.bfloat16),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(4, requires_grad=True),
        np.zeros(4, np.dtype([("a", np.uint32)])),
        np.zeros(16, "S1"),
        np.zeros((8, 8), np.uint32)[::2, ::3],
    ],
    ids=lambda array: str(array.dtype),
)
def test_memory_is_bytes_whatever_its_elements_are(add, array):
    out = zeros()
    add.launch("k", 4, 1, [array, out, 7])
    assert (out == 7).all()


def hangs():
    """It counts, so that it is no spin."""
    return Module(kernel("mov.u64 %rd1, 0; L: add.u64 %rd1, %rd1, 1; bra L;"))


@pytest.fixture
def interruptible():
    """Ctrl-C is an exception, also where the tests run in the background and would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_launch(interruptible):
    module = hangs()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        module.launch("k", 1, 32, [], max_instructions=2 * 10**9)
    assert time.monotonic() - begin < 10
    with pytest.raises(LimitError):  # and the next one runs
        module.launch("k", 1, 32, [], max_instructions=1000)


def test_other_threads_launch_too():
    errors = []

    def launch():
        with pytest.raises(LimitError) as raised:
            hangs().launch("k", 1, 32, [], max_instructions=1000)
        errors.append(raised)

    threads = [threading.Thread(target=launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 4
