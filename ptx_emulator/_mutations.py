"""Mutations of PTX, a line at a time, by the catalogue; see docs/mutations.md."""

from dataclasses import dataclass

from ._catalogue import CATALOGUE
from ._mutation_rules import Edits
from ._statements import PtxText


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
