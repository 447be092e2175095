"""The kernels that are counted, the unit of work of each, and what other libraries take for it.

Peers were counted once, in the machine code that nvcc 13.0 makes of FlashMLA and DeepGEMM: issue
slots on the path that a warp takes through an iteration (with maxima renewed in each, as they do),
shared memory cycles by the rule of `emulated.py`. Their bytes are those of the copies, or what the
emulator saw lanes ask for.
"""

from __future__ import annotations

import dataclasses

import torch

from dsa_kernels._op import OPS
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import named

METRICS = {
    "sass": "issue slots, SASS",  # of an SM partition: the sum over warps, by four
    "ptx": "issue slots, PTX",
    "shared": "shared memory cycles",
    "l2": "bytes asked of L2",
    "tensor": "tensor core cycles",
}


@dataclasses.dataclass(frozen=True)
class Peer:
    name: str
    figures: dict[str, float]


def _peer(name: str, sass: float, shared: float, l2: float, tensor: float) -> Peer:
    return Peer(name, dict(sass=sass, shared=shared, l2=l2, tensor=tensor))


@dataclasses.dataclass(frozen=True)
class Case:
    """`large` has `units` units of work more than `small`; in both, what is done once is the same.

    `above`: figures in which the kernel is above its peer. In all others it must not be.
    """

    name: str
    op: str
    unit: str
    units: float
    small: dict | None  # None: all of `large` is counted
    large: dict
    roles: dict[str, range]  # warps of a CTA
    ctas: int | None = None  # so many are launched (a persistent kernel's do all work); None: all
    peer: Peer | None = None
    above: tuple[str, ...] = ()
    machine_code: bool = True  # False: ptxas unrolls its loops, and sass.py can't tell copies apart
    varies: float = 0  # a part of the figures, with random numbers that machines round differently


PREFILL = _peer("FlashMLA, sparse prefill", 1948, 4952, 147456 + 4096, 4352)
DECODE_128 = _peer("FlashMLA, sparse decode, 128 heads", 1485, 2472, 23296, 2176)
DECODE_64 = _peer("FlashMLA, sparse decode, 64 heads", 1900, 2520, 46336, 2176)
LOGITS = _peer("DeepGEMM, mqa_logits", 926, 1256, 33792, 1024)
# Keys and scales, and 4 bytes of the page table for 64 keys.
PAGED_1 = _peer("DeepGEMM, paged_mqa_logits", 695, 908, 33792 + 16, 512)
PAGED_2 = _peer("DeepGEMM, paged_mqa_logits", 1045, 1260, 33792 + 16, 1024)

SCORING = {"copies": range(1), "fill": range(1, 4), "products": range(4, 12)}
ATTENTION = {"group 0": range(4), "group 1": range(4, 8), "producer": range(8, 12)}
# Scores so small that maxima are set by the first block and never renewed.
SMALL_SCORES = dict(num_kv=4096, sm_scale=0.01)


def _scoring() -> list[Case]:
    def paged(next_n: int, peer: Peer, above: tuple[str, ...] = ()) -> Case:
        small, large = (dict(seq_lens=[keys], next_n=next_n, num_heads=64) for keys in (2048, 4096))
        unit = f"{next_n} x 256 (query, key) pairs of 64 heads"
        name = f"paged_mqa_logits fp8, next_n {next_n}"
        return Case(name, "paged_mqa_logits", unit, 8, small, large, SCORING, 1, peer, above)

    small, large = (dict(num_rows=4, seq_len=keys, num_heads=64) for keys in (1024, 2048))
    unit = "2 x 256 (query, key) pairs of 64 heads"
    return [
        Case("mqa_logits fp8", "mqa_logits", unit, 8, small, large, SCORING, 1, LOGITS),
        paged(1, PAGED_1, ("sass",)),  # memory binds it, at 2337 cycles (modelled)
        paged(2, PAGED_2),
    ]


def _prefill(name: str, above: tuple[str, ...] = (), **shape) -> Case:
    small, large = (
        dict(num_queries=1, num_heads=64, topk=topk, **SMALL_SCORES, **shape)
        for topk in (1024, 2048)
    )
    return Case(
        f"sparse_mla_prefill {name}",
        "sparse_mla_prefill",
        "128 keys x 64 heads",
        8,
        small,
        large,
        ATTENTION,
        1,
        PREFILL,
        above,
    )


def _decode(heads: int, name: str, peer: Peer | None, above: tuple[str, ...] = (), **shape) -> Case:
    # As many query tokens as leave each CTA a whole row of keys; the first CTAs run.
    groups = -(-heads // 64)
    small, large = (
        dict(batch=132 // groups, num_heads=heads, topk=topk, **SMALL_SCORES, **shape)
        for topk in (1024, 2048)
    )
    return Case(
        f"sparse_mla_decode {name}, {heads} heads",
        "sparse_mla_decode",
        f"64 keys x {heads // groups} heads",
        16 * groups,
        small,
        large,
        ATTENTION,
        groups,
        peer,
        above,
    )


CASES = (
    *_scoring(),
    _prefill("bf16"),
    # FlashMLA multiplies keys that another kernel has dequantised.
    _prefill("v32", ("sass", "shared"), cache_format="v32"),
    _decode(128, "v32", DECODE_128, cache_format="v32"),
    _decode(128, "v32 with float scales", DECODE_128, cache_format="v32", scale_format="float32"),
    _decode(64, "v32", DECODE_64, cache_format="v32"),
    _decode(64, "v32 with float scales", DECODE_64, cache_format="v32", scale_format="float32"),
    _decode(32, "v32", DECODE_64, ("shared",), cache_format="v32"),
    _decode(16, "v32", DECODE_64, cache_format="v32"),
    _decode(128, "bf16", None, cache_format="bf16"),
    Case(
        "topk_indices",
        "topk_indices",
        "8192 entries of a row of 131072, k = 2048",
        16,
        None,
        dict(num_rows=132, seq_len=131072, topk=2048),
        {"all": range(16)},
        ctas=1,
        machine_code=False,
        varies=0.001,
    ),
)


# Of these ops many rows are asked for and few run: the rows share the first one's inputs.
ROWS = {
    "sparse_mla_decode": ("batch", ("q", "indices")),
    "topk_indices": ("num_rows", ("scores",)),
}


def arguments(op: str, shape: dict) -> list:
    name, inputs = ROWS.get(op, (None, ()))
    rows = shape.get(name, 1)
    first = {**shape, name: 1} if inputs else shape
    values = named(OPS[op], case(op).make(torch.Generator().manual_seed(0), **first))
    if rows > 1:
        for tensor in inputs:
            values[tensor] = values[tensor].expand(rows, *values[tensor].shape[1:])
        for spec in OPS[op].tensors:
            if spec.written:
                value = values[spec.name]
                values[spec.name] = value.new_empty(rows, *value.shape[1:])
    return list(values.values())
