"""record_indices and replay_indices: format, bitwise replay, mismatches."""

from __future__ import annotations

import pytest
import torch
from _transformers_models import TOPK, enabled, make_model, padded_mask, shared_model, text
from transformers import DynamicCache

from dsa_kernels.integrations.transformers import merge_calls, record_indices, replay_indices

PADDING = [0, 25]


@pytest.fixture(autouse=True)
def inference(threads):
    threads(1)  # these models are too small for two
    with torch.no_grad():
        yield


def rollout(model, ids, steps) -> torch.Tensor:
    cache, mask, out, end = DynamicCache(config=model.config), padded_mask(110, PADDING), [], 0
    for count in steps:
        start, end = end, end + count
        out.append(
            model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=cache).logits
        )
    return torch.cat(out, dim=1)


@pytest.mark.parametrize("name", ["deepseek", "glm"])
def test_replay_is_bitwise(name):
    model, ids, steps = shared_model(name), text(2, 110), [80, 27, 1, 1, 1]
    with enabled(model):
        with record_indices(model) as recorded:
            expected = rollout(model, ids, steps)
        assert len(recorded) == len(steps)
        with replay_indices(model, recorded):
            assert torch.equal(rollout(model, ids, steps), expected)
        # Recording stopped at the end of its block, and replay did too.
        assert len(recorded) == len(steps)
        assert torch.equal(rollout(model, ids, steps), expected)


def test_format():
    model, ids = shared_model("glm"), text(2, 110)
    with enabled(model), record_indices(model) as recorded:
        rollout(model, ids, [40, 70])
    assert [[tuple(i.shape) for i in call] for call in recorded] == [
        [(2, 40, 40)] * 3,
        [(2, 70, TOPK)] * 3,
    ]
    for call, first in zip(recorded, (0, 40), strict=True):
        assert call[1] is call[0]  # GLM's shared layer
        for indices in call:
            assert indices.dtype == torch.int32
            for b, padding in enumerate(PADDING):
                for i, row in enumerate(indices[b].tolist()):
                    visible = max(0, first + i + 1 - padding)
                    chosen = [j for j in row if j >= 0]
                    assert len(chosen) == min(TOPK, visible)
                    assert row == sorted(set(chosen)) + [-1] * (len(row) - len(chosen))
                    assert all(padding <= j <= first + i for j in chosen)


@pytest.mark.parametrize("name", ["deepseek", "glm"])
def test_a_merged_rollout_replays_as_one_call(name):
    model, ids = shared_model(name), text(2, 110)
    with enabled(model):
        with record_indices(model) as recorded:
            expected = rollout(model, ids, [60, 40] + [1] * 10)
        with replay_indices(model, merge_calls(recorded)):
            got = rollout(model, ids, [110])
    valid = padded_mask(110, PADDING).bool()
    torch.testing.assert_close(got[valid], expected[valid], atol=1e-4, rtol=0)


def test_replay_decides_the_selection_and_keeps_the_index_cache():
    model, ids = shared_model("deepseek"), text(1, 100)
    with enabled(model):
        cache = DynamicCache(config=model.config)
        own = model(ids, past_key_values=cache).logits
        with record_indices(model) as recorded:
            model(ids)
        newest = torch.arange(100)[:, None] - torch.arange(TOPK - 1, -1, -1)
        newest = newest.sort(-1).values
        only_recent = torch.where(newest >= 0, newest, -1).int()[None]
        replayed_cache = DynamicCache(config=model.config)
        with replay_indices(model, [[only_recent] * 2]):
            other = model(ids, past_key_values=replayed_cache).logits
    assert not torch.equal(own, other)
    assert torch.equal(cache.layers[0].indexer_keys, replayed_cache.layers[0].indexer_keys)
    assert len(recorded) == 1


def bad_recordings(good):
    call = good[0]
    later = call[0].clone()
    later[0, 0, 0] = 1
    return {
        "exhausted": ([], "exhausted: it holds 0 forward calls"),
        "layers": ([call[:1]], "call 0 holds indices of 1 layers; the model has 2"),
        "queries": ([[i[:, :-1] for i in call]], r"must be \[2, 110, width\].*got \[2, 109, 64\]"),
        "batch": ([[i[:1] for i in call]], r"must be \[2, 110, width\].*got \[1, 110, 64\]"),
        "dtype": (
            [[i.long() for i in call]],
            r"must be int32 \[batch, queries, width\]; got int64",
        ),
        "future": ([[later, call[1]]], "point at keys that their query does not see"),
    }


@pytest.mark.parametrize("case", ["exhausted", "layers", "queries", "batch", "dtype", "future"])
def test_mismatch_raises(case):
    model, ids = shared_model("deepseek"), text(2, 110)
    with enabled(model):
        with record_indices(model) as good:
            rollout(model, ids, [110])
        recording, message = bad_recordings(good)[case]
        with (
            replay_indices(model, recording),
            pytest.raises((TypeError, ValueError), match=message),
        ):
            rollout(model, ids, [110])
        # The failed call leaves nothing behind.
        with replay_indices(model, good):
            rollout(model, ids, [110])


def test_one_at_a_time_and_enabled_only():
    model = make_model("deepseek")
    with pytest.raises(ValueError, match="record_indices: this model is not enabled"):
        record_indices(model).__enter__()
    with enabled(model):
        with (
            record_indices(model),
            pytest.raises(ValueError, match="being recorded already"),
        ):
            record_indices(model).__enter__()
        with (
            replay_indices(model, []),
            pytest.raises(ValueError, match="replaying already"),
        ):
            replay_indices(model, []).__enter__()
