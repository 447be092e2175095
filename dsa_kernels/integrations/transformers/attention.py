"""Absorbed MLA over the selected tokens, in place of expanded attention under a mask.

The two classes replace the class of a model's attention modules (see patching.py): they add methods
and no parameters, so weights, state_dict, device moves and copies are those of the stock module.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import DynamicCache, DynamicIndexedLayer, StaticIndexedLayer
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as deepseek_v32
from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as glm_moe_dsa

import dsa_kernels
from dsa_kernels.integrations.transformers import indexer as lightning
from dsa_kernels.integrations.transformers.bounds import IMPLEMENTATION, RowBounds
from dsa_kernels.integrations.transformers.products import bmm_into, linear

LATENT_DIM = 512
ROPE_DIM = 64
# Absorbed queries are 3 to 4.5 times as wide as the model's; blocks bound what a prefill holds.
QUERY_BLOCK = 1024


class SparseAttention:
    """What both models share. `_dsa_kernels` is the State that enable() gave the model."""

    indexer_rope: staticmethod

    def _sparse_forward(
        self,
        hidden_states: torch.Tensor,  # [batch, queries, hidden_size]
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        bounds: RowBounds,
        past_key_values,
        position_ids: torch.Tensor | None,
        prev_topk_indices: torch.Tensor | None,
        kwargs: dict,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The module's output [batch, queries, hidden_size] and the indices it attended to."""
        self._check_call(hidden_states, bounds, past_key_values, position_ids, kwargs)
        state = self._dsa_kernels
        if self.layer_idx == 0:
            state.begin_call()

        batch, queries = hidden_states.shape[:2]
        q_resid = self.q_a_layernorm(linear(self.q_a_proj, hidden_states))
        q = linear(self.q_b_proj, q_resid)
        q = q.view(batch, queries, -1, self.qk_head_dim).transpose(1, 2)
        q_pass, q_rot = q.split([self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)

        latent = linear(self.kv_a_proj_with_mqa, hidden_states)
        latent, rope = latent.split([LATENT_DIM, ROPE_DIM], dim=-1)
        latent = self.kv_a_layernorm(latent).view(batch, 1, queries, LATENT_DIM)
        rope = rope.view(batch, 1, queries, ROPE_DIM)
        q_rot, rope = deepseek_v32.apply_rotary_pos_emb_interleave(
            q_rot, rope, *position_embeddings
        )
        if past_key_values is not None:
            latent, rope = past_key_values.update(latent, rope, self.layer_idx)

        keys = None
        if self.indexer is not None:
            keys = lightning.store_keys(
                self.indexer, hidden_states, position_embeddings, self.indexer_rope, past_key_values
            )
        indices = state.take(self.layer_idx, bounds)
        if indices is None and self.indexer is None:
            indices = prev_topk_indices
        elif indices is None:
            indices = lightning.select(
                self.indexer,
                hidden_states,
                q_resid,
                position_embeddings,
                keys,
                bounds,
                self.indexer_rope,
                state.indexer_dtype,
            )
        state.record(indices)
        out = self._attend(q_pass, q_rot, latent[:, 0], rope[:, 0], indices, bounds.key_end)
        return linear(self.o_proj, out.flatten(2)), indices

    def _attend(
        self,
        q_pass: torch.Tensor,  # [batch, heads, queries, nope_dim]
        q_rot: torch.Tensor,  # [batch, heads, queries, 64]
        latent: torch.Tensor,  # [batch, keys, 512]
        rope: torch.Tensor,  # [batch, keys, 64]
        indices: torch.Tensor,  # int32 [batch, queries, width]
        key_end: int,
    ) -> torch.Tensor:
        """Returns [batch, queries, heads, v_head_dim]."""
        batch, heads, queries, _ = q_pass.shape
        # kv_b_proj expands a latent into a head's key and value. Its key half moves to the query,
        # its value half to the output, so that keys and values stay latents.
        expand = self.kv_b_proj.weight.view(heads, -1, LATENT_DIM)
        if expand.device.type == "cpu":
            # bfloat16 products of torch run at a small fraction of the float32 rate on most CPUs.
            expand, q_pass = expand.float(), q_pass.float()
        halves = expand.split([self.qk_nope_head_dim, self.v_head_dim], dim=1)
        out = latent.new_empty((batch, queries, heads, self.v_head_dim))
        if queries * indices.shape[2] < key_end:  # fewer selected rows than keys: decode
            kv, indices = _gather_selected(latent, rope, indices)
            q_pass, q_rot = (x.transpose(0, 1).flatten(1, 2) for x in (q_pass, q_rot))
            rows_out = out.view(-1, heads, self.v_head_dim)
            self._attend_rows(q_pass, q_rot, kv, indices, *halves, rows_out)
            return out
        for b in range(batch):
            kv = torch.cat([latent[b, :key_end], rope[b, :key_end]], dim=-1)
            for first in range(0, queries, QUERY_BLOCK):
                rows = slice(first, first + QUERY_BLOCK)
                q = q_pass[b, :, rows], q_rot[b, :, rows]
                self._attend_rows(*q, kv, indices[b, rows], *halves, out[b, rows])
        return out

    def _attend_rows(
        self,
        q_pass: torch.Tensor,  # [heads, rows, nope_dim]
        q_rot: torch.Tensor,  # [heads, rows, 64]
        kv: torch.Tensor,  # [keys, 576]
        indices: torch.Tensor,  # int32 [rows, width]
        to_key: torch.Tensor,  # q_pass's dtype [heads, nope_dim, 512]
        to_value: torch.Tensor,  # q_pass's dtype [heads, v_head_dim, 512]
        out: torch.Tensor,  # [rows, heads, v_head_dim], written
    ) -> None:
        q = kv.new_empty((q_pass.shape[1], q_pass.shape[0], LATENT_DIM + ROPE_DIM))
        bmm_into(q_pass, to_key, q[..., :LATENT_DIM])
        q[..., LATENT_DIM:] = q_rot.transpose(0, 1)
        attended, _, _ = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=self.scaling)
        attended = attended.transpose(0, 1).to(to_value.dtype)
        bmm_into(attended, to_value.transpose(1, 2), out)

    def _check_call(self, hidden_states, bounds, past_key_values, position_ids, kwargs) -> None:
        """Raises for what only the call shows to be unsupported, before any cache is written."""
        if not isinstance(bounds, RowBounds):
            if self.config._attn_implementation != IMPLEMENTATION:
                raise RuntimeError(
                    "dsa_kernels: this model is enabled, and its attn_implementation was set to "
                    f'"{self.config._attn_implementation}" since. Call disable(model) first.'
                )
            raise ValueError(
                "dsa_kernels: a custom attention mask (4-D, or prepared per layer type) is not "
                "supported. Pass attention_mask [batch, tokens] with left padding only."
            )
        if kwargs.get("output_attentions", getattr(self.config, "output_attentions", False)):
            raise ValueError(
                "dsa_kernels: output_attentions=True is not supported: attention weights are never "
                "materialised. record_indices(model) gives the selected tokens."
            )
        if any(kwargs.get(name) is not None for name in ("cu_seq_lens_q", "cu_seq_lens_k")):
            raise ValueError(
                "dsa_kernels: packed sequences (cu_seq_lens_q) are not supported. Pass one "
                "sequence per batch row, padded on the left."
            )
        if torch.is_grad_enabled() and (
            hidden_states.requires_grad or any(p.requires_grad for p in self.parameters())
        ):
            raise RuntimeError(
                "dsa_kernels: an input requires grad, and the sparse attention has no backward. "
                "Run the model under torch.no_grad(), or disable(model) to train."
            )
        if self.training and self.attention_dropout > 0:
            raise ValueError(
                "dsa_kernels: attention_dropout is not supported. Call model.eval() first."
            )
        if hidden_states.dtype not in (torch.float32, torch.bfloat16):
            raise TypeError(
                "dsa_kernels: the model must run in float32 or bfloat16; got "
                f"{str(hidden_states.dtype)[6:]}."
            )
        self._check_cache(past_key_values, bounds)
        bounds.check_positions(position_ids)

    def _check_cache(self, cache, bounds: RowBounds) -> None:
        if cache is None:
            return
        layers = getattr(cache, "layers", [])
        layer = layers[self.layer_idx] if self.layer_idx < len(layers) else None
        if type(layer) not in (DynamicIndexedLayer, StaticIndexedLayer):
            got = type(cache).__name__ + (f" of {type(layer).__name__}" if layer else "")
            hint = "DynamicCache(config=model.config) or StaticCache(config=model.config, ...)"
            if type(cache) is DynamicCache and not layer:
                got += " made without a config"
            raise ValueError(f"dsa_kernels: cache must be {hint}; got {got}.")
        if cache.offloading:
            raise ValueError("dsa_kernels: an offloaded cache is not supported. Keep it on device.")


