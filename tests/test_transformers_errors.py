"""What integrations.transformers refuses, at enable and at the call."""

from __future__ import annotations

import pytest
import torch
from _transformers_models import enabled, make_model, padded_mask, shared_model, text
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicSlidingWindowLayer, Fp8QuantizedLayer

from dsa_kernels.integrations.transformers import disable, enable


@pytest.fixture(autouse=True)
def inference(threads):
    threads(1)  # these models are too small for two
    with torch.no_grad():
        yield


CONFIGURATIONS = {
    "kv_lora_rank": (256, "config.kv_lora_rank must be 512; got 256"),
    "qk_rope_head_dim": (32, "config.qk_rope_head_dim must be 64; got 32"),
    "index_n_heads": (12, "config.index_n_heads must be 8 or 16 or 32 or 64; got 12"),
    "index_head_dim": (96, "config.index_head_dim must be 64 or 128; got 96"),
    "index_topk": (4097, r"config.index_topk must be in \[1, 4096\]; got 4097"),
    "num_attention_heads": (129, r"config.num_attention_heads must be in \[1, 128\]; got 129"),
}


@pytest.mark.parametrize("field", CONFIGURATIONS)
@pytest.mark.parametrize("name", ["deepseek", "glm"])
def test_configuration(name, field):
    value, message = CONFIGURATIONS[field]
    changes = {field: value}
    if field == "num_attention_heads":
        changes["num_key_value_heads"] = value
    model = make_model(name, **changes)
    with pytest.raises(ValueError, match=f"enable: {message}"):
        enable(model)
    model(text(1, 8))  # untouched


def test_layer_types():
    model = make_model("deepseek")
    model.config.layer_types = ["indexed_attention", "full_attention"]
    with pytest.raises(ValueError, match=r'config.layer_types must be "indexed_attention"'):
        enable(model)


def test_other_model_class():
    with pytest.raises(TypeError, match="must be a DeepseekV32ForCausalLM or GlmMoeDsaForCausalLM"):
        enable(make_model("deepseek").model)
    with pytest.raises(TypeError, match="got Linear"):
        enable(torch.nn.Linear(2, 2))


def test_indexer_dtype():
    model = make_model("deepseek")
    with pytest.raises(ValueError, match='indexer_dtype must be "model" or "fp8"; got \'int8\''):
        enable(model, indexer_dtype="int8")


def test_transformers_version(monkeypatch):
    monkeypatch.setattr("transformers.__version__", "5.24.1")
    with pytest.raises(RuntimeError, match=r"supports transformers 5.23.\*; found 5.24.1"):
        enable(make_model("deepseek"))


def test_dtype():
    model = make_model("deepseek").half()
    with pytest.raises(TypeError, match="weights must be float32 or bfloat16; got float16"):
        enable(model)


def test_kv_b_proj_that_is_not_a_plain_linear():
    class Adapter(torch.nn.Linear):
        pass

    model = make_model("deepseek")
    model.model.layers[1].self_attn.kv_b_proj.__class__ = Adapter
    with pytest.raises(TypeError, match=r"layer 1: kv_b_proj must be a plain .*; got Adapter"):
        enable(model)


def test_wrapped_attention():
    model = make_model("deepseek")
    attention = model.model.layers[1].self_attn
    stock = attention.forward
    attention.forward = lambda *args, **kwargs: stock(*args, **kwargs)
    with pytest.raises(RuntimeError, match=r"enable: layer 1: .* wrapped or replaced"):
        enable(model)
    del attention.forward
    enable(model)
    attention.forward = lambda *args, **kwargs: stock(*args, **kwargs)
    with pytest.raises(RuntimeError, match="disable: the attention of layer 1 was wrapped"):
        disable(model)
    del attention.forward
    disable(model)


def test_disable_needs_enable():
    with pytest.raises(ValueError, match="disable: this model is not enabled"):
        disable(make_model("deepseek"))


def call_with(name="deepseek", tokens=12, batch=2, **inputs):
    model = shared_model(name)
    with enabled(model):
        return model(text(batch, tokens), **inputs)


def test_mask_with_a_hole():
    mask = padded_mask(12, [0, 3])
    mask[1, 7] = 0
    with pytest.raises(ValueError, match="has a hole in batch row 1 at column 7"):
        call_with(attention_mask=mask)


def test_right_padding():
    mask = padded_mask(12, [0, 3]).flip(1)
    with pytest.raises(ValueError, match=r"pads batch row 1 on the right \(columns from 9\)"):
        call_with(attention_mask=mask)


