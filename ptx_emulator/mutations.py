"""The mutator's catalogue: what to change in PTX, a line at a time; see docs/mutations.md."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .slices import address_arithmetic, descriptor_constants
from .statements import PtxText, Statement

# What becomes of statements; mostly of one.
Edits = dict[Statement, str]

_COPIES = ("cp.async.ca", "cp.async.cg", "cp.async.bulk", "cp.reduce.async.bulk")
_WAITS = ("mbarrier.try_wait", "mbarrier.test_wait")
_ARRIVES = ("mbarrier.arrive", "mbarrier.arrive_drop")
_WIDE_SCOPES = ("cluster", "gpu", "sys")
_THREADS_OF_CTA = (
    "mov.u32 mutated, %ntid.x; mov.u32 factor, %ntid.y; mul.lo.u32 mutated, mutated, factor; "
    "mov.u32 factor, %ntid.z; mul.lo.u32 mutated, mutated, factor; "
    "add.u32 mutated, mutated, 31; and.b32 mutated, mutated, -32;"
)


@dataclass(frozen=True)
class Mutation:
    kind: str
    line: int  # of the PTX
    before: str
    after: str
    source: tuple[tuple[str, int], ...]  # Statement.source_of
    edits: tuple[tuple[int, int, str], ...]

    def apply(self, text: str) -> str:
        for begin, end, replacement in sorted(self.edits, reverse=True):
            text = text[:begin] + replacement + text[end:]
        return text


def mutations(ptx: str) -> list[Mutation]:
    """Every mutation of the catalogue, in the order of the text."""
    parsed = PtxText(ptx)
    found = [
        _mutation(parsed, kind, edits) for kind, rule in CATALOGUE.items() for edits in rule(parsed)
    ]
    return sorted(found, key=lambda m: m.line)


def _mutation(ptx: PtxText, kind: str, edits: Edits) -> Mutation:
    first = next(iter(edits))
    return Mutation(
        kind,
        first.line,
        " ".join(s.text() for s in edits),
        " ".join(filter(None, edits.values())),
        ptx.source_of(first),
        tuple((s.begin, s.end, after) for s, after in edits.items()),
    )


Rule = Callable[[PtxText], Iterator[Edits]]
CATALOGUE: dict[str, Rule] = {}


def _each(kind: str, *opcodes: str, where: Callable[[Statement], bool] = lambda s: True):
    """Enters a rule that maps a statement with one of these opcodes to what may replace it."""

    def enter(replacements: Callable[[Statement], list[str]]):
        def rule(ptx: PtxText) -> Iterator[Edits]:
            for s in ptx.statements:
                if s.starts(*opcodes) and where(s):
                    yield from ({s: after} for after in replacements(s))

        CATALOGUE[kind] = rule
        return replacements

    return enter


def _drop(kind: str, *opcodes: str, where: Callable[[Statement], bool] = lambda s: True):
    _each(kind, *opcodes, where=where)(lambda s: [""])


def _with_changed(s: Statement, index: int, type: str, operation: str) -> str:
    """The statement with an operand replaced by a function of it, "xor.b32 NEW, OLD, 1"."""
    compute = operation.replace("NEW", "mutated").replace("OLD", s.operands[index])
    changed = s.text(operands=s.with_operand(index, "mutated"))
    return f"{{ .reg .{type} mutated; {compute}; {changed} }}"


def _without(s: Statement, *modifiers: str) -> list[str]:
    return [p for p in s.parts if p not in modifiers]


def _replaced(s: Statement, by: str, *modifiers: str) -> str:
    return s.text(".".join(by if p in modifiers else p for p in s.parts))


def _one_more(s: Statement) -> list[str]:
    return [s.text(operands=[str(int(s.operands[0], 0) + 1)])] if s.operands else []


# -- mbarriers


@_each("never wait for mbarrier", *_WAITS)
def _(s):
    return [f"{s.guard}mov.pred {s.operands[0]}, 1;"]


@_each("other parity", *_WAITS, where=lambda s: "parity" in s.parts)
def _(s):
    return [_with_changed(s, 2, "b32", "xor.b32 NEW, OLD, 1")]


@_each("relaxed wait", *_WAITS)
def _(s):
    return [_relaxed(s)]


@_each("relaxed arrive", *_ARRIVES)
def _(s):
    return [_relaxed(s)]


def _relaxed(s: Statement) -> str:
    if {"acquire", "release"} & set(s.parts):
        return _replaced(s, "relaxed", "acquire", "release")
    space = next(i for i, p in enumerate(s.parts) if p.startswith("shared") or p == "b64")
    return s.text(".".join([*s.parts[:space], "relaxed", "cta", *s.parts[space:]]))


_drop("drop arrive", *_ARRIVES, "cp.async.mbarrier.arrive")


@_each("arrive without expect_tx", *_ARRIVES, where=lambda s: "expect_tx" in s.parts)
def _(s):
    return [s.text(".".join(_without(s, "expect_tx")), s.operands[:-1])]


_drop("drop expect_tx", "mbarrier.expect_tx")


@_each("other expect_tx", *_ARRIVES, "mbarrier.expect_tx", where=lambda s: "expect_tx" in s.parts)
def _(s):
    last = len(s.operands) - 1
    return [_with_changed(s, last, "b32", f"add.s32 NEW, OLD, {n}") for n in (16, -16)]


_drop("drop mbarrier.init", "mbarrier.init")


@_each("other mbarrier count", "mbarrier.init")
def _(s):
    return [_with_changed(s, 1, "b32", f"add.s32 NEW, OLD, {n}") for n in (1, -1)]


# -- Copies and groups

_drop(
    "drop copy",
    *_COPIES,
    "st.async",
    "red.async",
    where=lambda s: not {"commit_group", "wait_group", "prefetch"} & set(s.parts),
)
_drop("drop commit", "cp.async.commit_group", "cp.async.bulk.commit_group", "wgmma.commit_group")
_GROUP_WAITS = ("cp.async.wait_group", "cp.async.bulk.wait_group", "wgmma.wait_group")
_drop("drop wait_group", *_GROUP_WAITS, "cp.async.wait_all")
_each("wait for one group less", *_GROUP_WAITS)(_one_more)


@_each("other multicast", "cp.async.bulk", where=lambda s: "multicast::cluster" in s.parts)
def _(s):
    mask = len(s.operands) - (2 if "L2::cache_hint" in s.parts else 1)
    return [_with_changed(s, mask, "b16", "sub.u16 NEW, OLD, 1; and.b16 NEW, NEW, OLD")]


@_each("other mapa rank", "mapa")
def _(s):
    return [s.text(operands=s.with_operand(2, "1" if s.operands[2] == "0" else "0"))]


# -- wgmma

_drop("drop wgmma.fence", "wgmma.fence")


@_each("other wgmma scale", "wgmma.mma_async")
def _(s):
    scale_d = s.operands[3]
    if scale_d.isdigit():
        changed = [s.text(operands=s.with_operand(3, str(1 - int(scale_d))))]
    else:
        changed = [_with_changed(s, 3, "pred", "not.pred NEW, OLD")]
    for i in (4, 5):
        if len(s.operands) > i:
            changed.append(s.text(operands=s.with_operand(i, str(-int(s.operands[i])))))
    return changed


@_each("other wgmma major", "wgmma.mma_async")
def _(s):
    majors = range(6, len(s.operands))
    return [s.text(operands=s.with_operand(i, str(1 - int(s.operands[i])))) for i in majors]


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


_drop("drop bar.sync", "bar", "barrier", where=_syncs)
_drop("drop bar.arrive", "bar", "barrier", where=lambda s: _is_barrier(s) and "arrive" in s.parts)


@_each("arrive, no wait", "bar", "barrier", where=_syncs)
def _(s):
    arrive = _replaced(s, "arrive", "sync")
    if _counts(s):
        return [arrive]
    arrive = f"{arrive[:-1]}, mutated;"
    return [f"{{ .reg .b32 mutated, factor; {_THREADS_OF_CTA} {arrive} }}"]


@_each("other barrier count", "bar", "barrier", where=_counts)
def _(s):
    return [_with_changed(s, 1, "b32", f"add.s32 NEW, OLD, {n}") for n in (32, -32)]


@_each("other barrier", "bar", "barrier", where=_counts)
def _(s):
    return [s.text(operands=s.with_operand(0, "1" if s.operands[0] == "0" else "0"))]


_drop("drop bar.warp.sync", "bar.warp.sync")


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


@_each(
    "relaxed barrier.cluster", "barrier.cluster.arrive", where=lambda s: "relaxed" not in s.parts
)
def _(s):
    parts = _without(s, "release")
    return [s.text(".".join([*parts[:3], "relaxed", *parts[3:]]))]


# -- Fences and strong accesses


def _is_fence(s: Statement) -> bool:
    return not {"proxy", "mbarrier_init"} & set(s.parts)


_drop("drop fence.proxy", "fence.proxy", "membar.proxy")
_drop("drop fence.mbarrier_init", "fence.mbarrier_init")
_drop("drop fence", "fence", "membar", where=_is_fence)


@_each("narrower fence", "fence", "membar", where=_is_fence)
def _(s):
    wide = {*_WIDE_SCOPES, "gl"} & set(s.parts)
    return [_replaced(s, "cta", *wide)] if wide else []


_ACCESSES = ("ld", "st", "atom", "red")


@_each("relaxed access", *_ACCESSES)
def _(s):
    strong = {"acquire", "release", "acq_rel"} & set(s.parts)
    return [_replaced(s, "relaxed", *strong)] if strong else []


@_each("weak access", "ld", "st", where=lambda s: "volatile" in s.parts)
def _(s):
    return [s.text(".".join(_without(s, "volatile")))]


@_each("narrower access", *_ACCESSES, where=lambda s: "async" not in s.parts)
def _(s):
    if any(p.startswith("shared") for p in s.parts) or "cta" in s.parts:
        return []
    wide = {*_WIDE_SCOPES} & set(s.parts)
    if wide:
        return [_replaced(s, "cta", *wide)]
    if not s.starts("atom", "red"):  # which are relaxed and of the GPU if nothing is said
        return []
    order = 2 if s.parts[1] in ("relaxed", "acquire", "release", "acq_rel") else 1
    return [s.text(".".join([*s.parts[:order], "cta", *s.parts[order:]]))]


def _stores(s: Statement) -> bool:
    return not {"async", "local", "param", "bulk"} & set(s.parts)


_drop("drop store", "st", "stmatrix", "red", where=_stores)


@_each("drop atomic", "atom")
def _(s):
    result, type = s.operands[0], s.parts[-1]
    if result == "_":
        return [""]
    width = int(re.search(r"\d+", type)[0]) * (2 if type.endswith("x2") else 1)
    return [f"{s.guard}mov.b{width} {result}, 0;"]


# -- Addresses in shared memory


def _arithmetic(kind: str, opcode: str, change: Callable[[Statement, int], str | None]):
    def rule(ptx: PtxText) -> Iterator[Edits]:
        for s, constant in address_arithmetic(ptx, opcode):
            if (after := change(s, constant)) is not None:
                yield {s: after}

    CATALOGUE[kind] = rule


def _narrower_mask(s: Statement, constant: int | None) -> str | None:
    if constant is None:
        return None
    index = next(i for i in (1, 2) if s.operands[i].lstrip("-")[0].isdigit())
    return s.text(operands=s.with_operand(index, str(constant & (constant - 1))))


_arithmetic(
    "drop address xor",
    "xor",
    lambda s, c: f"{s.guard}mov.{s.parts[-1]} {s.operands[0]}, {s.operands[1]};",
)
_arithmetic("other address mask", "and", _narrower_mask)
_arithmetic(
    "other address shift",
    "shl",
    lambda s, c: s.text(operands=s.with_operand(2, str(c - 1))) if c else None,
)
