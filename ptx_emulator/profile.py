"""The profile of a launch: what it executed and, if asked for, what it did to memory."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import numpy as np

from . import _bounds, _profile_report
from ._counts import PATHS, Counts
from ._instructions import CLASSES
from ._roles import LoopOfRole, Role, find_roles, named_roles
from ._tensor_work import tensor_operation
from .machine_model import LABEL, MachineModel, model_of


class Profile:
    """What a launch counted. `as_dict` is plain data, the same for the same module, inputs, mode
    and seed; `report` and `table` are for people."""

    def __init__(self, launch: dict, count: Callable[[], Counts], unique: dict | None):
        self._launch, self._count, self._unique = launch, count, unique

    def with_roles(self, roles: Mapping[str, Iterable[int]]) -> "Profile":
        """The same with roles that the caller knows: {"math": range(8), "tma": [8]}."""
        other = Profile(self._launch, lambda: self.counts, self._unique)
        other.roles = named_roles(self.counts, self.counts.loops, roles)
        return other

    @cached_property
    def counts(self) -> Counts:
        return self._count()

    @property
    def has_memory(self) -> bool:
        return self._unique is not None

    @cached_property
    def roles(self) -> list[Role]:
        return find_roles(self.counts, self.counts.loops)

    def as_dict(self) -> dict:
        return {
            "launch": dict(self._launch),
            "instructions": int(self.counts.issued.sum()),
            "classes": self._classes(self.counts.issued.sum(axis=0)),
            "failed_polls": int((self.counts.issued - self.counts.values).sum()),
            "roles": [self._role(role) for role in self.roles],
            "lines": self.lines,
            "sources": self.sources,
            "tensor": self.tensor,
            "memory": self.memory,
            "bounds": self.bounds,
        }

    def table(self) -> str:
        """Instructions by role and class."""
        return _profile_report.table(self.as_dict())

    def report(self, lines: int = 10) -> str:
        """All of it, with so many of the hottest lines."""
        return _profile_report.report(self.as_dict(), lines)

    @cached_property
    def lines(self) -> list[dict]:
        """The instructions that ran, in the order of the program."""
        counts, out = self.counts, []
        by_role = {role.name: counts.issued[list(role.warps)].sum(axis=0) for role in self.roles}
        totals = {name: a.sum(axis=0) for name, a in (counts.accesses or {}).items()}
        for i, pc in enumerate(counts.pcs):
            at = counts.code[pc]
            entry = {
                "line": at.line,
                "opcode": at.opcode,
                "class": at.kind,
                "source": at.source,
                "count": int(counts.issued[:, i].sum()),
                "by_role": {name: int(of[i]) for name, of in by_role.items() if of[i]},
                "predicated_off": int(counts.skipped[:, i].sum()),
            }
            entry |= {name: int(a[i]) for name, a in totals.items() if a[i]}
            out.append(entry)
        return out

    @cached_property
    def sources(self) -> dict[str, int]:
        """Instructions by line of the source, the hottest first; empty without -lineinfo."""
        total: Counter = Counter()
        for line in self.lines:
            if line["source"]:
                total[line["source"]] += line["count"]
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    @cached_property
    def tensor(self) -> dict:
        """Operations of the tensor core by shape and type."""
        executed = (self.counts.issued - self.counts.skipped).sum(axis=0)
        found: dict[str, dict] = {}
        for pc, count in zip(self.counts.pcs, executed, strict=True):
            if not (op := tensor_operation(self.counts.code[pc].opcode)) or not count:
                continue
            entry = found.setdefault(f"{op.name} {op.shape} {op.types}", {"count": 0, "flops": 0})
            entry["count"] += int(count) // op.warps
            entry["flops"] += int(count) // op.warps * op.flops
        operations = dict(sorted(found.items()))
        return {
            "flops": sum(entry["flops"] for entry in operations.values()),
            "operations": operations,
        }

    @cached_property
    def memory(self) -> dict | None:
        """Bytes by path and bank conflicts; None unless the launch was asked to look."""
        if not self.has_memory:
            return None
        shared: dict[str, Counter] = {}
        paths: dict[str, Counter] = {path: Counter() for path in PATHS}
        local = 0
        for line in self.lines:
            local += line.get("local", 0)
            name = _mechanism(line["opcode"])
            for path, part in _shared_parts(name, line):
                shared.setdefault(path, Counter()).update(part)
            for counter in ("global_requests", "global_read", "global_written", "sectors"):
                paths[_global_path(name)][counter] += line.get(counter, 0)
        total: Counter = sum(paths.values(), Counter())
        return {
            "global": {
                path: {
                    "requests": of["global_requests"],
                    "sectors": of["sectors"],
                    "read_bytes": of["global_read"],
                    "written_bytes": of["global_written"],
                    **self._unique[path],
                }
                for path, of in {**paths, "all": total}.items()
            },
            "shared": {path: dict(sorted(of.items())) for path, of in sorted(shared.items())},
            "local_bytes": local,
            "bank_conflicts": self._conflicts(),
        }

    @cached_property
    def bounds(self) -> dict | None:
        """Cycles of a CTA by unit; None without memory, or without a model of the machine."""
        model = self._model
        if not model:
            return None
        ctas = int(np.prod(self._launch["grid"]))
        everything = np.ones_like(self.counts.issued, bool)
        in_loops = np.zeros_like(everything)
        for role in self.roles:
            if role.main:
                main = role.main.loop
                in_loops |= self._inside(role, main.pcs | main.remainder)
            else:  # they may be unrolled
                in_loops[list(role.warps)] = True
        out = {
            "label": LABEL,
            "machine": model.name,
            "cta": _bounds.per(_bounds.cycles(model, self.counts, everything), ctas),
            "loops": None,
        }
        if leader := self._leader():
            iterations = leader.main.iterations + leader.main.remainder
            out["loops"] = {
                "unit": f"CTA and iteration of {leader.name}",
                "iterations_per_cta": iterations / ctas,
                **_bounds.per(_bounds.cycles(model, self.counts, in_loops), iterations),
            }
        return out

    @cached_property
    def _model(self) -> MachineModel | None:
        """What bounds are computed with; None if they can't be."""
        model = model_of(self._launch["target"])
        if not model or not self.has_memory or not _bounds.has_rates(model, self.counts):
            return None
        return model

    def _leader(self) -> Role | None:
        """The role whose main loop works most: on the tensor core, if any does."""
        with_loop = [role for role in self.roles if role.main]

        def rank(role: Role):
            kinds = {self.counts.code[pc].kind for pc in role.main.loop.pcs}
            return "tensor" in kinds, role.main.instructions

        return max(with_loop, key=rank, default=None)

    def _inside(self, role: Role, pcs: Iterable[int]) -> np.ndarray:
        where = np.zeros_like(self.counts.issued, bool)
        where[np.ix_(role.warps, self.counts.columns(pcs))] = True
        return where

    def _role(self, role: Role) -> dict:
        rows = list(role.warps)
        issued = self.counts.issued[rows].sum(axis=0)
        return {
            "name": role.name,
            "warps": rows,
            "instructions": int(issued.sum()),
            "classes": self._classes(issued),
            "loops": [self._loop(role, loop) for loop in role.loops],
        }

    def _loop(self, role: Role, of: LoopOfRole) -> dict:
        """Counts of inner loops are left out, but for those that wait."""
        code, loop = self.counts.code, of.loop
        values = (self.counts.values * self.counts.columns(loop.own))[list(role.warps)].sum(axis=0)
        n = of.iterations * len(role.warps)
        lines = [code[pc].line for pc in loop.pcs]
        out = {
            "line": code[loop.header].line,
            "last_line": max(lines),
            "source": code[loop.latches[-1]].source,
            "is_main": of.is_main,
            "inside": code[loop.parent.header].line if loop.parent else None,
            "iterations_per_warp": round(of.iterations, 3),
            "remainder_per_warp": round(of.remainder, 3),
            "instructions": of.instructions,
            "per_iteration": {k: round(v / n, 3) for k, v in self._classes(values).items()},
            "bound": None,
        }
        if self._model and of.is_main:
            bound = _bounds.cycles(self._model, self.counts, self._inside(role, loop.pcs))
            out["bound"] = _bounds.per(bound, of.iterations)
        return out

    def _classes(self, by_column: np.ndarray) -> dict[str, int]:
        kinds = np.array([self.counts.code[pc].kind for pc in self.counts.pcs])
        total = {kind: int(by_column[kinds == kind].sum()) for kind in CLASSES}
        return {kind: count for kind, count in total.items() if count}

    def _conflicts(self) -> dict:
        lines = [
            {name: line[name] for name in ("line", "opcode", "source", "wavefronts")}
            | {"ideal": line["ideal_wavefronts"]}
            for line in self.lines
            if line.get("wavefronts")
        ]
        return {
            "wavefronts": sum(line["wavefronts"] for line in lines),
            "ideal": sum(line["ideal"] for line in lines),
            "lines": [line for line in lines if line["wavefronts"] > line["ideal"]],
        }


def _mechanism(opcode: str) -> str:
    words = opcode.split(".")
    if words[0] in ("cp", "st", "red") and "async" in words[:3]:
        return "bulk" if "bulk" in words else "cp.async" if words[0] == "cp" else "st.async"
    return {"ldu": "ld", "atom": "atomic", "red": "atomic"}.get(words[0], words[0])


def _global_path(mechanism: str) -> str:
    return {"bulk": "bulk", "cp.async": "copy", "atomic": "atomic"}.get(mechanism, "direct")


def _shared_parts(mechanism: str, line: dict) -> Iterable[tuple[str, dict]]:
    names = ("shared_read", "shared_written", "remote_read", "remote_written")
    moved = {name.replace("shared_", ""): line[name] for name in names if line.get(name)}
    if mechanism == "wgmma" and moved:
        of_b = tensor_operation(line["opcode"]).bytes_b // 4
        of_b *= line["count"] - line["predicated_off"]
        yield "wgmma A", {"read": moved["read"] - of_b}
        yield "wgmma B", {"read": of_b}
    elif moved:
        yield mechanism, moved
