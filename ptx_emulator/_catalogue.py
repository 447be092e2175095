"""The mutator's catalogue: what it drops and changes in PTX."""

import re
from collections.abc import Callable, Iterable, Iterator

from ._mutation_rules import CATALOGUE, Edits, drop, each, replaced, with_changed, without
from ._slices import address_arithmetic, descriptor_constants, literal
from ._statements import PtxText, Statement

_COPIES = ("cp.async.ca", "cp.async.cg", "cp.async.bulk", "cp.reduce.async.bulk")
_WAITS = ("mbarrier.try_wait", "mbarrier.test_wait")
_ARRIVES = ("mbarrier.arrive", "mbarrier.arrive_drop")
_WIDE_SCOPES = ("cluster", "gpu", "sys")
_THREADS_OF_CTA = (
    "mov.u32 mutated, %ntid.x; mov.u32 factor, %ntid.y; mul.lo.u32 mutated, mutated, factor; "
    "mov.u32 factor, %ntid.z; mul.lo.u32 mutated, mutated, factor; "
    "add.u32 mutated, mutated, 31; and.b32 mutated, mutated, -32;"
)


def _with_literals(s: Statement, indices: Iterable[int], change: Callable[[int], int]) -> list[str]:
    """The statement with one of these operands changed, for each that is a number."""
    return [
        s.text(operands=s.with_operand(i, str(change(value))))
        for i in indices
        if i < len(s.operands) and (value := literal(s.operands[i])) is not None
    ]


# -- mbarriers


@each("never wait for mbarrier", *_WAITS)
def _(s):
    return [f"{s.guard}mov.pred {s.operands[0]}, 1;"]


@each("other parity", *_WAITS, where=lambda s: "parity" in s.parts)
def _(s):
    return [with_changed(s, 2, "b32", "xor.b32 NEW, OLD, 1")]


def _is_ordered(s: Statement) -> bool:
    return "relaxed" not in s.parts


@each("relaxed wait", *_WAITS, where=_is_ordered)
def _(s):
    return [_relaxed(s)]


@each("relaxed arrive", *_ARRIVES, where=_is_ordered)
def _(s):
    return [_relaxed(s)]


def _relaxed(s: Statement) -> str:
    if {"acquire", "release"} & set(s.parts):
        return replaced(s, "relaxed", "acquire", "release")
    space = next(i for i, p in enumerate(s.parts) if p.startswith("shared") or p == "b64")
    return s.text(".".join([*s.parts[:space], "relaxed", "cta", *s.parts[space:]]))


drop("drop arrive", *_ARRIVES, "cp.async.mbarrier.arrive")


@each("arrive without expect_tx", *_ARRIVES, where=lambda s: "expect_tx" in s.parts)
def _(s):
    return [s.text(".".join(without(s, "expect_tx")), s.operands[:-1])]


drop("drop expect_tx", "mbarrier.expect_tx")


@each("other expect_tx", *_ARRIVES, "mbarrier.expect_tx", where=lambda s: "expect_tx" in s.parts)
def _(s):
    last = len(s.operands) - 1
    return [with_changed(s, last, "b32", f"add.s32 NEW, OLD, {n}") for n in (16, -16)]


drop("drop mbarrier.init", "mbarrier.init")


@each("other mbarrier count", "mbarrier.init")
def _(s):
    return [with_changed(s, 1, "b32", f"add.s32 NEW, OLD, {n}") for n in (1, -1)]


# -- Copies and groups

drop(
    "drop copy",
    *_COPIES,
    "st.async",
    "red.async",
    where=lambda s: not {"commit_group", "wait_group", "prefetch"} & set(s.parts),
)
drop("drop commit", "cp.async.commit_group", "cp.async.bulk.commit_group", "wgmma.commit_group")
_GROUP_WAITS = ("cp.async.wait_group", "cp.async.bulk.wait_group", "wgmma.wait_group")
drop("drop wait_group", *_GROUP_WAITS, "cp.async.wait_all")


@each("wait for one group less", *_GROUP_WAITS)
def _(s):
    return _with_literals(s, (0,), lambda groups: groups + 1)


@each("other multicast", "cp.async.bulk", where=lambda s: "multicast::cluster" in s.parts)
def _(s):
    mask = len(s.operands) - (2 if "L2::cache_hint" in s.parts else 1)
    return [with_changed(s, mask, "b16", "sub.u16 NEW, OLD, 1; and.b16 NEW, NEW, OLD")]


@each("other mapa rank", "mapa")
def _(s):
    return [s.text(operands=s.with_operand(2, "1" if s.operands[2] == "0" else "0"))]


# -- wgmma

drop("drop wgmma.fence", "wgmma.fence")


@each("other wgmma scale", "wgmma.mma_async")
def _(s):
    if literal(s.operands[3]) is None:
        accumulates = [with_changed(s, 3, "pred", "not.pred NEW, OLD")]
    else:
        accumulates = _with_literals(s, (3,), lambda flag: 1 - flag)
    return accumulates + _with_literals(s, (4, 5), lambda sign: -sign)


@each("other wgmma major", "wgmma.mma_async")
def _(s):
    return _with_literals(s, range(6, len(s.operands)), lambda flag: 1 - flag)


def _descriptor(kind: str, first_bit: int, bits: int, change: Callable[[int], int]):
    """Enters a rule for a field of matrix descriptors, wherever a constant sets it."""

    def rule(ptx: PtxText) -> Iterator[Edits]:
        for s, index, value, shift in descriptor_constants(ptx):
            mask = (1 << bits) - 1
            field = value << shift >> first_bit & mask
            if not field or shift > first_bit:
                continue
            at = first_bit - shift
            new = value & ~(mask << at) | (change(field) & mask) << at
            yield {s: s.text(operands=s.with_operand(index, hex(new)))}

    CATALOGUE[kind] = rule


