"""Kernel arguments written on the command line."""

import numpy as np
import pytest

import ptx_emulator
from ptx_emulator.cli import arguments, formats
from ptx_emulator.cli.errors import UsageError


@pytest.mark.parametrize("name", formats.NAMES)
def test_numbers(name):
    made = arguments.parse(f"{name}:3", 0).make()
    assert made == formats.encode(np.array(3), name).tobytes()


def test_numbers_with_a_sign_in_hexadecimal_and_special_ones():
    assert arguments.parse("i64:-5", 0).make() == (-5).to_bytes(8, "little", signed=True)
    assert arguments.parse("u32:0xfffffffe", 0).make() == b"\xfe\xff\xff\xff"
    assert arguments.parse("f32:-inf", 0).make() == np.float32(-np.inf).tobytes()
    assert np.isnan(np.frombuffer(arguments.parse("f64:nan", 0).make()))


@pytest.mark.parametrize("name", formats.NAMES)
def test_contents_of_arrays(name):
    def values(contents):
        return formats.decode(arguments.parse(f"{name}[3,4]={contents}", 0).make(), name)

    assert values("zeros").shape == (3, 4) and not values("zeros").any()
    assert (values("ones") == 1).all()
    assert (values("7") == 7).all()
    arange = arguments.parse(f"{name}[2,4]=arange", 0).make()
    np.testing.assert_array_equal(formats.decode(arange, name), np.arange(8).reshape(2, 4))
    assert len(np.unique(values("uniform"))) > 6
    if formats.is_float(name):
        assert np.abs(values("uniform")).max() <= 1
        assert len(np.unique(values("normal"))) > 6
    else:
        many = arguments.parse(f"{name}[10000]=uniform", 0).make()
        limits = np.iinfo(many.dtype)
        span = float(limits.max) - limits.min
        assert many.min() < limits.min + span / 100 and many.max() > limits.max - span / 100


def test_empty_arrays_are_uninitialised():
    made = arguments.parse("f32[5]=empty", 0).make()
    assert isinstance(made, ptx_emulator.Uninitialized)
    assert made.array.shape == (5,) and np.isnan(made.array).all()


def test_arrays_have_the_drivers_alignment_and_are_made_afresh():
    argument = arguments.parse("u8[3]=zeros", 0)
    first, second = argument.make(), argument.make()
    assert first.ctypes.data % 256 == second.ctypes.data % 256 == 0
    first[:] = 1
    assert not second.any() and not argument.make().any()


def test_random_contents_depend_on_the_place_of_the_argument_alone():
    texts = [arguments.parse("f32[8]=normal", i).make().tobytes() for i in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_files(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6, dtype=np.float32).reshape(2, 3))
    for shape in ("2,3", ""):
        made = arguments.parse(f"f32[{shape}]=@{path}", 0).make()
        np.testing.assert_array_equal(made, np.arange(6).reshape(2, 3))
    as_bf16 = arguments.parse(f"bf16[]=@{path}", 0).make()
    assert as_bf16.dtype == np.uint16
    np.testing.assert_array_equal(formats.decode(as_bf16, "bf16"), np.arange(6).reshape(2, 3))


def test_tensor_maps():
    made = arguments.parse(
        "map:bf16[64,32]=arange;box=16,8;swizzle=32;element_strides=1,2;l2_promotion=128;fill=nan",
        0,
    ).make()
    same = ptx_emulator.TensorMap(
        made.array,
        (16, 8),
        data_type="bfloat16",
        swizzle=32,
        element_strides=(1, 2),
        l2_promotion=128,
        fill="nan",
    )
    assert bytes(made) == bytes(same)
    empty = arguments.parse("map:f32[8,8]=empty;box=8,8", 0).make()
    assert isinstance(empty.array, ptx_emulator.Uninitialized)


@pytest.mark.parametrize(
    "text, message",
    [
        ("5", "expected a number such as i32:5"),
        ("f32[4]", "expected a number such as i32:5"),
        ("q32:5", "q32 is none of the types"),
        ("q32[4]=zeros", "q32 is none of the types"),
        ("i32:five", "invalid literal"),
        ("i8:200", "i8 holds -128 to 127"),
        ("u8:-1", "u8 holds 0 to 255"),
        ("f32[4]=zeroes", "zeroes is none of empty, zeros"),
        ("i32[4]=1.5", "1.5 is none of empty, zeros"),
        ("i32[4]=normal", "normal needs a floating-point type"),
        ("u8[4]=256", "u8 holds 0 to 255"),
        ("f32[4]=@absent.npy", "cannot read absent.npy"),
        ("f64[]=@{file}", "holds float32, f64 needs float64"),
        ("f32[3,2]=@{file}", "the file's shape is (2, 3)"),
        ("map:f32:4", "a tensor map needs an array"),
        ("map:f32[8,8]=zeros", "a tensor map needs a box"),
        ("map:f32[8,8]=zeros;box=8", "box and strides must fit"),
        ("map:f32[8,8]=zeros;box=8,8;element_strides=1", "box and strides must fit"),
        ("f64[1000000000,100000000]=zeros", "Unable to allocate"),
        ("map:f32[8,8]=zeros;box=8,300", "boxDim[1] must be in 1 .. 256 (300)"),
        ("map:f32[8,8]=zeros;box=8,8;swizzle=48", "swizzle must be one of 0, 32, 64, 128"),
        ("map:f32[8,8]=zeros;box=8,8;colour=3", "colour is none of box"),
        ("map:f32[8,8]=zeros;box=8,8;fill=one", "fill must be one of zero, nan"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, text, message):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((2, 3), np.float32))
    with pytest.raises(UsageError) as raised:
        arguments.parse(text.replace("{file}", str(path)), 4)
    assert str(raised.value).startswith("argument 4, ")
    assert message in str(raised.value)
