"""From a TileLang function to source for a target, with what its host program would launch.

What is known to go wrong on a device is refused here, with the numbers.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tilelang
from tilelang import tvm

from tilelang_kernels.toolchain.cache import kept
from tilelang_kernels.toolchain.hazards import Hazards
from tilelang_kernels.toolchain.targets import Refused, Target

# Warp specialisation asks for registers on sm_120 in a way that only sm_90a and sm_100a have, and
# gives fragments that a copy fills to the producer alone, while consumers read their own.
PASS_CONFIGS = {"tl.disable_warp_specialized": True}


@dataclass(frozen=True)
class TensorMap:
    """One tensor map of the host program: expressions in the function's symbols."""

    tensor: str
    dims: tuple
    strides: tuple  # in bytes, of all dimensions but the first
    box: tuple
    element_strides: tuple
    swizzle: int  # bytes


@dataclass(frozen=True)
class Lowered:
    function: Any  # the TileLang function, whose parameters callers give
    target: Target
    source: str
    name: str
    grid: tuple  # expressions
    block: tuple
    shared_bytes: int
    parameters: tuple  # names of the kernel's parameters
    maps: dict[str, TensorMap] = field(default_factory=dict)


def lower(function, target: Target) -> Lowered:
    """Kept on disk. Raises Refused."""
    sources = [
        Path(__file__).read_text(),
        str(target.specification),
        str(PASS_CONFIGS),
        tvm.ir.save_json(function),
    ]
    fields = kept("lowered", sources, lambda: pickle.dumps(_lower(function, target)))
    lowered = Lowered(function, target, **pickle.loads(fields))
    check(lowered)
    return lowered


def _lower(function, target: Target) -> dict:
    """All of Lowered but what is given."""
    resolved = tilelang.backend.target.determine_target(target.specification, return_object=True)
    hazards = Hazards()
    with (
        tilelang.transform.PassContext(opt_level=3, config=PASS_CONFIGS, instruments=[hazards]),
        resolved,
    ):
        made = tilelang.lower(function, target=resolved, enable_device_compile=False)
    if hazards.found:
        raise Refused(f"{function.attrs['global_symbol']}: {hazards.found[0]}")
    kernels = made.device_mod.functions_items()
    if len(kernels) != 1:
        raise Refused(f"{function} lowers to {len(kernels)} kernels")
    ((_, device),) = kernels
    extent = {str(axis): size for axis, size in device.attrs["thread_extent"].items()}
    return {
        "source": made.kernel_source,
        "name": str(device.attrs["global_symbol"]),
        "grid": tuple(extent.get(f"blockIdx.{axis}", 1) for axis in "xyz"),
        "block": tuple(int(extent.get(f"threadIdx.{axis}", 1)) for axis in "xyz"),
        "shared_bytes": int(device.attrs.get("dyn_shared_memory_buf", 0)),
        "parameters": tuple(str(parameter.name) for parameter in device.params),
        "maps": _tensor_maps(made.host_mod),
    }


def check(lowered: Lowered) -> None:
    target, threads = lowered.target, lowered.block[0] * lowered.block[1] * lowered.block[2]
    if lowered.shared_bytes > target.shared_bytes:
        raise Refused(
            f"{lowered.name} takes {lowered.shared_bytes} bytes of shared memory; a block on "
            f"{target.name} has {target.shared_bytes}"
        )
    if threads % target.wave:
        raise Refused(f"{threads} threads are no multiple of {target.name}'s {target.wave}")
    # The compiler drops products of what nobody writes.
    if lost := re.findall(r"\b\w+_producer_ws\b", lowered.source):
        raise Refused(f"{lowered.name}: consumers never see {sorted(set(lost))}")
    # T.Pipelined does not wait for its last copies where bounds are no constants; nor is there a
    # fence before wgmma reads what they write.
    if "cp_async" in lowered.source:
        raise Refused(f"{lowered.name}: what cp.async writes may be read before it is there")


def _tensor_maps(host) -> dict[str, TensorMap]:
    found = {}

    def visit(node):
        arguments = getattr(node, "args", None)
        if not arguments or not isinstance(arguments[0], tvm.tirx.StringImm):
            return
        if arguments[0].value != "__tvm_tensormap_create_tiled":
            return
        name, rank, rest = str(arguments[1]), int(arguments[3]), list(arguments[5:])
        interleave, swizzle, _, fill = (int(a) for a in rest[4 * rank :])
        if interleave or fill:
            raise Refused(f"{name} is a tensor map that is interleaved or fills with NaN")
        found[name] = TensorMap(
            name.removesuffix("_desc"),
            tuple(rest[:rank]),
            tuple(rest[rank + 1 : 2 * rank]),
            tuple(int(a) for a in rest[2 * rank : 3 * rank]),
            tuple(int(a) for a in rest[3 * rank : 4 * rank]),
            (0, 32, 64, 128)[swizzle],
        )

    for function in host.functions.values():
        tvm.tirx.stmt_functor.post_order_visit(function.body, visit)
    return found


def bind(function, arguments) -> dict[str, int]:
    """The symbols of a function's tensor shapes and strides, from the arguments of a call."""
    values: dict[str, int] = {}
    symbols: dict[str, Any] = {}
    sizes, unused = [], []
    for parameter, argument in zip(function.params, arguments, strict=True):
        if parameter not in function.buffer_map:
            values[str(parameter.name)] = argument
            continue
        buffer = function.buffer_map[parameter]
        sizes += [
            (f"size {i} of {buffer.name}", expression, argument.shape[i])
            for i, expression in enumerate(buffer.shape)
        ]
        strides = [
            (f"stride {i} of {buffer.name}", expression, argument.stride(i))
            for i, expression in enumerate(buffer.strides)
        ]
        # No stride is taken where there is one entry: it only names its symbol.
        sizes += [stride for i, stride in enumerate(strides) if argument.shape[i] != 1]
        unused += [stride for i, stride in enumerate(strides) if argument.shape[i] == 1]
    for _, expression, actual in sizes + unused:
        if isinstance(expression, tvm.tirx.Var):
            values.setdefault(str(expression.name), actual)
            # A macro gives its parameter's name to the symbol that it is called with.
            if not symbols.setdefault(str(expression.name), expression).same_as(expression):
                raise ValueError(f"two symbols are called {expression.name}")
    for what, expression, actual in sizes:
        if (wanted := evaluate(expression, values)) != actual:
            raise ValueError(f"{what} must be {wanted}; got {actual}")
    return values


def evaluate(expression, values: dict[str, int]) -> int:
    """An expression in symbols."""
    if isinstance(expression, int):
        return expression
    symbols: dict = {}

    def visit(node):
        if isinstance(node, tvm.tirx.Var):
            symbols[node] = tvm.tirx.const(values[str(node.name)], node.dtype)

    tvm.tirx.stmt_functor.post_order_visit(expression, visit)
    known = tvm.tirx.stmt_functor.substitute(expression, symbols)
    return int(tvm.arith.Analyzer().simplify(known))
