"""Cycles that the units of an SM need for what was counted; see docs/profile.md."""

import numpy as np

from ._counts import SECTOR_BYTES, Counts
from ._tensor_work import tensor_operation
from .machine_model import MachineModel

PER_PARTITION = ("issue", "alu", "fma", "mufu", "fp64")


def cycles(model: MachineModel, counts: Counts, where: np.ndarray) -> dict:
    """Of the counts for which `where` holds, as if one SM did all of it."""
    kinds = np.array([counts.code[pc].kind for pc in counts.pcs])
    values = counts.values * where
    found = {"tensor": _tensor(model, counts, where), **_partitions(model, counts, values)}

    def total(name: str, chosen: np.ndarray) -> float:
        return float((counts.accesses[name] * where)[:, chosen].sum())

    everywhere = np.ones(len(kinds), bool)
    copies, tensor = kinds == "copy", kinds == "tensor"
    moved = ("shared_read", "shared_written", "remote_read", "remote_written")
    lines = np.maximum(
        counts.accesses["global_requests"], counts.accesses["sectors"] * SECTOR_BYTES / 128
    )
    shared = {
        "operands": total("shared_read", tensor) / model.shared.value,
        "copies": sum(total(name, copies) for name in moved) / model.shared.value,
        "accesses": total("wavefronts", everywhere),
        "exchanges": model.exchange.value
        * float(values[:, kinds == "shfl"].sum() + (lines * where)[:, ~copies].sum()),
    }
    global_bytes = SECTOR_BYTES * total("sectors", everywhere)
    found["shared"] = sum(shared.values())
    found["l2"] = global_bytes / model.l2.value
    return {
        "cycles": found,
        "shared": shared,
        "l2_sustained": global_bytes / model.l2_sustained.value if model.l2_sustained else None,
    }


def _tensor(model: MachineModel, counts: Counts, where: np.ndarray) -> float:
    executed = ((counts.issued - counts.skipped) * where).sum(axis=0)
    total = 0.0
    for pc, count in zip(counts.pcs, executed, strict=True):
        if count and (op := tensor_operation(counts.code[pc].opcode)):
            if op.operand not in model.tensor:
                raise ValueError(f"{model.name} has no rate for tensor operations of {op.operand}")
            total += float(count) * op.flops / op.warps / model.tensor[op.operand].value
    return total


def _partitions(model: MachineModel, counts: Counts, values: np.ndarray):
    pipes = np.array([counts.code[pc].pipe for pc in counts.pcs])
    partition = np.arange(counts.warps) % int(model.partitions.value)

    def busiest(by_warp: np.ndarray) -> float:
        return float(np.bincount(partition, by_warp).max())

    def by_warp(pipe: str) -> np.ndarray:
        return values[:, pipes == pipe].sum(axis=1)

    return {
        "issue": busiest(values[:, pipes != "none"].sum(axis=1) * model.issue.value),
        "alu": busiest(by_warp("alu") * model.alu.value),
        "fma": busiest(by_warp("fma") * model.fma.value + by_warp("imad") * model.imad.value),
        "mufu": busiest(by_warp("mufu") * model.mufu.value),
        "fp64": busiest(by_warp("fp64") * model.fp64.value),
    }


def per(bound: dict, n: float) -> dict:
    """The bound for the n-th part, with the unit that binds."""

    def divide(value):
        return None if value is None else round(value / n, 3)

    of_units = {name: divide(value) for name, value in bound["cycles"].items()}
    return {
        "cycles": of_units,
        "shared": {name: divide(value) for name, value in bound["shared"].items()},
        "l2_sustained": divide(bound["l2_sustained"]),
        "binds": max(of_units, key=of_units.get) if any(of_units.values()) else None,
    }
