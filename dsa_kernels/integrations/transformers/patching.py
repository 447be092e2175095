"""enable(model) and disable(model)."""

from __future__ import annotations

import torch
import transformers
from transformers.models.deepseek_v32.modeling_deepseek_v32 import (
    DeepseekV32Attention,
    DeepseekV32ForCausalLM,
)
from transformers.models.glm_moe_dsa.modeling_glm_moe_dsa import (
    GlmMoeDsaAttention,
    GlmMoeDsaForCausalLM,
)

from dsa_kernels.integrations.transformers.attention import (
    LATENT_DIM,
    ROPE_DIM,
    SparseDeepseekV32Attention,
    SparseGlmMoeDsaAttention,
)
from dsa_kernels.integrations.transformers.bounds import IMPLEMENTATION
from dsa_kernels.integrations.transformers.replay import State, state_of

TRANSFORMERS = "5.23"
MODELS = (DeepseekV32ForCausalLM, GlmMoeDsaForCausalLM)
INDEXER_DTYPES = ("model", "fp8")
SPARSE = {
    DeepseekV32Attention: SparseDeepseekV32Attention,
    GlmMoeDsaAttention: SparseGlmMoeDsaAttention,
}
STOCK = {sparse: stock for stock, sparse in SPARSE.items()}


def enable(model, *, indexer_dtype: str = "model"):
    """Runs the model's attention through dsa_kernels, in place; returns the model.

    For inference, under torch.no_grad(): there is no backward. The model's own caches keep their
    contents and format, so enabling and disabling in the middle of a generation is fine. On a model
    that is enabled already it sets the options anew.

    Args:
        model: a DeepseekV32ForCausalLM or GlmMoeDsaForCausalLM of transformers 5.23, in float32 or
            bfloat16.
        indexer_dtype: "model" scores with the indexer's queries and keys as they are; "fp8" applies
            the Hadamard transform to both and quantises them first, as the published models do.

    Raises:
        TypeError, ValueError, RuntimeError: the model or its configuration is not supported. What
            only a call shows (masks with holes, packed positions, ...) raises at the call; see
            docs/transformers.md.
    """
    if indexer_dtype not in INDEXER_DTYPES:
        raise ValueError(f'enable: indexer_dtype must be "model" or "fp8"; got {indexer_dtype!r}.')
    state = getattr(model, "_dsa_kernels", None)
    if state is not None:
        state.indexer_dtype = indexer_dtype
        return model
    _check_model(model)
    modules = [layer.self_attn for layer in model.model.layers]
    for module in modules:
        _check_module(module)

    state = State(indexer_dtype, model.config._attn_implementation, len(modules))
    model.set_attn_implementation(IMPLEMENTATION)
    model._dsa_kernels = state
    for module in modules:
        module._dsa_kernels = state
        module.__class__ = SPARSE[type(module)]
    return model


def disable(model):
    """Undoes `enable`: the stock attention and attn_implementation are back; returns the model.

    Raises ValueError where the model is not enabled, RuntimeError where another tool has since
    wrapped its attention modules.
    """
    state = state_of(model, "disable")
    modules = [layer.self_attn for layer in model.model.layers]
    for module in modules:
        if type(module) not in STOCK or "forward" in vars(module):
            raise RuntimeError(
                f"disable: the attention of layer {module.layer_idx} was wrapped or replaced after "
                "enable (an accelerate hook, for instance). Remove that first."
            )
    for module in modules:
        module.__class__ = STOCK[type(module)]
        del module._dsa_kernels
    del model._dsa_kernels
    model.set_attn_implementation(state.stock_implementation)
    return model


def _check_model(model) -> None:
    if not transformers.__version__.startswith(TRANSFORMERS + "."):
        raise RuntimeError(
            f"enable: supports transformers {TRANSFORMERS}.*; found {transformers.__version__}. "
            f"Install it with: pip install 'transformers=={TRANSFORMERS}.*'"
        )
    if type(model) not in MODELS:
        names = " or ".join(m.__name__ for m in MODELS)
        raise TypeError(f"enable: model must be a {names}; got {type(model).__name__}.")
    config = model.config
    for name, supported in (
        ("kv_lora_rank", (LATENT_DIM,)),
        ("qk_rope_head_dim", (ROPE_DIM,)),
        ("index_n_heads", (8, 16, 32, 64)),
        ("index_head_dim", (64, 128)),
    ):
        value = getattr(config, name)
        if value not in supported:
            choices = " or ".join(map(str, supported))
            raise ValueError(f"enable: config.{name} must be {choices}; got {value}.")
    for name, largest in (("index_topk", 4096), ("num_attention_heads", 128)):
        value = getattr(config, name)
        if not 1 <= value <= largest:
            raise ValueError(f"enable: config.{name} must be in [1, {largest}]; got {value}.")
    if set(config.layer_types) != {"indexed_attention"}:
        raise ValueError(
            'enable: every entry of config.layer_types must be "indexed_attention"; '
            f"got {sorted(set(config.layer_types))}."
        )


def _check_module(module) -> None:
    where = f"enable: layer {module.layer_idx}"
    if type(module) not in SPARSE or "forward" in vars(module):
        raise RuntimeError(
            f"{where}: the attention module has been wrapped or replaced (an accelerate hook, for "
            "instance). Enable the model first, then wrap it."
        )
    expand = module.kv_b_proj
    if type(expand) is not torch.nn.Linear or type(expand.weight.data) is not torch.Tensor:
        raise TypeError(
            f"{where}: kv_b_proj must be a plain torch.nn.Linear, as its weight is absorbed into "
            f"queries and outputs; got {type(expand).__name__} (an adapter, or quantised weights). "
            "Merge or dequantise it first."
        )
    if expand.weight.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(
            f"{where}: weights must be float32 or bfloat16; got {str(expand.weight.dtype)[6:]}. "
            "Convert with model.to(torch.bfloat16)."
        )
