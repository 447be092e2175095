"""Cycles that the units of an SM need for what was counted; see docs/profile.md."""

import numpy as np

from ._counts import SECTOR_BYTES, Counts
from ._tensor_work import tensor_operation
from .machine_model import MachineModel


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
        "estimates": {
            **_with_integers(model, counts, values),
            "l2_sustained": global_bytes / model.l2_sustained.value if model.l2_sustained else None,
        },
    }


def has_rates(model: MachineModel, counts: Counts) -> bool:
    operations = (tensor_operation(counts.code[pc].opcode) for pc in counts.pcs)
    return all(op is None or op.operand in model.tensor for op in operations)


def _tensor(model: MachineModel, counts: Counts, where: np.ndarray) -> float:
    executed = ((counts.issued - counts.skipped) * where).sum(axis=0)
    total = 0.0
    for pc, count in zip(counts.pcs, executed, strict=True):
        if count and (op := tensor_operation(counts.code[pc].opcode)):
            total += float(count) * op.flops / op.warps / model.tensor[op.operand].value
    return total


def _partitions(model: MachineModel, counts: Counts, values: np.ndarray):
    """Cycles of the busiest partition."""
    issued = [pipe for pipe in _pipes(counts) if pipe != "none"]
    return {
        "issue": _busiest(model, counts, values, dict.fromkeys(issued, model.issue.value)),
        "alu": _busiest(model, counts, values, {"alu": model.alu.value}),
        "fma": _busiest(model, counts, values, {"fma": model.fma.value}),
        "mufu": _busiest(model, counts, values, {"mufu": model.mufu.value}),
        "fp64": _busiest(model, counts, values, {"fp64": model.fp64.value}),
    }


def _with_integers(model: MachineModel, counts: Counts, values: np.ndarray):
    """If no integer work were uniform over a warp, folded or hoisted: no bound, but an estimate."""
    alu = {"alu": model.alu.value, "int": model.alu.value}
    fma = {"fma": model.fma.value, "imad": model.imad.value}
    return {
        "alu_with_integers": _busiest(model, counts, values, alu),
        "fma_with_integers": _busiest(model, counts, values, fma),
    }


def _pipes(counts: Counts) -> np.ndarray:
    return np.array([counts.code[pc].pipe for pc in counts.pcs])


def _busiest(model: MachineModel, counts: Counts, values: np.ndarray, costs: dict) -> float:
    cost = np.array([costs.get(pipe, 0) for pipe in _pipes(counts)])
    partition = np.arange(counts.warps) % int(model.partitions.value)
    return float(np.bincount(partition, values @ cost).max())


def per(bound: dict, n: float) -> dict:
    """The bound for the n-th part, with the unit that binds."""

    def divide(value):
        return None if value is None else round(value / n, 3)

    of_units = {name: divide(value) for name, value in bound["cycles"].items()}
    return {
        "cycles": of_units,
        "shared": {name: divide(value) for name, value in bound["shared"].items()},
        "estimates": {name: divide(value) for name, value in bound["estimates"].items()},
        "binds": max(of_units, key=of_units.get) if any(of_units.values()) else None,
    }
