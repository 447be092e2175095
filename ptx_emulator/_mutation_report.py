"""What became of mutations."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ._catalogue import CATALOGUE
from ._mutations import Mutation

CAUGHT = ("race", "deadlock", "fault", "limit", "wrong value")


@dataclass(frozen=True)
class Verdict:
    """`outcome` is one of CAUGHT, "survived", "not loadable", or "broken": then neither kernel nor
    reference is to blame, but the emulator, or what ran it."""

    mutation: Mutation
    outcome: str
    text: str  # the first error
    caught: int  # in how many of the runs
    runs: int

    def as_dict(self) -> dict:
        m = self.mutation
        return {
            "kind": m.kind,
            "line": m.line,
            "source": [f"{file}:{line}" for file, line in m.source],
            "before": m.before,
            "after": m.after,
            "text": self.text,
        }

    def __str__(self) -> str:
        m = self.mutation
        source = " from ".join(f"{os.path.basename(file)}:{line}" for file, line in m.source)
        place = f"PTX line {m.line}" + (f", {source}" if source else "")
        lines = [f"{m.kind} at {place}", f"  - {m.before}"]
        lines += [f"  + {m.after}"] if m.after else []
        lines += [f"  {line}" for line in self.text.splitlines()[:4]]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    verdicts: Sequence[Verdict]  # in the order of the text
    every_run: bool = False  # whether all schedules ran, or none after the first that caught it

    @property
    def survivors(self) -> list[Verdict]:
        return self._of("survived")

    @property
    def not_loadable(self) -> list[Verdict]:
        return self._of("not loadable")

    @property
    def broken(self) -> list[Verdict]:
        return self._of("broken")

    def _of(self, outcome: str) -> list[Verdict]:
        return [v for v in self.verdicts if v.outcome == outcome]

    def counts(self) -> dict[str, dict[str, int]]:
        """For each kind, in the catalogue's order: how many loaded, how many were caught, in every
        run, and how."""
        table = {}
        for kind in CATALOGUE:
            judged = [
                v for v in self.verdicts if v.mutation.kind == kind and v.outcome != "not loadable"
            ]
            if not judged:
                continue
            outcomes = Counter(v.outcome for v in judged)
            table[kind] = {
                "n": len(judged),
                "caught": sum(outcomes[o] for o in CAUGHT),
                **{o: outcomes[o] for o in CAUGHT},
            }
            if self.every_run:
                always = [v for v in judged if v.outcome in CAUGHT and v.caught == v.runs]
                table[kind]["every run"] = len(always)
        return table

    def as_dict(self) -> dict:
        lists = {name: [v.as_dict() for v in verdicts] for name, verdicts in self._lists()}
        return {"counts": self.counts(), **lists}

    def text(self) -> str:
        table = self.counts()
        total = sum((Counter(row) for row in table.values()), Counter())
        columns = ["n", "caught", *CAUGHT, *(["every run"] if self.every_run else [])]
        rows = {"mutation": {c: c for c in columns}, **table, "total": total}
        lines = [_row(name, row, columns) for name, row in rows.items()]
        for name, verdicts in self._lists():
            if verdicts:
                lines += ["", f"{name}:", *map(str, verdicts)]
        return "\n".join(lines)

    def _lists(self) -> list[tuple[str, list[Verdict]]]:
        return [
            ("survivors", self.survivors),
            ("not loadable", self.not_loadable),
            ("broken", self.broken),
        ]


def _row(name: str, cells: dict, columns: Sequence[str]) -> str:
    return f"{name:26}" + "".join(f"{cells[c]:>{max(len(c), 6) + 2}}" for c in columns)
