"""Natural loops of decoded functions."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import takewhile

from ._flow import Flow
from ._instructions import Instruction

_MOST_OF_WAIT = 24  # instructions of a loop that only waits
# What has effects beyond registers: a compiler that copies a loop's body copies all of it.
EFFECTS = {"sts", "stg", "tensor", "copy", "atomics", "sync"}


@dataclasses.dataclass
class Loop:
    header: int  # pc
    pcs: frozenset[int]  # inner loops' included
    latches: tuple[int, ...]  # the last instructions of the blocks that jump back
    always: frozenset[int]  # pcs that each iteration executes
    waits: bool = False  # polls for something and does nothing else
    remainder: frozenset[int] = frozenset()  # pcs outside, if it was unrolled
    weights: dict[int, int] = dataclasses.field(default_factory=dict)  # by pc, to count iterations
    parent: "Loop | None" = None
    children: list["Loop"] = dataclasses.field(default_factory=list)

    @property
    def own(self) -> frozenset[int]:
        """Its instructions outside inner loops, but for those that wait."""
        inner = [child.pcs for child in self.children if not child.waits]
        return self.pcs.difference(*inner)


def find_loops(code: Sequence[Instruction]) -> list[Loop]:
    """The loops of all functions, outer ones first. Cycles that are entered in more than one place
    are no natural loops and are left out."""
    found = []
    first = 0
    while first < len(code):
        last = first
        while last < len(code) and code[last].function == code[first].function:
            last += 1
        found += _Function(code, first, last).loops()
        first = last
    return found


class _Function:
    """The instructions [first, last)."""

    def __init__(self, code: Sequence[Instruction], first: int, last: int):
        self.code, self.flow = code, Flow(code, first, last)
        self.block_of = {
            pc: block for block, of in enumerate(self.flow.ranges) for pc in range(*of)
        }

    def loops(self) -> list[Loop]:
        latches: dict[int, list[int]] = {}
        for block, following in enumerate(self.flow.successors):
            for to in following:
                if self.flow.dominates(to, block):
                    latches.setdefault(to, []).append(block)
        made = [self._loop(header, sources) for header, sources in latches.items()]
        made.sort(key=lambda loop: (-len(loop.pcs), loop.header))
        for i, loop in enumerate(made):
            around = [other for other in made[:i] if loop.pcs < other.pcs]
            if around:
                loop.parent = min(around, key=lambda other: len(other.pcs))
                loop.parent.children.append(loop)
        for loop in made:
            loop.waits = not loop.children and self._only_waits(loop)
        for loop in made:
            loop.weights = self._weights(loop)
            if not loop.waits:
                loop.remainder = self._remainder(loop)
        return made

    def _loop(self, header: int, latches: list[int]) -> Loop:
        flow = self.flow
        body, left = {header}, list(latches)
        while left:
            block = left.pop()
            if block not in body:
                body.add(block)
                left += flow.predecessors[block]
        always = [b for b in body if all(flow.dominates(b, latch) for latch in latches)]
        return Loop(
            flow.ranges[header][0],
            flow.pcs(body),
            tuple(sorted(flow.ranges[latch][1] - 1 for latch in latches)),
            flow.pcs(always),
        )

    def _only_waits(self, loop: Loop) -> bool:
        if len(loop.pcs) > _MOST_OF_WAIT:
            return False
        waits = False
        for pc in loop.pcs:
            if _polls(self.code[pc].opcode):
                waits = True
            elif self.code[pc].kind in EFFECTS:
                return False
        return waits

    def _weights(self, loop: Loop) -> dict[int, int]:
        """How much of an iteration the instructions stand for that every way round passes: each for
        itself, and the last one before an inner loop for that, too."""
        own = loop.own & loop.always
        weights = dict.fromkeys(own, 1)
        for child in loop.children:
            if not child.waits and child.header in loop.always:
                around = self.flow.dominators(self.block_of[child.header])
                before = (self.flow.ranges[block][1] - 1 for block in around)
                weights[next(pc for pc in before if pc in own)] += len(child.pcs)
        return weights

    def _remainder(self, loop: Loop) -> frozenset[int]:
        """What is left of the iterations of an unrolled loop: the most that a region around it
        holds besides, with the effects of a part of its body."""
        found, most = frozenset(), 0
        body = Counter(self._effects_of(loop.pcs))
        for rest in self._besides(loop) if body else ():
            effects = Counter(self._effects_of(rest))
            if any(n >= body[opcode] for opcode, n in effects.items()):
                break  # larger regions have these, too
            parts = {Fraction(effects[opcode], n) for opcode, n in body.items()}
            if len(parts) == 1 and effects.total() > most:
                found, most = rest, effects.total()
        return found

    def _besides(self, loop: Loop) -> Iterator[frozenset[int]]:
        """What regions around a loop hold besides, the smallest first. A region begins with the
        loop, or behind a guard that may pass it by, and ends where all ways have met again."""
        flow = self.flow
        header = self.block_of[loop.header]

        def is_around(block: int) -> bool:
            return not loop.parent or flow.ranges[block][0] in loop.parent.pcs

        guarded = -1
        for entry in takewhile(is_around, (header, *flow.dominators(header))):
            ends = list(takewhile(is_around, flow.postdominators(entry)))
            if guarded in ends:
                continue
            guarded = entry
            for end in ends:
                region = flow.between(entry, end)
                if not all(flow.dominates(entry, block) for block in region):
                    break
                yield flow.pcs(region - {entry}) - loop.pcs

    def _effects_of(self, pcs: Iterable[int]) -> Iterable[str]:
        return (self.code[pc].opcode for pc in pcs if self.code[pc].kind in EFFECTS)


def _polls(opcode: str) -> bool:
    words = opcode.split(".")
    if words[0] == "ld":
        return bool({"volatile", "relaxed", "acquire"} & set(words))
    if words[0] == "atom":
        return bool({"cas", "exch"} & set(words))
    return opcode.startswith(("mbarrier.try_wait", "mbarrier.test_wait"))