def _gather_selected(latent, rope, indices) -> tuple[torch.Tensor, torch.Tensor]:
    """Copies the selected rows of all queries into one kv [batch * queries * width, 576].

    Returns it with the indices into it, int32 [batch * queries, width], -1 where they were -1.
    """
    batch, queries, width = indices.shape
    kv = latent.new_empty((batch, queries * width, LATENT_DIM + ROPE_DIM))
    for b in range(batch):
        rows = indices[b].flatten().clamp_min(0)
        kv[b, :, :LATENT_DIM] = latent[b].index_select(0, rows)
        kv[b, :, LATENT_DIM:] = rope[b].index_select(0, rows)
    places = torch.arange(kv.shape[0] * kv.shape[1], dtype=torch.int32, device=indices.device)
    places = places.view(batch * queries, width).masked_fill_(indices.flatten(0, 1) < 0, -1)
    return kv.flatten(0, 1), places


class SparseDeepseekV32Attention(SparseAttention, deepseek_v32.DeepseekV32Attention):
    indexer_rope = staticmethod(deepseek_v32.apply_rotary_pos_emb)

    def forward(
        self,
        hidden_states,
        position_embeddings,
        attention_mask,
        past_key_values=None,
        position_ids=None,
        **kwargs,
    ):
        out, _ = self._sparse_forward(
            hidden_states,
            position_embeddings,
            attention_mask,
            past_key_values,
            position_ids,
            None,
            kwargs,
        )
        return out, None


class SparseGlmMoeDsaAttention(SparseAttention, glm_moe_dsa.GlmMoeDsaAttention):
    indexer_rope = staticmethod(glm_moe_dsa.apply_rotary_pos_emb_interleave)

    def forward(
        self,
        hidden_states,
        position_embeddings,
        attention_mask,
        past_key_values=None,
        prev_topk_indices=None,
        position_ids=None,
        **kwargs,
    ):
        out, indices = self._sparse_forward(
            hidden_states,
            position_embeddings,
            attention_mask,
            past_key_values,
            position_ids,
            prev_topk_indices,
            kwargs,
        )
        return out, None, indices
