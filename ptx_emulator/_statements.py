"""PTX text as statements with their places, for who changes single lines of it."""

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_BETWEEN = re.compile(r"[\s{}(),]+")
_LABEL = re.compile(r"[\w$%]+\s*:(?!:)")
# Modifiers may stand apart from their opcode.
_INSTRUCTION = re.compile(r"(@\s*!?\s*[\w$%]+\s+)?([a-z]\w*(?:\s*\.[\w:]+)*)\s*([^;]*);")
_FILE = re.compile(r'\.file\s+(\d+)\s+"([^"]*)"')
_LOC = re.compile(r"\.loc\s+(\d+)\s+(\d+)\s+(\d+)(?:.*inlined_at\s+(\d+)\s+(\d+)\s+(\d+))?")
_NAME = re.compile(r"[%$_a-zA-Z][\w$%.]*")


@dataclass(frozen=True)
class Statement:
    """An instruction: guard, opcode with modifiers, operands."""

    begin: int  # in the text; the end is behind the semicolon
    end: int
    line: int
    function: int  # its index in the module
    guard: str  # "@!%p1 " or ""
    opcode: str
    operands: tuple[str, ...]

    @property
    def parts(self) -> list[str]:
        return self.opcode.split(".")

    def starts(self, *opcodes: str) -> bool:
        return any(self.opcode == o or self.opcode.startswith(o + ".") for o in opcodes)

    def text(self, opcode: str | None = None, operands: tuple | list | None = None) -> str:
        listed = ", ".join(self.operands if operands is None else operands)
        return f"{self.guard}{opcode or self.opcode} {listed}".rstrip() + ";"

    def with_operand(self, index: int, operand: str) -> list[str]:
        changed = list(self.operands)
        changed[index] = operand
        return changed


@dataclass
class PtxText:
    text: str
    statements: list[Statement] = field(init=False)

    def __post_init__(self):
        self.code = _COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), self.text)
        self._lines = [0, *(m.end() for m in re.finditer("\n", self.text))]
        self._functions = [m.start() for m in re.finditer(r"\.(?:entry|func)\b", self.code)]
        self.statements = list(self._scan())

    def line_of(self, position: int) -> int:
        return bisect.bisect_right(self._lines, position)

    def _scan(self) -> Iterator[Statement]:
        code, at = self.code, 0
        while at < len(code):
            if between := _BETWEEN.match(code, at):
                at = between.end()
            elif code[at] == ".":  # a directive
                at = min(_find(code, "\n", at), _find(code, ";", at)) + 1
            elif label := _LABEL.match(code, at):
                at = label.end()
            elif found := _INSTRUCTION.match(code, at):
                yield Statement(
                    at,
                    found.end(),
                    self.line_of(at),
                    bisect.bisect_right(self._functions, at),
                    re.sub(r"\s+", "", found[1]) + " " if found[1] else "",
                    re.sub(r"\s+", "", found[2]),
                    _operands(found[3]),
                )
                at = found.end()
            else:
                at = _find(code, "\n", at)

    @cached_property
    def _locations(self) -> tuple[list[int], list[tuple]]:
        files = dict(_FILE.findall(self.code))
        callers, places, frames = {}, [], []
        for m in _LOC.finditer(self.code):
            here, caller = m.group(1, 2, 3), m.group(4, 5, 6)
            callers[here] = caller if caller[0] else None
            chain = []
            while here and len(chain) < 64:
                chain.append((files.get(here[0], ""), int(here[1])))
                here = callers.get(here)
            places.append(m.start())
            frames.append(tuple(chain))
        return places, frames

    def source_of(self, s: Statement) -> tuple[tuple[str, int], ...]:
        """File and line by -lineinfo, then those of the calls that were inlined."""
        places, frames = self._locations
        i = bisect.bisect_right(places, s.begin)
        return frames[i - 1] if i else ()

    @cached_property
    def _definitions(self) -> dict[tuple[int, str], list[Statement]]:
        found = {}
        for s in self.statements:
            for name in names_in(s.operands[0]) if s.operands else ():
                found.setdefault((s.function, name), []).append(s)
        return found

    def definitions(self, function: int, name: str) -> list[Statement]:
        """The statements whose first operand names the register."""
        return self._definitions.get((function, name), [])


def names_in(operand: str) -> list[str]:
    return _NAME.findall(operand)


def _find(code: str, what: str, at: int) -> int:
    found = code.find(what, at)
    return len(code) if found < 0 else found


def _operands(text: str) -> tuple[str, ...]:
    """The operands between the commas that are in no brackets."""
    operands, depth, begin = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "[{(") - (c in "]})")
        if c == "," and depth == 0:
            operands.append(text[begin:i])
            begin = i + 1
    operands.append(text[begin:])
    return tuple(" ".join(o.split()) for o in operands if o.strip())
