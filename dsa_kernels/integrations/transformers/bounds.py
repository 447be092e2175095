"""Which keys each query may see, as two numbers per query instead of a [queries, keys] mask."""

from __future__ import annotations

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function

IMPLEMENTATION = "dsa_kernels"  # the name under which transformers knows this attention


class RowBounds:
    """Query i of batch row b sees the cache columns [start[b, i], end[i]).

    start: int32 [batch, queries], the row's left padding
    end:   int32 [queries], one past the query's own column; at most `start` for a padding query
    padding: the same starts, one int per batch row
    key_end: columns of the cache that are filled once this call's tokens are stored
    key_length: columns of the cache; more than key_end for a static cache

    It takes the place of the attention mask in the model's forward, so it has those methods of a
    tensor that transformers and accelerate call on a mask.
    """

    def __init__(
        self,
        padding: list[int],
        queries: int,
        key_end: int,
        key_length: int,
        device: torch.device | str | None,
    ):
        self.padding = padding
        self.key_end = key_end
        self.key_length = key_length
        self.query_offset = key_end - queries
        int32 = {"dtype": torch.int32, "device": device}
        self.start = torch.tensor(padding, **int32)[:, None].repeat(1, queries)
        self.end = torch.arange(self.query_offset + 1, key_end + 1, **int32)
        self._positions_checked = False

    def all_visible(self) -> torch.Tensor:
        """int32 [batch, queries, key_end]: every key that each query sees, ascending, then -1."""
        columns = torch.arange(self.key_end, dtype=torch.int32, device=self.end.device)
        indices = self.start[..., None] + columns
        return indices.masked_fill_(indices >= self.end[:, None], -1)

    def check_positions(self, position_ids: torch.Tensor | None) -> None:
        """Raises for position_ids that do not count up by one along a row; once per call."""
        if position_ids is None or self._positions_checked:
            return
        is_token = self.end[:-1] > self.start[:, :-1]  # padding may carry any position
        step = position_ids.diff(dim=-1)
        if bool(((step != 1) & is_token).any()):
            raise ValueError(
                "dsa_kernels: position_ids must count up by one along each sequence; these "
                "restart or jump, as in packed sequences, and keys are bounded by one range per "
                "query. Pass one sequence per batch row, padded on the left."
            )
        self._positions_checked = True

    def contiguous(self) -> RowBounds:
        return self

    def to(self, device=None, **kwargs) -> RowBounds:
        if device is None or self.end.device == torch.device(device):
            return self
        queries = self.end.shape[0]
        return RowBounds(self.padding, queries, self.key_end, self.key_length, device)

    def __getitem__(self, key):
        _refuse_stock_attention()  # which slices its mask first of all


def row_bounds(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    mask_function=causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    device: torch.device | str | None = None,
    **_,
) -> RowBounds:
    """The mask function that transformers calls for this implementation."""
    if mask_function is not causal_mask_function or kv_offset != 0:
        raise ValueError(
            "dsa_kernels: only the causal mask over left-padded rows is supported; got another "
            "mask pattern (packed position_ids that restart, a block, sliding or custom overlay). "
            "Pass one sequence per batch row, or disable(model)."
        )
    key_end = int(q_offset) + q_length
    if kv_length < key_end:
        raise ValueError(
            f"dsa_kernels: the static cache holds {kv_length} tokens and this call ends at token "
            f"{key_end}. Make it with max_cache_len of at least {key_end}."
        )
    padding = [0] * batch_size
    if attention_mask is not None:
        padding = _left_padding(attention_mask, key_end)
    return RowBounds(padding, q_length, key_end, kv_length, device)


def _left_padding(mask: torch.Tensor, key_end: int) -> list[int]:
    """Leading zeros of each row of a boolean [batch, >= key_end] mask, which may have no other."""
    if mask.dim() != 2 or mask.shape[1] < key_end:
        raise ValueError(
            "dsa_kernels: attention_mask must be [batch, cached + new tokens] with at least "
            f"{key_end} columns here; got {list(mask.shape)}."
        )
    mask = mask[:, :key_end]
    drops = mask[:, :-1] & ~mask[:, 1:]
    if bool(drops.any()):
        row = int(drops.any(1).nonzero()[0])
        last = int(mask[row].nonzero()[-1])
        if int(drops[row].sum()) == 1 and last < key_end - 1:
            raise ValueError(
                f"dsa_kernels: attention_mask pads batch row {row} on the right (columns from "
                f'{last + 1}). Pad on the left: tokenizer.padding_side = "left".'
            )
        column = int(drops[row].nonzero()[0]) + 1
        raise ValueError(
            f"dsa_kernels: attention_mask has a hole in batch row {row} at column {column}: a "
            "masked token between visible ones. Only left padding is supported."
        )
    return (key_end - mask.sum(1)).tolist()


def _refuse_stock_attention(*_, **__):
    """Reached where an attention module that is not ours runs under this implementation's name."""
    raise RuntimeError(
        f'attn_implementation is "{IMPLEMENTATION}" but this model\'s attention is the stock one. '
        "Call dsa_kernels.integrations.transformers.enable(model) instead of setting the "
        "implementation; a model that shares its config object with an enabled one needs a copy of "
        "the config."
    )


AttentionMaskInterface.register(IMPLEMENTATION, row_bounds)
AttentionInterface.register(IMPLEMENTATION, _refuse_stock_attention)