def test_right_padded_prompt_shows_as_a_hole_when_decoding():
    model, cache = shared_model("deepseek"), None
    with enabled(model):
        cache = DynamicCache(config=model.config)
        model(text(2, 12), past_key_values=cache)
        mask = torch.cat([padded_mask(12, [0, 3]).flip(1), torch.ones(2, 1, dtype=torch.long)], 1)
        with pytest.raises(ValueError, match="has a hole in batch row 1 at column 9"):
            model(text(2, 1), attention_mask=mask, past_key_values=cache)
        with pytest.raises(ValueError, match=r"at least 13 columns here; got \[2, 1\]"):
            model(text(2, 1), attention_mask=mask[:, -1:], past_key_values=cache)


@pytest.mark.parametrize("use_cache", [False, True])
def test_packed_positions(use_cache):
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None]
    with pytest.raises(ValueError, match=r"position_ids.* restart"):
        call_with(batch=1, position_ids=positions, use_cache=use_cache)


def test_packed_positions_in_one_row_of_a_padded_batch():
    positions = torch.stack([torch.arange(12), torch.arange(12)])
    positions[1, 8:] = torch.arange(4)
    with pytest.raises(ValueError, match="position_ids must count up by one"):
        call_with(attention_mask=padded_mask(12, [0, 3]), position_ids=positions)


def test_positions_of_padding_are_free():
    mask = padded_mask(12, [0, 3])
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)  # what generate() passes
    model = shared_model("deepseek")
    expected = model(text(2, 12), attention_mask=mask, position_ids=positions).logits
    got = call_with(attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(got[mask.bool()], expected[mask.bool()], atol=1e-4, rtol=0)


def test_cu_seq_lens():
    bounds = torch.tensor([0, 5, 12], dtype=torch.int32)
    with pytest.raises(ValueError, match="packed sequences"):
        call_with(batch=1, cu_seq_lens_q=bounds, cu_seq_lens_k=bounds)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_custom_mask(dtype):
    mask = torch.ones(2, 1, 12, 12, dtype=dtype)
    with pytest.raises(ValueError, match="custom attention mask"):
        call_with(attention_mask=mask)
    with pytest.raises(ValueError, match="custom attention mask"):
        call_with(attention_mask={"indexed_attention": mask})


def test_output_attentions():
    with pytest.raises(ValueError, match="output_attentions=True is not supported"):
        call_with(output_attentions=True)
    assert len(call_with(output_hidden_states=True).hidden_states) == 3


def test_caches():
    config = shared_model("deepseek").config
    with pytest.raises(ValueError, match="got DynamicCache made without a config"):
        call_with(past_key_values=DynamicCache())
    for layer, kind in (
        (lambda: DynamicSlidingWindowLayer(sliding_window=8), "DynamicSlidingWindowLayer"),
        (Fp8QuantizedLayer, "Fp8QuantizedLayer"),
    ):
        cache = DynamicCache(config=config)
        cache.layers = [layer() for _ in cache.layers]
        with pytest.raises(ValueError, match=f"cache must be .*; got DynamicCache of {kind}"):
            call_with(past_key_values=cache)
    cache = DynamicCache(config=config)
    cache.offloading = True
    with pytest.raises(ValueError, match="offloaded cache is not supported"):
        call_with(past_key_values=cache)


def test_static_cache_too_small():
    cache = StaticCache(config=shared_model("deepseek").config, max_cache_len=10)
    with pytest.raises(ValueError, match="holds 10 tokens and this call ends at token 12"):
        call_with(past_key_values=cache)


def test_a_refused_call_leaves_the_cache_as_it_was():
    cache = DynamicCache(config=shared_model("deepseek").config)
    with pytest.raises(ValueError):
        call_with(past_key_values=cache, output_attentions=True)
    assert cache.get_seq_length() == 0


def test_gradients():
    with torch.enable_grad(), pytest.raises(RuntimeError, match="no backward"):
        call_with()


def test_dropout():
    model = make_model("deepseek", attention_dropout=0.1).train()
    with enabled(model), pytest.raises(ValueError, match="attention_dropout is not supported"):
        model(text(1, 8))


def test_half_at_the_call():
    model = make_model("deepseek")
    enable(model).half()
    with pytest.raises(TypeError, match="must run in float32 or bfloat16; got float16"):
        model(text(1, 8))


def test_implementation_name_without_enable():
    model = make_model("deepseek")
    model.set_attn_implementation("dsa_kernels")
    with pytest.raises(RuntimeError, match=r"enable\(model\) instead of setting"):
        model(text(1, 8))


def test_implementation_changed_while_enabled():
    model = make_model("deepseek")
    enable(model)
    model.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError, match=r'set to "sdpa" since. Call disable\(model\) first'):
        model(text(1, 8))
