"""What the kernels of DeepSeek-V3.2's shapes come to on each target, held to objects.json.

    python -m tilelang_kernels check [--op OP] [--target TARGET] [--update | --table]

Of every kernel: registers of a thread, bytes of shared memory, and which instructions of the matrix
units stand in its code, and how often: compilers may drop or double products without a word.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from tilelang_kernels.toolchain import lowering, objects
from tilelang_kernels.toolchain.compilers import NoCompiler
from tilelang_kernels.toolchain.targets import TARGETS, Refused, Target

INDEXER = {"heads": 64, "dim": 128}
FP8_SCORES = INDEXER | {"dtype": "float8_e4m3fn", "out_dtype": "float32"}
V32 = {"cache_format": "v32", "d_qk": 576, "narrow": False, "out_dtype": "bfloat16"}
BF16_INPUT = {"head_dim": 128, "dtype": "bfloat16"}
V32_RECORDS = {"cache_format": "v32", "d_qk": 576, "dtype": "bfloat16"}
RECORDED = Path(__file__).resolve().parents[1] / "objects.json"
OTHER_COMPILER = 1.1  # by this factor the registers of another version's code may be more
# Of each op, the kernels that are looked at.
TYPICAL = {
    "indexer_k_cache_gather": [{"head_dim": 128}],
    "indexer_k_cache_store": [BF16_INPUT],
    "indexer_q_rope_quant": [BF16_INPUT],
    "mla_cache_gather": [V32_RECORDS],
    "mla_cache_store": [V32_RECORDS],
    "mqa_logits": [FP8_SCORES, FP8_SCORES | {"dtype": "bfloat16"}],
    "paged_mqa_logits": [INDEXER | {"out_dtype": "float32"}],
    "topk_indices": [{"phase": phase} for phase in ("whole", "count", "write")],
    "indices_to_slots": [{}],
    "merge_attention_states": [{"dtype": "float32", "out_dtype": "bfloat16", "vector": 4}],
    "sparse_mla_prefill": [V32 | {"cache_format": "bf16"}, V32],
    "sparse_mla_decode": [
        V32 | {"out_dtype": "float32"},
        V32 | {"out_dtype": "float32", "narrow": True},
        {"cache_format": "v4", "d_qk": 512, "narrow": False, "out_dtype": "float32"},
    ],
}


def name_of(op: str, configuration: dict) -> str:
    return " ".join([op, *map(str, configuration.values())])


def lowered(op: str, configuration: dict, target: Target) -> lowering.Lowered:
    module = importlib.import_module(f"tilelang_kernels.{op}")
    return lowering.lower(module.kernel(target, **configuration), target)


def measure(op: str, configuration: dict, target: Target) -> dict:
    """Raises NoCompiler, Refused, RuntimeError: registers that spill among what that is for."""
    source = lowered(op, configuration, target)
    made = objects.compile_object(source)
    if made.spills:
        raise RuntimeError(f"{name_of(op, configuration)} spills on {target.name}: {made.spills}")
    return {
        "registers": made.registers,
        "shared": source.shared_bytes,
        "matrix": made.matrix,
        "compiler": objects.compiler_version(target),
    }


def recorded() -> dict[str, dict[str, dict]]:
    """Kernel -> target -> what `measure` gave."""
    return json.loads(RECORDED.read_text()) if RECORDED.exists() else {}


def write(record: dict[str, dict[str, dict]]) -> None:
    """A line for each kernel and target."""
    kernels = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(t)}: {json.dumps(of[t])}" for t in TARGETS if t in of)
        + "\n}"
        for name, of in sorted(record.items())
    ]
    RECORDED.write_text("{\n" + ",\n".join(kernels) + "\n}\n")


def complaints(expected: dict | None, found: dict) -> list[str]:
    """Where a kernel is not what is recorded of it."""
    if expected is None:
        return [f"not in {RECORDED.name}"]
    slack = 1 if found["compiler"] == expected["compiler"] else OTHER_COMPILER
    bad = [
        f"{what} {found[what]}, recorded {expected[what]}"
        for what in ("shared", "matrix")
        if found[what] != expected[what]
    ]
    if found["registers"] > slack * expected["registers"]:
        bad.append(f"registers {found['registers']}, recorded {expected['registers']}")
    return bad


def cell(found: dict) -> str:
    shared = f"{found['shared'] / 1024:.3g} KB"
    matrix = [f"{count} {opcode}" for opcode, count in found["matrix"].items()]
    return ", ".join([f"{found['registers']} regs", shared, *matrix])


def table() -> str:
    """What is recorded, in Markdown."""
    lines = ["| kernel | " + " | ".join(TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    for name, of in sorted(recorded().items()):
        cells = [cell(of[t]).replace("v_mfma_f32_", "") if t in of else "-" for t in TARGETS]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def check(ops: list[str], targets: list[str], update: bool = False) -> int:
    """Prints a line a kernel; the exit status is 1 if one is refused, does not compile, or is not
    what is recorded."""
    failed, record = False, recorded()
    kernels = [(op, configuration) for op in ops for configuration in TYPICAL[op]]
    for op, configuration in kernels:
        name = name_of(op, configuration)
        for target in targets:
            try:
                found = measure(op, configuration, TARGETS[target])
            except NoCompiler as error:
                result = f"source only: {error}"
            except (Refused, RuntimeError) as error:
                failed, result = True, f"FAILED: {error}"
            else:
                result = cell(found)
                if update:
                    record.setdefault(name, {})[target] = found
                elif bad := complaints(record.get(name, {}).get(target), found):
                    failed, result = True, f"{result}: FAILED: {'; '.join(bad)}"
            print(f"{name} | {target} | {result}", flush=True)
    if update:
        write(record)
    return int(failed)
