"""Issue slots of machine code, without running it: basic blocks of SASS, each as often as the PTX
that it was made from ran in the emulator.

ptxas is asked to write down the line of the PTX that each instruction is of, which does not change
the code. Instructions move between blocks, so a block's count is the one that most of its
instructions have. What is issued in a block counts whether or not its predicate holds.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from bench.counts.emulated import PARTITIONS
from csrc.cuda import toolkit

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+ )?\s*([A-Z][\w.]*)\s*([^;]*);")
PTX_LINE = re.compile(r'//## File "\.nv_debug_ptx_txt", line (\d+)')
LABEL = re.compile(r"^\s*([\w.$]+):")
COLLECTIVES = {"tensor": re.compile(r"[HQI]G?MMA"), "shfl": re.compile(r"SHFL")}
ENDS_BLOCK = {"BRA", "BRX", "JMP", "EXIT", "RET", "CALL"}


def missing_tool() -> str | None:
    lacking = (name for name in ("ptxas", "nvdisasm") if not toolkit.find(name))
    return next((f"{name} was not found" for name in lacking), None)


def disassemble(ptx: str, architecture: str = "sm_90a") -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        options = [f"-arch={architecture}", "-lineinfo", source, "-o", cubin]
        subprocess.run([toolkit.find("ptxas"), *options], check=True, capture_output=True)
        command = [toolkit.find("nvdisasm"), "-c", "-gp", cubin]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclasses.dataclass
class Block:
    labels: list[str] = dataclasses.field(default_factory=list)
    # Line of the PTX (None: not known), opcode, operands, and whether there is a predicate.
    code: list[tuple[int | None, str, str, bool]] = dataclasses.field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """To the block behind it, at least sometimes."""
        _, opcode, _, predicated = self.code[-1]
        return predicated or opcode.split(".")[0] not in ENDS_BLOCK - {"CALL"}

    @property
    def polls(self) -> bool:
        """Tries again and again, and does nothing else."""
        tries = any("TRYWAIT" in opcode for _, opcode, _, _ in self.code)
        return tries and any(f"`({label})" in self.code[-1][2] for label in self.labels)


def blocks(disassembly: str) -> list[Block]:
    found = [Block()]
    line = None
    for text in disassembly.splitlines():
        if named := PTX_LINE.search(text):
            line = int(named[1])
        elif label := LABEL.match(text):
            if found[-1].code:
                found.append(Block())
            found[-1].labels.append(label[1])
            if not label[1].startswith(".L"):
                line = None  # another function
        elif instruction := INSTRUCTION.search(text):
            predicate, opcode, operands = instruction.groups()
            found[-1].code.append((line, opcode, operands, bool(predicate)))
            if opcode.split(".")[0] in ENDS_BLOCK:
                found.append(Block())
    return [block for block in found if block.code]


def retries(code: list[Block]) -> set[int]:
    """Blocks for waits whose first try failed, which is made in line: how often that is depends on
    the machine."""
    found: set[int] = set()
    for i, block in enumerate(code):
        outside = i > 0 and not code[i - 1].goes_on
        after = i - 1 in found and not block.labels
        if after or (block.polls and outside):
            found.add(i)
    return found


class NotCounted(Exception):
    """It is not known how often a part of the machine code runs."""


def issue_slots(
    disassembly: str, executions: dict[int, np.ndarray], collectives: dict[str, float]
) -> np.ndarray:
    """Of an SM partition, by warp of a CTA.

    executions: times that each line of the PTX ran, by warp.
    collectives: how many products and shuffles ran, which must come out of the machine code, too.
    """
    code = blocks(disassembly)
    never = tuple(np.zeros_like(next(iter(executions.values()))))
    total = np.zeros(len(never))
    found = dict.fromkeys(collectives, 0.0)
    skipped = retries(code)
    for block in (block for i, block in enumerate(code) if i not in skipped):
        votes = collections.Counter(tuple(executions.get(line, never)) for line, *_ in block.code)
        times = np.array(votes.most_common(1)[0][0])
        total += times * len(block.code)
        for _, opcode, _, _ in block.code:
            if opcode.startswith("CALL") and times.any():
                raise NotCounted("it calls a subroutine")
            for kind in found:
                found[kind] += times.sum() * bool(COLLECTIVES[kind].match(opcode))
    for kind, expected in collectives.items():
        if not math.isclose(found[kind], expected):
            raise NotCounted(f"{found[kind]:g} {kind} instructions, and {expected:g} in PTX")
    return total / PARTITIONS
