"""What the kernels of DeepSeek-V3.2's shapes come to on each target.

python -m tilelang_kernels check [--op OP] [--target TARGET]
"""

from __future__ import annotations

import importlib

from tilelang_kernels import lowering, objects
from tilelang_kernels.compilers import NoCompiler
from tilelang_kernels.targets import TARGETS, Refused, Target

INDEXER = {"heads": 64, "dim": 128}
FP8_SCORES = INDEXER | {"dtype": "float8_e4m3fn", "out_dtype": "float32"}
V32 = {"cache_format": "v32", "d_qk": 576, "narrow": False, "out_dtype": "bfloat16"}
BF16_INPUT = {"head_dim": 128, "dtype": "bfloat16"}
V32_RECORDS = {"cache_format": "v32", "d_qk": 576, "dtype": "bfloat16"}
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
    return {"shared": source.shared_bytes, "registers": made.registers, "matrix": made.matrix}


def cell(found: dict) -> str:
    matrix = ", ".join(f"{count} {opcode}" for opcode, count in found["matrix"].items())
    return f"{found['registers']} regs, {found['shared'] / 1024:.0f} KB" + f", {matrix}" * bool(
        matrix
    )


def check(ops: list[str], targets: list[str]) -> int:
    """Prints the table; the exit status is 1 if a kernel is refused or does not compile."""
    failed = False
    for op in ops:
        for configuration in TYPICAL[op]:
            for target in targets:
                try:
                    result = cell(measure(op, configuration, TARGETS[target]))
                except NoCompiler as error:
                    result = f"source only: {error}"
                except (Refused, RuntimeError) as error:
                    failed, result = True, f"FAILED: {error}"
                print(f"{name_of(op, configuration)} | {target} | {result}", flush=True)
    return int(failed)
