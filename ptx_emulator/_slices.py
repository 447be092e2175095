"""Backward slices of PTX: what addresses in shared memory and matrix descriptors are made of."""

from collections.abc import Iterator

from ._statements import PtxText, Statement, names_in

_ARITHMETIC = "add sub mul mad shl shr and or xor not neg bfi bfe lop3 min max mov cvt cvta selp"
_SHARED = ("ldmatrix", "stmatrix", "mbarrier", "cp.async.mbarrier", "cp.async.bulk", "mapa")
_ACCESSES = ("ld", "st", "atom", "red")
_CONSTANT_BITS = ("or", "add", "xor", "mov", "cvt", "shl")


def literal(operand: str) -> int | None:
    try:
        return int(operand.removesuffix("U"), 0)
    except ValueError:
        return None


def address_arithmetic(ptx: PtxText, opcode: str) -> list[Statement]:
    """The statements of that opcode on which addresses in shared memory depend, in order."""
    wanted = {
        (s.function, name) for s in ptx.statements for o in _shared_addresses(s) for name in o
    }
    seen, found = set(), set()
    while wanted:
        where = wanted.pop()
        seen.add(where)
        for s in ptx.definitions(*where):
            if s.parts[0] not in _ARITHMETIC.split():
                continue
            if s.parts[0] == opcode:
                found.add(s)
            for operand in s.operands[1:]:
                wanted.update({(s.function, name) for name in names_in(operand)} - seen)
    return sorted(found, key=lambda s: s.begin)


def _shared_addresses(s: Statement) -> list[list[str]]:
    """The names in each operand of the statement that is, or makes, an address in shared memory."""
    if s.starts("wgmma.mma_async"):
        return [names_in(s.operands[i]) for i in (1, 2) if "{" not in s.operands[i]]
    if s.starts("mapa"):
        return [names_in(s.operands[1])]
    in_shared = s.starts(*_SHARED) or (
        s.starts(*_ACCESSES) and any(p.startswith("shared") for p in s.parts)
    )
    if s.starts("cp.async.ca", "cp.async.cg"):
        return [names_in(s.operands[0])]
    # A tensor map's coordinates are no part of its address.
    return [names_in(o.split("{")[0]) for o in s.operands if in_shared and o.startswith("[")]


def descriptor_constants(ptx: PtxText) -> Iterator[tuple[Statement, int, int, int]]:
    """The constants that go into matrix descriptors of wgmma: statement, index of the operand,
    value, and by how many bits it is shifted left in the descriptor."""
    wanted = {
        (s.function, name, 0)
        for s in ptx.statements
        if s.starts("wgmma.mma_async")
        for operand in s.operands[1:3]
        if "{" not in operand
        for name in names_in(operand)
    }
    seen, found = set(), set()
    while wanted:
        where = wanted.pop()
        seen.add(where)
        function, name, shift = where
        for s in ptx.definitions(function, name):
            if s.parts[0] not in _CONSTANT_BITS:
                continue
            for index, operand, by in _contributions(s):
                value = literal(operand)
                if value is None:
                    wanted.update({(function, n, shift + by) for n in names_in(operand)} - seen)
                elif s.parts[0] != "shl":
                    bits = int("".join(filter(str.isdigit, s.parts[-1])) or 64)
                    found.add((s, index, value % (1 << bits), shift + by))
    return iter(sorted(found, key=lambda f: (f[0].begin, f[1:])))


def _contributions(s: Statement) -> list[tuple[int, str, int]]:
    """Index, text and left shift of each source of a statement that only joins bits."""
    source = s.operands[1]
    if s.parts[0] == "shl":
        return [(1, source, literal(s.operands[2]) or 0)]
    if source.startswith("{"):  # a vector: halves, lowest first
        parts = [o.strip() for o in source.strip("{}").split(",")]
        width = int(s.parts[-1][1:]) // len(parts)
        return [(1, part, i * width) for i, part in enumerate(parts) if literal(part) is None]
    return [(i, o, 0) for i, o in enumerate(s.operands[1:], 1)]
