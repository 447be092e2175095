"""indices_to_slots against the block-table formula in Python integers."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings, strategies as st
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal

BACKENDS = dsa_kernels.backends("indices_to_slots")
INT_MIN, INT_MAX = -(2**31), 2**31 - 1


def oracle(indices, table, request, page_size):
    """Slots of each row, with Python's integers; `request` is a list of a request per row."""
    rows = []
    for row, b in zip(indices, request, strict=True):
        slots = []
        for i in row:
            slot = -1
            if 0 <= b < len(table) and 0 <= i < len(table[b]) * page_size:
                page = table[b][i // page_size]
                slot = page * page_size + i % page_size if page >= 0 else -1
            slots.append(slot if slot <= INT_MAX else -1)
        rows.append(slots)
    return rows


def check(indices, table, page_size, request, backend, row_request=None):
    slots, counts = dsa_kernels.indices_to_slots(
        torch.tensor(indices, dtype=torch.int32),
        torch.tensor(table, dtype=torch.int32),
        page_size=page_size,
        row_request=None if row_request is None else torch.tensor(row_request, dtype=torch.int32),
        backend=backend,
    )
    expected = oracle(indices, table, request, page_size)
    assert slots.tolist() == expected
    assert counts.tolist() == [sum(s >= 0 for s in row) for row in expected]
    assert slots.dtype == counts.dtype == torch.int32


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("page_size", [1, 3, 64])
def test_hostile_indices_and_table(backend, page_size):
    table = [[5, 0, -1, 7], [INT_MIN, 2, INT_MAX, 1]]
    end = 4 * page_size
    row = [0, end - 1, -1, end, page_size, INT_MIN, INT_MAX, end + 1, 2 * page_size, -2]
    row += [end // 2 - 1, 0, 0]  # duplicates are translated each time
    check([row] * 4, table, page_size, [0, 0, 1, 1], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_row_request(backend):
    requests = [1, 0, -1, 2, 1, INT_MIN, INT_MAX, 0]
    table = [[4, 9], [3, 1]]
    check([[0, 5, 2, -1]] * len(requests), table, 3, requests, backend, row_request=requests)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_are_grouped_evenly_without_row_request(backend):
    table = [[10], [20], [30]]
    check([[0, 1]] * 6, table, 2, [0, 0, 1, 1, 2, 2], backend)
    check([[0, 1]] * 3, table, 2, [0, 1, 2], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slot_beyond_int32_is_invalid(backend):
    page = 2**31 // 64
    check([[0, 63, 64, 127, 128, 191]], [[page - 1, page, INT_MAX]], 64, [0], backend)
    check([[0, 1]], [[INT_MAX, INT_MAX - 1]], 1, [0], backend)
    # A page size near 2^31: index // page_size stays 0, and page 1 runs past int32.
    check([[0, 5, INT_MAX - 1, INT_MAX]], [[0, 1]], INT_MAX, [0], backend)
    check([[0, 1, 2]], [[1]], INT_MAX, [0], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_property(backend, data):
    number = st.one_of(st.integers(-3, 40), st.sampled_from([INT_MIN, INT_MAX]))
    batch = data.draw(st.integers(1, 3))
    max_pages, topk = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 5))
    rows = batch * data.draw(st.integers(0, 3))
    table = [[data.draw(number) for _ in range(max_pages)] for _ in range(batch)]
    indices = [[data.draw(number) for _ in range(topk)] for _ in range(rows)]
    request = [data.draw(st.integers(-1, batch)) for _ in range(rows)]
    page_size = data.draw(st.sampled_from([1, 3, 64, 1 << 30]))
    slots, counts = dsa_kernels.indices_to_slots(
        torch.tensor(indices, dtype=torch.int32).view(rows, topk),
        torch.tensor(table, dtype=torch.int32).view(batch, max_pages),
        page_size=page_size,
        row_request=torch.tensor(request, dtype=torch.int32),
        backend=backend,
    )
    expected = oracle(indices, table, request, page_size)
    assert slots.tolist() == expected
    assert counts.tolist() == [sum(s >= 0 for s in row) for row in expected]


def random_case(rows=40, topk=70, batch=5, max_pages=9, page_size=4):
    indices = torch.randint(-5, max_pages * page_size + 5, (rows, topk), dtype=torch.int32)
    table = torch.randint(-2, 100, (batch, max_pages), dtype=torch.int32)
    request = torch.randint(-1, batch + 1, (rows,), dtype=torch.int32)
    return indices, table, request, page_size


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_and_bitwise_equal_to_the_reference(backend):
    indices, table, request, page_size = random_case()
    got = dsa_kernels.indices_to_slots(
        indices, table, page_size=page_size, row_request=request, backend=backend
    )
    expected = oracle(indices.tolist(), table.tolist(), request.tolist(), page_size)
    assert got[0].tolist() == expected
    reference = dsa_kernels.indices_to_slots(
        indices, table, page_size=page_size, row_request=request, backend="reference"
    )
    for actual, ref in zip(got, reference, strict=True):
        assert_bitwise_equal(actual, ref)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("topk", [2048, 4092, 1023])
def test_wide_rows(backend, topk):
    """As selections are, aligned and not, of more indices than a kernel does at a time."""
    indices, table, request, page_size = random_case(rows=3, topk=topk, page_size=64)
    got = dsa_kernels.indices_to_slots(
        indices, table, page_size=page_size, row_request=request, backend=backend
    )
    expected = oracle(indices.tolist(), table.tolist(), request.tolist(), page_size)
    assert got[0].tolist() == expected
    assert got[1].tolist() == [sum(s >= 0 for s in row) for row in expected]


@pytest.mark.parametrize("backend", BACKENDS)
def test_guard_bands_and_strides(backend):
    indices, table, request, page_size = random_case(rows=6, topk=11)
    clean = dsa_kernels.indices_to_slots(
        indices, table, page_size=page_size, row_request=request, backend=backend
    )
    wide = torch.full((6, 20), INT_MAX, dtype=torch.int32)
    wide[:, :11] = indices
    wide_table = torch.zeros(5, 13, dtype=torch.int32)  # entries past max_pages look valid
    wide_table[:, :9] = table
    for strides, shift in (((11, 1), 0), ((16, 1), 1)):
        slots = Guarded((6, 11), torch.int32, strides=strides, shift=shift)
        counts = Guarded((6,), torch.int32, shift=shift)
        returned = dsa_kernels.indices_to_slots(
            wide[:, :11],
            wide_table[:, :9],
            page_size=page_size,
            row_request=request,
            slots=slots.tensor,
            counts=counts.tensor,
            backend=backend,
        )
        slots.check()
        counts.check()
        assert returned[0] is slots.tensor and returned[1] is counts.tensor
        assert_bitwise_equal(slots.tensor, clean[0])
        assert_bitwise_equal(counts.tensor, clean[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    indices, table, request, page_size = random_case()
    call = functools.partial(dsa_kernels.indices_to_slots, page_size=page_size, backend=backend)
    whole = call(indices, table, row_request=request)
    order = torch.randperm(len(indices))
    for count in (1, 2, 5):
        threads(count)
        permuted = call(indices[order], table, row_request=request[order])
        for actual, expected in zip(permuted, whole, strict=True):
            assert_bitwise_equal(actual, expected[order])
        for r in range(0, len(indices), 7):
            alone = call(indices[r : r + 1], table, row_request=request[r : r + 1])
            for actual, expected in zip(alone, whole, strict=True):
                assert_bitwise_equal(actual[0], expected[r])


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    call = functools.partial(dsa_kernels.indices_to_slots, page_size=4, backend=backend)
    table = torch.zeros(2, 3, dtype=torch.int32)
    none = torch.empty(0, 5, dtype=torch.int32)
    for row_request in (None, torch.empty(0, dtype=torch.int32)):
        slots, counts = call(none, table, row_request=row_request)
        assert slots.shape == (0, 5) and counts.shape == (0,)
    slots, counts = call(none, table[:0])
    assert slots.shape == (0, 5)
    slots, counts = call(torch.empty(4, 0, dtype=torch.int32), table)
    assert slots.shape == (4, 0) and counts.tolist() == [0] * 4
    slots, counts = call(torch.zeros(2, 5, dtype=torch.int32), table[:, :0])
    assert slots.eq(-1).all() and counts.tolist() == [0, 0]
    request = torch.zeros(2, dtype=torch.int32)
    slots, counts = call(torch.zeros(2, 5, dtype=torch.int32), table[:0], row_request=request)
    assert slots.eq(-1).all() and counts.tolist() == [0, 0]


GOOD = {
    "indices": torch.zeros(4, 6, dtype=torch.int32),
    "block_table": torch.zeros(2, 3, dtype=torch.int32),
    "page_size": 4,
}


def with_(**changes):
    return lambda: dsa_kernels.indices_to_slots(**{**GOOD, **changes})


def int32(*shape):
    return torch.zeros(*shape, dtype=torch.int32)


ERRORS = {
    "indices dtype": (
        with_(indices=GOOD["indices"].long()),
        TypeError,
        r"indices_to_slots: indices must be int32 \[num_rows, topk\]; got int64 \[4, 6\] on cpu\. "
        r"Convert with \.int\(\)\.",
    ),
    "not a tensor": (with_(indices=[[0]]), TypeError, "indices must be .* got list"),
    "rank": (with_(indices=int32(4)), ValueError, r"got int32 \[4\]"),
    "table dtype": (with_(block_table=torch.zeros(2, 3)), TypeError, "block_table must be int32"),
    "table strided": (
        with_(block_table=int32(3, 2).t()),
        ValueError,
        r"block_table \[batch, max_pages\] must be contiguous in its last dim",
    ),
    "page_size zero": (with_(page_size=0), ValueError, r"page_size must be in \[1, 2147483647\]"),
    "page_size huge": (
        with_(page_size=2**31),
        ValueError,
        "page_size must be in .* got 2147483648",
    ),
    "uneven rows": (
        with_(indices=int32(3, 6)),
        ValueError,
        "num_rows must be a multiple of batch; got 3 rows for a batch of 2. Pass row_request",
    ),
    "rows without a batch": (
        with_(block_table=int32(0, 3)),
        ValueError,
        "got 4 rows for a batch of 0",
    ),
    "row_request length": (
        with_(row_request=int32(5)),
        ValueError,
        r"row_request must be int32 \[num_rows\] with num_rows = 4 from indices or None",
    ),
    "row_request dtype": (
        with_(row_request=int32(4).long()),
        TypeError,
        "row_request must be int32",
    ),
    "slots shape": (with_(slots=int32(4, 5)), ValueError, "slots must be .* with topk = 6"),
    "slots overlap": (with_(slots=int32(1, 6).expand(4, 6)), ValueError, "must not overlap itself"),
    "counts shape": (with_(counts=int32(3)), ValueError, "counts must be .* with num_rows = 4"),
    "unknown backend": (with_(backend="cuda"), ValueError, "there is no such backend"),
}


test_errors = errors_test(ERRORS)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.indices_to_slots
    indices, table, slots, counts = int32(4, 6), int32(2, 3), int32(4, 6), int32(4)
    for args in (
        (indices.long(), table, None, 4, slots, counts),
        (indices[0], table, None, 4, slots, counts),
        (indices, table.float(), None, 4, slots, counts),
        (indices, table.t().contiguous().t(), None, 4, slots, counts),
        (indices, table, int32(3), 4, slots, counts),
        (indices, table, None, 0, slots, counts),
        (indices, table, None, -4, slots, counts),
        (indices, table, None, 2**31, slots, counts),
        (indices[:3], table, None, 4, slots[:3], counts[:3]),
        (indices, table[:0], None, 4, slots, counts),
        (indices, table, None, 4, slots[:, :5], counts),
        (indices, table, None, 4, slots.long(), counts),
        (indices, table, None, 4, slots, counts[:3]),
    ):
        with pytest.raises(RuntimeError, match="indices_to_slots: "):
            op(*args)
