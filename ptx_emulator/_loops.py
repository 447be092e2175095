"""Natural loops of decoded functions."""

import dataclasses
from collections.abc import Sequence

from ._instructions import Instruction

_MOST_OF_WAIT = 24  # instructions of a loop that only waits


@dataclasses.dataclass
class Loop:
    header: int  # pc
    pcs: frozenset[int]  # inner loops' included
    latches: tuple[int, ...]  # the last instructions of the blocks that jump back
    always: frozenset[int]  # pcs that each iteration executes
    waits: bool  # polls for something and does nothing else
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
    """The blocks of the instructions [first, last), in reverse postorder."""

    def __init__(self, code: Sequence[Instruction], first: int, last: int):
        self.code = code
        leaders = {first}
        for pc in range(first, last):
            following = code[pc].successors
            if following != (pc + 1,):
                leaders.update(to for to in (*following, pc + 1) if first <= to < last)
        starts = sorted(leaders)
        ends = dict(zip(starts, [*starts[1:], last], strict=True))
        next_of = {
            start: [to for to in code[end - 1].successors if to in ends]
            for start, end in ends.items()
        }
        order = _postorder(first, next_of)[::-1]
        index = {start: i for i, start in enumerate(order)}
        self.ranges = [(start, ends[start]) for start in order]
        self.successors = [[index[to] for to in next_of[start]] for start in order]
        self.predecessors: list[list[int]] = [[] for _ in order]
        for block, following in enumerate(self.successors):
            for to in following:
                self.predecessors[to].append(block)
        self.dominator = self._dominators()

    def _dominators(self) -> list[int]:
        """Immediate ones, by iteration to a fixed point (Cooper, Harvey and Kennedy 2001)."""
        dominator = [0] + [-1] * (len(self.ranges) - 1)
        changed = True
        while changed:
            changed = False
            for block in range(1, len(self.ranges)):
                new = -1
                for other in self.predecessors[block]:
                    if dominator[other] < 0:
                        continue
                    if new < 0:
                        new = other
                        continue
                    a, b = new, other
                    while a != b:
                        if a > b:
                            a = dominator[a]
                        else:
                            b = dominator[b]
                    new = a
                if new != dominator[block]:
                    dominator[block] = new
                    changed = True
        return dominator

    def dominates(self, a: int, b: int) -> bool:
        while b > a:
            b = self.dominator[b]
        return a == b

    def pcs(self, blocks) -> frozenset[int]:
        return frozenset(pc for block in blocks for pc in range(*self.ranges[block]))

    def loops(self) -> list[Loop]:
        latches: dict[int, list[int]] = {}
        for block, following in enumerate(self.successors):
            for to in following:
                if self.dominates(to, block):
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
        return made

    def _loop(self, header: int, latches: list[int]) -> Loop:
        body, left = {header}, list(latches)
        while left:
            block = left.pop()
            if block not in body:
                body.add(block)
                left += self.predecessors[block]
        always = [b for b in body if all(self.dominates(b, latch) for latch in latches)]
        return Loop(
            self.ranges[header][0],
            self.pcs(body),
            tuple(sorted(self.ranges[latch][1] - 1 for latch in latches)),
            self.pcs(always),
            False,
        )

    def _only_waits(self, loop: Loop) -> bool:
        if len(loop.pcs) > _MOST_OF_WAIT:
            return False
        waits = False
        for pc in loop.pcs:
            if _polls(self.code[pc].opcode):
                waits = True
            elif self.code[pc].kind in ("sts", "stg", "tensor", "copy", "atomics", "sync"):
                return False
        return waits


def _polls(opcode: str) -> bool:
    words = opcode.split(".")
    if words[0] == "ld":
        return bool({"volatile", "relaxed", "acquire"} & set(words))
    if words[0] == "atom":
        return bool({"cas", "exch"} & set(words))
    return opcode.startswith(("mbarrier.try_wait", "mbarrier.test_wait"))


def _postorder(root: int, next_of: dict[int, list[int]]) -> list[int]:
    order, seen, stack = [], {root}, [(root, iter(next_of[root]))]
    while stack:
        block, following = stack[-1]
        for to in following:
            if to not in seen:
                seen.add(to)
                stack.append((to, iter(next_of[to])))
                break
        else:
            order.append(block)
            stack.pop()
    return order
