"""Control flow of a decoded function."""

from collections.abc import Iterable, Iterator, Sequence

from ._instructions import Instruction


class Flow:
    """The blocks of the instructions [first, last) that can be reached, in reverse postorder."""

    def __init__(self, code: Sequence[Instruction], first: int, last: int):
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
        self.predecessors = _reversed(self.successors)
        self._dominator = dominators(0, self.successors)
        self._postdominator = self._postdominators(code)

    def _postdominators(self, code: Sequence[Instruction]) -> list[int]:
        """Of what can go on to an end; a trap is none. A virtual last block is behind all ends."""
        ends = [
            block
            for block, (_, end) in enumerate(self.ranges)
            if not self.successors[block] and code[end - 1].opcode != "trap"
        ]
        return dominators(len(self.ranges), [*self.predecessors, ends])

    def dominators(self, block: int) -> Iterator[int]:
        """What every way to a block passes before it, from near to far."""
        while block:
            block = self._dominator[block]
            yield block

    def postdominators(self, block: int) -> Iterator[int]:
        """What every way from a block to an end passes behind it, from near to far."""
        while (block := self._postdominator[block]) not in (-1, len(self.ranges)):
            yield block

    def dominates(self, a: int, b: int) -> bool:
        while b > a:
            b = self._dominator[b]
        return a == b

    def pcs(self, blocks: Iterable[int]) -> frozenset[int]:
        return frozenset(pc for block in blocks for pc in range(*self.ranges[block]))

    def between(self, start: int, end: int) -> set[int]:
        """What can be reached from `start`, itself included, without `end`."""
        found, left = {start}, [start]
        while left:
            for to in self.successors[left.pop()]:
                if to != end and to not in found:
                    found.add(to)
                    left.append(to)
        return found


def dominators(root: int, successors: Sequence[Sequence[int]]) -> list[int]:
    """Immediate ones, -1 of what can't be reached, by iteration to a fixed point (Cooper, Harvey
    and Kennedy 2001)."""
    order = _postorder(root, successors)[::-1]
    place = {node: i for i, node in enumerate(order)}
    predecessors = _reversed(successors)
    found = [-1] * len(successors)
    found[root] = root
    changed = True
    while changed:
        changed = False
        for node in order[1:]:
            new = -1
            for other in predecessors[node]:
                if found[other] < 0:
                    continue
                new = other if new < 0 else _common(new, other, found, place)
            changed |= new != found[node]
            found[node] = new
    return found


def _common(a: int, b: int, dominator: Sequence[int], place: dict[int, int]) -> int:
    while a != b:
        if place[a] > place[b]:
            a = dominator[a]
        else:
            b = dominator[b]
    return a


def _reversed(successors: Sequence[Sequence[int]]) -> list[list[int]]:
    predecessors: list[list[int]] = [[] for _ in successors]
    for node, following in enumerate(successors):
        for to in following:
            predecessors[to].append(node)
    return predecessors


def _postorder(root: int, next_of) -> list[int]:
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
