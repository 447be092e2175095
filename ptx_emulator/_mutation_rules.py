"""What the mutator's catalogue is written with: rules that find statements and say what may replace
them."""

from collections.abc import Callable, Iterator

from ._statements import PtxText, Statement

# What becomes of statements; mostly of one.
Edits = dict[Statement, str]
Rule = Callable[[PtxText], Iterator[Edits]]
CATALOGUE: dict[str, Rule] = {}


def each(kind: str, *opcodes: str, where: Callable[[Statement], bool] = lambda s: True):
    """Enters a rule that maps a statement with one of these opcodes to what may replace it."""

    def enter(replacements: Callable[[Statement], list[str]]):
        def rule(ptx: PtxText) -> Iterator[Edits]:
            for s in ptx.statements:
                if s.starts(*opcodes) and where(s):
                    yield from ({s: after} for after in replacements(s))

        CATALOGUE[kind] = rule
        return replacements

    return enter


def drop(kind: str, *opcodes: str, where: Callable[[Statement], bool] = lambda s: True):
    each(kind, *opcodes, where=where)(lambda s: [""])


def with_changed(s: Statement, index: int, type: str, operation: str) -> str:
    """The statement with an operand replaced by a function of it, "xor.b32 NEW, OLD, 1"."""
    compute = operation.replace("NEW", "mutated").replace("OLD", s.operands[index])
    changed = s.text(operands=s.with_operand(index, "mutated"))
    return f"{{ .reg .{type} mutated; {compute}; {changed} }}"


def without(s: Statement, *modifiers: str) -> list[str]:
    return [p for p in s.parts if p not in modifiers]


def replaced(s: Statement, by: str, *modifiers: str) -> str:
    return s.text(".".join(by if p in modifiers else p for p in s.parts))