def _half(field: int) -> int:
    return field >> 1 or 2


_descriptor("other descriptor swizzle", 62, 2, lambda mode: mode % 3 + 1)
_descriptor("other descriptor stride", 32, 14, _half)
_descriptor("other descriptor leading", 16, 14, _half)

# -- Barriers


def _is_barrier(s: Statement) -> bool:
    return s.parts[0] in ("bar", "barrier") and s.parts[1] not in ("warp", "cluster")


def _syncs(s: Statement) -> bool:
    return _is_barrier(s) and "sync" in s.parts


def _counts(s: Statement) -> bool:
    return _is_barrier(s) and "red" not in s.parts and len(s.operands) == 2


drop("drop bar.sync", "bar", "barrier", where=_syncs)
drop("drop bar.arrive", "bar", "barrier", where=lambda s: _is_barrier(s) and "arrive" in s.parts)


@each("arrive, no wait", "bar", "barrier", where=_syncs)
def _(s):
    arrive = replaced(s, "arrive", "sync")
    if _counts(s):
        return [arrive]
    arrive = f"{arrive[:-1]}, mutated;"
    return [f"{{ .reg .b32 mutated, factor; {_THREADS_OF_CTA} {arrive} }}"]


@each("other barrier count", "bar", "barrier", where=_counts)
def _(s):
    return [with_changed(s, 1, "b32", f"add.s32 NEW, OLD, {n}") for n in (32, -32)]


@each("other barrier", "bar", "barrier", where=_counts)
def _(s):
    return [s.text(operands=s.with_operand(0, "1" if s.operands[0] == "0" else "0"))]


drop("drop bar.warp.sync", "bar.warp.sync")


def _drop_cluster_barrier(ptx: PtxText) -> Iterator[Edits]:
    """An arrive with the wait that comes next in the text: either alone is a trap."""
    arrive = None
    for s in ptx.statements:
        if s.starts("barrier.cluster.arrive"):
            arrive = s
        elif s.starts("barrier.cluster.wait") and arrive and arrive.function == s.function:
            yield {arrive: "", s: ""}
            arrive = None


CATALOGUE["drop barrier.cluster"] = _drop_cluster_barrier


@each("relaxed barrier.cluster", "barrier.cluster.arrive", where=_is_ordered)
def _(s):
    parts = without(s, "release")
    return [s.text(".".join([*parts[:3], "relaxed", *parts[3:]]))]


# -- Fences and strong accesses


def _is_fence(s: Statement) -> bool:
    return not {"proxy", "mbarrier_init"} & set(s.parts)


drop("drop fence.proxy", "fence.proxy", "membar.proxy")
drop("drop fence.mbarrier_init", "fence.mbarrier_init")
drop("drop fence", "fence", "membar", where=_is_fence)


@each("narrower fence", "fence", "membar", where=_is_fence)
def _(s):
    wide = {*_WIDE_SCOPES, "gl"} & set(s.parts)
    return [replaced(s, "cta", *wide)] if wide else []


_ACCESSES = ("ld", "st", "atom", "red")


@each("relaxed access", *_ACCESSES)
def _(s):
    strong = {"acquire", "release", "acq_rel"} & set(s.parts)
    return [replaced(s, "relaxed", *strong)] if strong else []


@each("weak access", "ld", "st", where=lambda s: "volatile" in s.parts)
def _(s):
    return [s.text(".".join(without(s, "volatile")))]


@each("narrower access", *_ACCESSES, where=lambda s: "async" not in s.parts)
def _(s):
    if any(p.startswith("shared") for p in s.parts) or "cta" in s.parts:
        return []
    wide = {*_WIDE_SCOPES} & set(s.parts)
    if wide:
        return [replaced(s, "cta", *wide)]
    if not s.starts("atom", "red"):  # which are relaxed and of the GPU if nothing is said
        return []
    order = 2 if s.parts[1] in ("relaxed", "acquire", "release", "acq_rel") else 1
    return [s.text(".".join([*s.parts[:order], "cta", *s.parts[order:]]))]


def _stores(s: Statement) -> bool:
    return not {"async", "local", "param", "bulk"} & set(s.parts)


drop("drop store", "st", "stmatrix", "red", where=_stores)


@each("drop atomic", "atom", where=lambda s: not s.operands[0].startswith("{"))
def _(s):
    result, type = s.operands[0], s.parts[-1]
    if result == "_":
        return [""]
    width = int(re.search(r"\d+", type)[0]) * (2 if type.endswith("x2") else 1)
    return [f"{s.guard}mov.b{width} {result}, 0;"]


# -- Addresses in shared memory


def _arithmetic(kind: str, opcode: str, replacements: Callable[[Statement], list[str]]):
    def rule(ptx: PtxText) -> Iterator[Edits]:
        for s in address_arithmetic(ptx, opcode):
            yield from ({s: after} for after in replacements(s))

    CATALOGUE[kind] = rule


_arithmetic(
    "drop address xor",
    "xor",
    lambda s: [f"{s.guard}mov.{s.parts[-1]} {s.operands[0]}, {s.operands[1]};"],
)
_arithmetic(
    "other address mask",
    "and",
    lambda s: _with_literals(s, (1, 2), lambda mask: mask & (mask - 1)),
)
_arithmetic("other address shift", "shl", lambda s: _with_literals(s, (2,), lambda by: by - 1))
