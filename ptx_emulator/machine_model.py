"""What the bounds of a profile assume of a machine: every constant, with where it is from.

Nothing here was measured, or compared with a measurement."""

import dataclasses

LABEL = "modelled, uncalibrated"

_GUIDE = "CUDA C++ Programming Guide, throughput of native arithmetic instructions"
_HOPPER = "NVIDIA H100 Tensor Core GPU Architecture (white paper)"
_AMPERE = "NVIDIA A100 Tensor Core GPU Architecture (white paper)"


@dataclasses.dataclass(frozen=True)
class Constant:
    value: float
    source: str
    assumed: bool = False  # it is from memory, or an inference


@dataclasses.dataclass(frozen=True)
class MachineModel:
    """Rates of a streaming multiprocessor (SM) with `partitions` schedulers."""

    name: str
    partitions: Constant
    # Cycles of a partition for a warp instruction.
    issue: Constant
    alu: Constant
    fma: Constant
    imad: Constant
    mufu: Constant
    fp64: Constant
    # Operations a cycle of an SM, by the type of the operands.
    tensor: dict[str, Constant]
    # Bytes a cycle of an SM.
    shared: Constant
    l2: Constant
    l2_sustained: Constant | None
    # Cycles of shared memory's data path for a shuffle, and for 128 bytes of ld and st of global
    # memory.
    exchange: Constant


_PARTITIONS = Constant(4, _HOPPER + "; warp i belongs to partition i mod 4, which is assumed")
_ISSUE = Constant(1, "one warp instruction a cycle: " + _HOPPER)
_HALF = Constant(2, _GUIDE + ": 64 a cycle of an SM; conversions that pack are assumed to be alike")
_QUARTER = Constant(8, _GUIDE + ": 16 a cycle of an SM")
_SHARED = Constant(128, "32 banks of 4 bytes: CUDA C++ Programming Guide, shared memory")
_L2 = Constant(64, "the port of an SM: " + _AMPERE)
_EXCHANGE = Constant(1, "shares shared memory's data path", assumed=True)


def _operations(bf16: float, source: str, **others: float) -> dict[str, Constant]:
    rates = dict(bf16=bf16, f16=bf16, tf32=bf16 / 2, s8=2 * bf16, u8=2 * bf16, **others)
    return {name: Constant(rate, source) for name, rate in rates.items()}


_SM80 = MachineModel(
    name="A100 (sm_80)",
    partitions=_PARTITIONS,
    issue=_ISSUE,
    alu=_HALF,
    fma=Constant(2, _GUIDE + ": 64 a cycle of an SM"),
    imad=_HALF,
    mufu=_QUARTER,
    fp64=Constant(4, _GUIDE + ": 32 a cycle of an SM"),
    tensor=_operations(2048, _AMPERE + ": 312 Tflop/s, 108 SMs, 1.41 GHz", f64=128),
    shared=_SHARED,
    l2=_L2,
    l2_sustained=None,
    exchange=_EXCHANGE,
)

_SM90 = MachineModel(
    name="H100 SXM (sm_90)",
    partitions=_PARTITIONS,
    issue=_ISSUE,
    alu=_HALF,
    fma=Constant(1, _GUIDE + ": 128 a cycle of an SM"),
    imad=_HALF,
    mufu=_QUARTER,
    fp64=Constant(2, _GUIDE + ": 64 a cycle of an SM"),
    tensor=_operations(
        4096,
        _HOPPER + ": 989.4 Tflop/s, 132 SMs, 1.83 GHz; mma is assumed to be as fast as wgmma",
        e4m3=8192,
        e5m2=8192,
        f64=256,
    ),
    shared=_SHARED,
    l2=Constant(64, "the port of an SM, as of " + _AMPERE, assumed=True),
    l2_sustained=Constant(25, "published microbenchmarks, from memory", assumed=True),
    exchange=_EXCHANGE,
)


def model_of(target: str) -> MachineModel | None:
    """The machine for a module's .target; None if there is no model of it."""
    return {"sm_80": _SM80, "sm_90": _SM90}.get(target.rstrip("af"))
