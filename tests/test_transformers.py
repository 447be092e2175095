"""integrations.transformers against the eager model: selection, logits, caches, generate."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from _transformers_models import (
    TOPK,
    eager_selection,
    enabled,
    make_model,
    padded_mask,
    shared_model,
    text,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache, StaticCache

from dsa_kernels.integrations.transformers import (
    attention,
    disable,
    enable,
    indexer as lightning,
    record_indices,
    replay_indices,
)
from dsa_kernels.integrations.transformers.bounds import row_bounds

MODELS = ["deepseek", "glm"]
PADDINGS = [[0], [0, 37, 300]]
TOKENS = 330
DECODE = [1] * 10
STEPS = {  # tokens of each forward call, cache
    "one-shot": ([TOKENS], None),
    "chunked-dynamic": ([100, 100, 100, 30], "dynamic"),
    "chunked-static": ([100, 100, 100, 30], "static"),
    "decode-dynamic": ([TOKENS - 10, *DECODE], "dynamic"),
    "decode-static": ([TOKENS - 10, *DECODE], "static"),
}


@pytest.fixture(autouse=True)
def inference(threads):
    threads(1)  # these models are too small for two
    with torch.no_grad():
        yield


def make_cache(model, kind: str | None):
    if kind == "static":
        return StaticCache(config=model.config, max_cache_len=400)
    return DynamicCache(config=model.config) if kind == "dynamic" else None


def logits_along(model, ids, mask, steps, cache_kind):
    """Teacher-forced logits [batch, tokens, vocab], fed `steps` tokens at a time."""
    cache, out, end = make_cache(model, cache_kind), [], 0
    for count in steps:
        start, end = end, end + count
        call = {"past_key_values": cache, "use_cache": cache is not None}
        out.append(model(ids[:, start:end], attention_mask=mask[:, :end], **call).logits)
    return torch.cat(out, dim=1)


def assert_same_selection(model, eager, recorded, paddings, gap=1e-5) -> bool:
    """Sets are equal unless eager's k-th and next score are within `gap` of the k-th, relatively.

    Returns whether all are equal. A near-tie that flips changes what later layers see, so nothing
    after that layer is compared.
    """
    expected = eager.as_recording(model)
    full = -1
    for layer, module in enumerate(model.model.layers):
        if module.self_attn.indexer is None:
            continue
        full += 1
        flipped = False
        first = 0
        for call, want in enumerate(expected):
            want, got, scores = want[layer], recorded[call][layer], eager.scores[call][full]
            width = max(want.shape[2], got.shape[2])
            want, got = (
                torch.nn.functional.pad(x, (0, width - x.shape[2]), value=-1) for x in (want, got)
            )
            for b, row in (want != got).any(-1).nonzero().tolist():
                if first + row < paddings[b]:
                    continue  # a padding query: eager's choice there means nothing
                best = scores[b, row].sort(descending=True).values
                near = (best[TOPK - 1] - best[TOPK]) / best[TOPK - 1].abs()
                assert near <= gap, f"call {call} layer {layer} row {(b, row)}: gap {near:.1e}"
                flipped = True
            first += want.shape[1]
        if flipped:
            return False
    return True


def assert_agrees(model, padding, tokens, steps, cache_kind, tolerance):
    ids, mask = text(len(padding), tokens), padded_mask(tokens, padding)
    with eager_selection(model) as eager:
        expected = logits_along(model, ids, mask, steps, cache_kind)
    with enabled(model), record_indices(model) as recorded:
        got = logits_along(model, ids, mask, steps, cache_kind)
    if not assert_same_selection(model, eager, recorded, padding):
        # A near-tie went the other way; logits are comparable only on the same selection.
        with enabled(model), replay_indices(model, eager.as_recording(model)):
            got = logits_along(model, ids, mask, steps, cache_kind)
    valid = mask.bool()
    difference = (got - expected)[valid].abs().max().item()
    assert difference <= tolerance
    assert got.isfinite().all()


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_parity(name, padding, steps):
    assert_agrees(shared_model(name), padding, TOKENS, *STEPS[steps], tolerance=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_parity_at_512(name):
    assert_agrees(shared_model(name), [0], 512, [512], None, tolerance=1e-3)


@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", MODELS)
def test_parity_while_all_keys_are_selected(name, cache_kind):
    steps = [20, 20, TOPK - 44, 1, 1, 1, 1]
    assert_agrees(shared_model(name), [0, 5, 30], TOPK, steps, cache_kind, tolerance=1e-4)


def test_query_blocks_do_not_change_the_result(monkeypatch):
    model, ids = shared_model("deepseek"), text(2, 150)
    with enabled(model):
        whole = model(ids).logits
        monkeypatch.setattr(attention, "QUERY_BLOCK", 64)
        blocks = model(ids).logits
    torch.testing.assert_close(blocks, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16(name, capsys):
    model, ids = shared_model(name, torch.bfloat16), text(1, TOKENS)
    with eager_selection(model) as eager:
        expected = model(ids).logits
    with enabled(model), record_indices(model) as recorded:
        got = model(ids).logits
    overlap = report(capsys, f"{name} bfloat16", model, eager, recorded, expected, got)
    assert overlap[0] == 1  # the first layer's indexer scores the same numbers
    assert min(overlap) >= 0.97


@pytest.mark.parametrize("name", MODELS)
def test_fp8_indexer(name, capsys):
    model, ids = shared_model(name), text(1, TOKENS)
    with eager_selection(model) as eager:
        expected = model(ids).logits
    with enabled(model, indexer_dtype="fp8"), record_indices(model) as recorded:
        got = model(ids).logits
    overlap = report(capsys, f"{name} fp8 indexer", model, eager, recorded, expected, got)
    # Random weights magnify every token that differs: later layers score other inputs.
    assert overlap[0] >= 0.96
    assert min(overlap) >= 0.8


def report(capsys, what, model, eager, recorded, expected, got) -> list[float]:
    """Prints, and returns the share of equal indices per layer; bounds the logit difference."""
    want = eager.as_recording(model)[0]
    shares = []
    for a, b in zip(want, recorded[0], strict=True):
        rows = slice(TOPK, None)  # earlier rows select everything
        same = (a[:, rows, :, None] == b[:, rows, None, :]).sum() / a[:, rows].numel()
        shares.append(same.item())
    difference = (got.float() - expected.float()).abs()
    with capsys.disabled():
        print(
            f"\n{what}: overlap per layer {[round(s, 4) for s in shares]}, logits differ by "
            f"{difference.mean():.2g} on average, {difference.max():.2g} at most "
            f"(largest logit {expected.abs().max():.2g})"
        )
    assert difference.mean() <= 0.05 * expected.abs().max()
    assert difference.max() <= expected.abs().max()
    return shares


def test_fp8_indexer_against_its_formula():
    """Hadamard and ue8m0 quantisation of both q and k, then the score, written out in float64."""
    indexer = shared_model("deepseek").model.layers[0].self_attn.indexer
    torch.manual_seed(0)
    tokens, dim, heads = 200, indexer.head_dim, indexer.n_heads
    hidden = torch.randn(1, tokens, indexer.hidden_size)
    q_resid = torch.randn(1, tokens, indexer.q_lora_rank)
    keys = torch.randn(1, tokens, dim)
    rope = [torch.ones(1, tokens, 64), torch.zeros(1, tokens, 64)]  # no rotation
    got = lightning.select(
        indexer,
        hidden,
        q_resid,
        rope,
        keys,
        row_bounds(1, tokens, tokens),
        attention.SparseDeepseekV32Attention.indexer_rope,
        "fp8",
    )[0]

    hadamard = torch.ones(1, 1)
    while hadamard.shape[0] < dim:
        hadamard = torch.cat(
            [torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)]
        )

    def through_fp8(x):
        x = x @ (hadamard * dim**-0.5)
        scale = 2 ** (x.abs().amax(-1, keepdim=True).clamp_min(1e-4) / 448).log2().ceil()
        return ((x / scale).to(torch.float8_e4m3fn).float() * scale).double()

    q = through_fp8(indexer.wq_b(q_resid).view(tokens, heads, dim))
    weights = indexer.weights_proj(hidden)[0].double() * (heads * dim) ** -0.5
    scores = torch.einsum("qhd,kd->qhk", q, through_fp8(keys[0])).relu()
    scores = (scores * weights[..., None]).sum(1)
    scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf)
    different = 0
    for row in range(TOPK, tokens):
        best = scores[row].topk(TOPK + 1)
        if set(got[row].tolist()) != set(best.indices[:TOPK].tolist()):
            # A code that rounds the other way: the transform sums in another order here.
            assert best.values[TOPK - 1] - best.values[TOPK] < 1e-3 * best.values[0].abs()
            different += 1
    assert different <= 2


@pytest.mark.parametrize("name", MODELS)
def test_caches_hold_what_eager_writes(name):
    model, ids = shared_model(name), text(2, 120)
    for kind in ("dynamic", "static"):
        ours, eager = make_cache(model, kind), make_cache(model, kind)
        model(ids, past_key_values=eager)
        with enabled(model):
            model(ids, past_key_values=ours)
        for i, (a, b) in enumerate(zip(ours.layers, eager.layers, strict=True)):
            assert type(a) is type(b) and int(a.get_seq_length()) == 120
            for field in ("keys", "values", "indexer_keys"):
                x, y = getattr(a, field), getattr(b, field)
                if y is None:  # a GLM layer without an indexer
                    assert x is None
                else:
                    # The first layer's input is the embeddings, so its cache is bitwise the same.
                    torch.testing.assert_close(x, y, atol=1e-4 if i else 0, rtol=0)


@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", MODELS)
def test_switching_during_a_generation(name, cache_kind):
    model, ids = shared_model(name), text(2, 130)
    steps = [100] + [10] * 3
    expected = logits_along(model, ids, padded_mask(130, [0, 20]), steps, cache_kind)
    cache, mask, out, end = make_cache(model, cache_kind), padded_mask(130, [0, 20]), [], 0
    for i, count in enumerate(steps):
        (enable if i % 2 else lambda m: m)(model)
        start, end = end, end + count
        out.append(
            model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=cache).logits
        )
        if i % 2:
            disable(model)
    difference = (torch.cat(out, 1) - expected)[mask.bool()].abs().max()
    assert difference <= 1e-3


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"num_beams": 2}])
@pytest.mark.parametrize("name", MODELS)
def test_generate(name, options):
    model, ids, mask = shared_model(name), text(2, 90), padded_mask(90, [0, 15])
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(ids, attention_mask=mask, **settings)
    if "num_beams" in options:
        expected = model.generate(ids, attention_mask=mask, **settings, **options)
    with enabled(model):
        got = model.generate(ids, attention_mask=mask, **settings, **options)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("name", MODELS)
def test_disable_restores_the_model(name):
    model, ids = make_model(name, seed=3), text(2, 100)
    before, keys = model(ids).logits, list(model.state_dict())
    attributes = [set(vars(m)) for m in model.modules()]
    classes = [type(m) for m in model.modules()]
    assert enable(model) is model
    assert list(model.state_dict()) == keys
    assert model.config._attn_implementation == "dsa_kernels"
    assert "dsa_kernels" not in model.config.to_json_string()
    model(ids)
    assert disable(model) is model
    assert torch.equal(model(ids).logits, before)
    assert [type(m) for m in model.modules()] == classes
    assert [set(vars(m)) for m in model.modules()] == attributes
    assert model.config._attn_implementation == "eager"


def test_enabled_models_follow_their_weights():
    """Nothing derived from the weights is kept: in-place updates, .to() and copies are right."""
    model, ids = make_model("deepseek", seed=4), text(1, 100)
    enable(model)
    model(ids)
    for layer in model.model.layers:
        layer.self_attn.kv_b_proj.weight.mul_(0.7)
    got = model(ids).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(ids).logits, got)
        disable(other)
        torch.testing.assert_close(other(ids).logits, got, atol=1e-3, rtol=0)
    assert model.to(torch.bfloat16)(ids).logits.dtype == torch.bfloat16


def test_enable_again_sets_the_options():
    model = make_model("deepseek")
    enable(model)
    enable(model, indexer_dtype="fp8")
    assert model._dsa_kernels.indexer_dtype == "fp8"
    disable(model)
    assert model.config._attn_implementation == "eager"


@pytest.mark.slow
def test_compiled():
    """More tokens than products.MIN_ROWS, so that not compiled they go to oneDNN."""
    model, ids = make_model("deepseek", num_hidden_layers=1), text(1, 100)
    enable(model)
    torch._dynamo.reset()
    expected = model(ids).logits
    got = torch.compile(model)(ids).logits
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        torch._dynamo.reset()
        torch.compile(model, fullgraph=True)(ids)


class Shapes(TorchDispatchMode):
    """Records the shape of every tensor that an operator makes."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.seen |= {tuple(x.shape) for x in tree_leaves(result) if isinstance(x, torch.Tensor)}
        return result


@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
def test_no_tensor_has_both_queries_and_keys(cache_kind):
    model, ids = shared_model("deepseek"), text(1, 307)
    queries, keys = 211, 400 if cache_kind == "static" else 307

    def has_both() -> bool:
        cache = make_cache(model, cache_kind)
        model(ids[:, : 307 - queries], past_key_values=cache)
        with Shapes() as shapes:
            model(ids[:, 307 - queries :], past_key_values=cache)
        return any(queries in shape and keys in shape for shape in shapes.seen)

    assert has_both()  # eager: the test can tell
    with enabled(model):
        assert not has_both()


def test_row_bounds_are_small():
    bounds = row_bounds(1, 65536, 65536)
    tensors = [v for v in vars(bounds).values() if isinstance(v, torch.Tensor)]
    assert sum(t.numel() * t.element_size() for t in tensors) <= 8 * 65536
    assert bounds.start[0, 0] == 0 and bounds.end[[0, -1]].tolist() == [1, 65536]
