"""Element types of the command line against torch."""

import numpy as np
import pytest
import torch

from ptx_emulator.cli import formats

TORCH = {"bf16": torch.bfloat16, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def all_codes(name):
    dtype = formats.storage(name)
    return np.arange(1 << (8 * dtype.itemsize)).astype(dtype)


def by_torch(codes, name):
    signed = codes.view(f"i{codes.itemsize}")
    return torch.from_numpy(signed).view(TORCH[name]).float().numpy()


@pytest.mark.parametrize("name", TORCH)
def test_every_code_decodes(name):
    codes = all_codes(name)
    np.testing.assert_array_equal(formats.decode(codes, name), by_torch(codes, name))


@pytest.mark.parametrize("name", TORCH)
def test_every_code_and_what_lies_between_rounds_as_in_torch(name):
    exact = formats.decode(all_codes(name), name)
    exact = np.sort(exact[np.isfinite(exact)].astype(np.float64))
    middle = (exact[1:] + exact[:-1]) / 2
    values = np.concatenate([exact, middle, np.nextafter(middle, 0), [-0.0, np.nan]])
    values = values.astype(np.float32)
    got = formats.encode(values, name)
    wanted = torch.from_numpy(values).to(TORCH[name])
    np.testing.assert_array_equal(formats.decode(got, name), wanted.float().numpy())
    np.testing.assert_array_equal(np.signbit(values), got >> (8 * got.itemsize - 1))


@pytest.mark.parametrize("name, largest", [("e4m3", 448), ("e5m2", 57344), ("bf16", np.inf)])
def test_beyond_the_range(name, largest):
    values = np.array([1e39, -1e39, np.inf, -np.inf])
    got = formats.decode(formats.encode(values, name), name)
    np.testing.assert_array_equal(got, np.array([1, -1, 1, -1]) * largest)


@pytest.mark.parametrize("name", sorted(set(formats.NAMES) - set(TORCH)))
def test_types_of_numpy(name):
    kind = {"i": "int", "u": "uint", "f": "float"}[name[0]]
    assert formats.storage(name) == np.dtype(kind + name[1:])
    values = np.array([0, 1, 2])
    assert formats.encode(values, name).dtype == formats.storage(name)
    np.testing.assert_array_equal(formats.decode(formats.encode(values, name), name), values)
