"""What is known of a module's instructions without running them."""

import ctypes
import dataclasses
import re
from pathlib import PurePath

from . import _library

CLASSES = (
    "tensor",  # wgmma.mma_async, mma
    "sfu",  # ex2, lg2, rcp, sqrt, rsqrt, sin, cos, tanh, approximate div
    "fp",
    "int",  # also comparisons, selections, predicates
    "cvt",
    "mov",  # also cvta, ld.param: what ptxas mostly turns into operands of other instructions
    "lds",  # also ldmatrix
    "sts",  # also stmatrix
    "ldg",  # generic and local memory, too
    "stg",
    "copy",  # cp.async, bulk and tensor copies, st.async
    "shfl",  # also vote, match, redux, elect, movmatrix
    "sync",  # barriers, mbarriers, fences, commits and waits
    "ctrl",
    "atomics",
    "other",
)

_SFU = {"ex2", "lg2", "rcp", "sqrt", "rsqrt", "sin", "cos", "tanh"}
_SHUFFLES = {"shfl", "vote", "match", "redux", "elect", "activemask", "movmatrix"}
_SYNC = {"bar", "barrier", "fence", "membar", "mbarrier", "griddepcontrol"}
_CONTROL = {"bra", "brx", "ret", "exit", "call", "trap", "nanosleep"}
_OTHER = {"prefetch", "prefetchu", "createpolicy", "setmaxnreg", "tensormap", "mapa", "getctarank"}
_MULTIPLY = {"mul", "mad", "fma", "mul24", "mad24", "madc", "dp4a", "dp2a"}
_ADD = {"add", "sub"}
_FLOATS = {"f16", "f16x2", "bf16", "bf16x2", "f32", "f32x2", "f64", "tf32"}
_SCALAR = re.compile(r"[usf]\d+(x2)?|bf16(x2)?|tf32|e[45]m[23](x2)?")


def class_of(opcode: str, space: str) -> str:
    words = opcode.split(".")
    base = words[0]
    if base in ("ld", "ldu", "st"):
        if "param" in opcode:
            return "mov"
        if space == "const":
            return "other"
        if base == "st" and words[1] == "async":
            return "copy"
        loads = base != "st"
        if space == "shared":
            return "lds" if loads else "sts"
        return "ldg" if loads else "stg"
    if base in ("ldmatrix", "stmatrix"):
        return "lds" if base == "ldmatrix" else "sts"
    if base in ("atom", "red"):
        return "copy" if words[1] == "async" else "atomics"
    if base == "wgmma":
        return "tensor" if words[1] == "mma_async" else "sync"
    if base == "cp":
        waits = {"commit_group", "wait_group", "wait_all", "mbarrier"}
        return "sync" if waits & set(words[2:4]) else "copy"
    for bases, name in (
        ({"mma"}, "tensor"),
        (_SFU, "sfu"),
        ({"cvt"}, "cvt"),
        ({"mov", "cvta"}, "mov"),
        ({"selp", "slct"}, "int"),
        (_SHUFFLES, "shfl"),
        (_SYNC, "sync"),
        (_CONTROL, "ctrl"),
        (_OTHER, "other"),
    ):
        if base in bases:
            return name
    if base == "div" and {"approx", "full"} & set(words):
        return "sfu"
    return "fp" if words[-1] in _FLOATS or base in ("testp", "copysign") else "int"


def pipe_of(opcode: str, kind: str) -> str:
    """The unit of the model that executes it, beside the one that issues it: "int" and "imad" are
    integer work of the ALU and the FMA unit. "none" if ptxas mostly makes it part of another
    instruction, "" if the model has no such unit."""
    words = opcode.split(".")
    if kind == "mov":
        return "none"
    if kind in ("fp", "int"):
        if words[-1] == "f64":
            return "fp64"
        if kind == "fp":
            return "fma" if words[0] in _MULTIPLY | _ADD else "alu"
        return "imad" if words[0] in _MULTIPLY else "int"
    if kind == "cvt":
        return _pipe_of_conversion(words)
    return {"sfu": "mufu", "tensor": "tensor"}.get(kind, "")


def _pipe_of_conversion(words: list[str]) -> str:
    types = [word for word in words[1:] if _SCALAR.fullmatch(word)]
    to, of = types[0], types[-1]
    floats = [word[0] not in "us" for word in (to, of)]
    if {"rni", "rzi", "rmi", "rpi"} & set(words):
        return "mufu"
    if not any(floats):  # to fewer bits: a register's lower part
        return "none" if int(to[1:]) <= int(of[1:]) else "int"
    return "alu" if all(floats) and "f64" not in (to, of) else "mufu"


@dataclasses.dataclass(frozen=True)
class Instruction:
    pc: int
    opcode: str
    line: int  # of the PTX
    source: str  # "file.cu:12", empty if it is not known
    function: int
    kind: str  # one of CLASSES
    pipe: str
    successors: tuple[int, ...]  # in its function


def read_instructions(lib, handle) -> list[Instruction]:
    raw = _library.InstructionStruct()
    out = []
    for pc in range(lib.ptx_instruction_count(handle)):
        lib.ptx_instruction(handle, pc, ctypes.byref(raw))
        opcode, file = raw.opcode.decode(), PurePath(raw.file.decode()).name
        kind = class_of(opcode, raw.space.decode())
        out.append(
            Instruction(
                pc,
                opcode,
                raw.line,
                f"{file}:{raw.source_line}" if file else "",
                raw.function,
                kind,
                pipe_of(opcode, kind),
                _successors(lib, handle, pc, opcode, raw),
            )
        )
    return out


def _successors(lib, handle, pc: int, opcode: str, raw) -> tuple[int, ...]:
    base = opcode.split(".")[0]
    if base not in ("bra", "brx", "ret", "exit", "trap"):
        return (pc + 1,)
    targets: tuple[int, ...] = ()
    if base == "bra":
        targets = (raw.target,)
    elif base == "brx":
        table = ctypes.POINTER(ctypes.c_uint32)()
        count = lib.ptx_branch_table(handle, raw.target, ctypes.byref(table))
        targets = tuple(table[i] for i in range(count))
    return (*targets, pc + 1) if raw.is_guarded else targets
