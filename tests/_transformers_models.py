"""Small models of both classes, and eager's selection, for test_transformers*.py."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from torch.overrides import TorchFunctionMode

pytest.importorskip("transformers")

from transformers import (
    DeepseekV32Config,
    DeepseekV32ForCausalLM,
    GlmMoeDsaConfig,
    GlmMoeDsaForCausalLM,
)

from dsa_kernels.integrations.transformers import disable, enable

TOPK = 64
VOCAB = 128
# GLM: the second layer has no indexer and takes the first one's indices.
GLM_LAYERS = ["full", "shared", "full"]


def make_config(name: str, **changes):
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 96,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "q_lora_rank": 48,
        "qk_nope_head_dim": 40,
        "v_head_dim": 56,
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
        "moe_intermediate_size": 32,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "index_topk": TOPK,
        "index_n_heads": 16,
        "index_head_dim": 64,
        "max_position_embeddings": 1024,
        "initializer_range": 0.1,
    }
    if name == "glm":
        settings |= {"num_hidden_layers": len(GLM_LAYERS), "indexer_types": GLM_LAYERS}
    return (GlmMoeDsaConfig if name == "glm" else DeepseekV32Config)(**settings | changes)


def make_model(name: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes):
    """A seeded model in eval mode on eager attention."""
    torch.manual_seed(seed)
    config = make_config(name, **changes)
    model = (GlmMoeDsaForCausalLM if name == "glm" else DeepseekV32ForCausalLM)(config)
    model.set_attn_implementation("eager")
    return model.eval().to(dtype)


@functools.cache
def shared_model(name: str, dtype: torch.dtype = torch.float32):
    """One model per test run; whoever enables it must disable it (see `enabled`)."""
    return make_model(name, dtype)


@contextmanager
def enabled(model, **options):
    enable(model, **options)
    try:
        yield model
    finally:
        disable(model)


def text(batch: int, tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, VOCAB, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def padded_mask(tokens: int, padding: list[int]) -> torch.Tensor:
    """attention_mask [batch, tokens] with that many zeros on the left of each row."""
    return (torch.arange(tokens) >= torch.tensor(padding)[:, None]).long()


@dataclass
class EagerSelection:
    """What eager's indexers computed, per forward call and per indexer."""

    scores: list[list[torch.Tensor]] = field(default_factory=list)  # [batch, queries, keys], masked
    chosen: list[list[torch.Tensor]] = field(default_factory=list)  # [batch, queries, topk]

    def as_recording(self, model) -> list[list[torch.Tensor]]:
        """In the format of record_indices: what the query sees of it, ascending, then -1."""
        recording = []
        for scores, chosen in zip(self.scores, self.chosen, strict=True):
            full, layers = -1, []
            for layer in model.model.layers:
                full += layer.self_attn.indexer is not None
                seen = scores[full].gather(2, chosen[full].long()) > -1e30
                keys = scores[full].shape[2]
                indices = chosen[full].masked_fill(~seen, keys).sort(-1).values
                layers.append(indices.masked_fill(indices == keys, -1).int())
            recording.append(layers)
        return recording


@contextmanager
def eager_selection(model):
    """Captures the argument and the result of the top-k inside each of the model's indexers."""
    captured = EagerSelection()
    inside = False

    class Capture(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if inside and function is torch.Tensor.topk:
                captured.scores[-1].append(args[0].clone())
                captured.chosen[-1].append(result.indices.clone())
            return result

    def enter(module, _):
        nonlocal inside
        inside = True
        if module.layer_idx == 0:
            captured.scores.append([])
            captured.chosen.append([])

    def leave(*_):
        nonlocal inside
        inside = False

    indexers = [layer.self_attn.indexer for layer in model.model.layers]
    hooks = []
    for indexer in filter(None, indexers):
        hooks += [indexer.register_forward_pre_hook(enter), indexer.register_forward_hook(leave)]
    try:
        with Capture():
            yield captured
    finally:
        for hook in hooks:
            hook.remove()
