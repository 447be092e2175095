"""What the tensor core does for an instruction, from its opcode."""

import dataclasses
import re

_SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)")
_TYPES = {"f16", "bf16", "tf32", "f32", "f64", "e4m3", "e5m2", "s8", "u8", "s32"}


@dataclasses.dataclass(frozen=True)
class TensorOperation:
    name: str  # "wgmma" or "mma"
    shape: str
    types: str  # of D, A, B
    operand: str  # type of A
    flops: int  # of one operation; 2 m n k, also of integers
    warps: int  # that issue one operation together
    bytes_b: int  # of B, in shared memory


def tensor_operation(opcode: str) -> TensorOperation | None:
    """None for what is no multiplication of matrices."""
    words = opcode.split(".")
    if words[0] != "mma" and not opcode.startswith("wgmma.mma_async"):
        return None
    shape = _SHAPE.search(opcode)
    m, n, k = map(int, shape.groups())
    types = [word for word in words if word in _TYPES][:3]
    is_wgmma = words[0] == "wgmma"
    return TensorOperation(
        words[0],
        shape.group(),
        ".".join(types),
        types[1],
        2 * m * n * k,
        4 if is_wgmma else 1,
        32 * n if is_wgmma else 0,
    )
