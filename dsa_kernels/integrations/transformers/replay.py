"""Recording and replaying the selected indices of an enabled model.

A recording is a list with one entry per forward call; an entry is a list with one tensor per layer:
int32 [batch, queries, width], absolute columns of the key cache, ascending, padded at the end with
-1, width = min(index_topk, keys). A layer that shares another's selection holds the same tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dsa_kernels.integrations.transformers.bounds import RowBounds

Recording = list[list[torch.Tensor]]


@dataclass
class State:
    """What the attention modules of one enabled model share."""

    indexer_dtype: str
    stock_implementation: str
    num_layers: int
    recording: Recording | None = None
    replayed: Recording | None = None
    replayed_calls: int = 0

    def begin_call(self) -> None:
        """The first layer of a forward call has been reached."""
        if self.recording is not None:
            self.recording.append([])
        if self.replayed is not None:
            if self.replayed_calls == len(self.replayed):
                raise ValueError(
                    f"replay_indices: the recording is exhausted: it holds {len(self.replayed)} "
                    "forward calls and the model has made one more."
                )
            layers = len(self.replayed[self.replayed_calls])
            if layers != self.num_layers:
                raise ValueError(
                    f"replay_indices: call {self.replayed_calls} holds indices of {layers} layers; "
                    f"the model has {self.num_layers}."
                )
            self.replayed_calls += 1

    def take(self, layer: int, bounds: RowBounds) -> torch.Tensor | None:
        """Indices [batch, queries, width] to use in place of the layer's own, None for its own."""
        if self.replayed is None:
            return None
        call = self.replayed_calls - 1
        indices = self.replayed[call][layer]
        expected = list(bounds.start.shape)
        what = f"replay_indices: call {call}, layer {layer}: indices"
        if indices.dtype != torch.int32 or indices.dim() != 3:
            raise TypeError(
                f"{what} must be int32 [batch, queries, width]; "
                f"got {str(indices.dtype)[6:]} {list(indices.shape)}."
            )
        if list(indices.shape[:2]) != expected or indices.shape[2] == 0:
            raise ValueError(
                f"{what} must be [{expected[0]}, {expected[1]}, width] for this call; "
                f"got {list(indices.shape)}."
            )
        indices = indices.to(bounds.start.device)
        hidden = (indices < bounds.start[..., None]) | (indices >= bounds.end[:, None])
        if bool((hidden & (indices != -1)).any()):
            raise ValueError(
                f"{what} point at keys that their query does not see (padding or later tokens)."
            )
        return indices

    def record(self, indices: torch.Tensor) -> None:
        if self.recording is not None:
            self.recording[-1].append(indices)


def state_of(model, caller: str) -> State:
    state = getattr(model, "_dsa_kernels", None)
    if state is None:
        raise ValueError(f"{caller}: this model is not enabled. Call enable(model) first.")
    return state


@contextmanager
def record_indices(model) -> Iterator[Recording]:
    """Yields a list that every forward call inside the block appends its indices to.

    The tensors stay on the model's device; move them with `.cpu()` where memory there matters.
    See the module docstring for the format. Raises ValueError where the model is not enabled or is
    being recorded already.
    """
    state = state_of(model, "record_indices")
    if state.recording is not None:
        raise ValueError("record_indices: this model is being recorded already.")
    state.recording = []
    try:
        yield state.recording
    finally:
        state.recording = None


@contextmanager
def replay_indices(model, recorded: Recording) -> Iterator[None]:
    """Forward calls inside the block attend to `recorded` indices, one entry per call, in order.

    The indexers still store their keys, and do not score. Raises ValueError or TypeError, at the
    forward call that meets it, where an entry does not fit the call or none is left; leaving the
    block with entries unused is no error.
    """
    state = state_of(model, "replay_indices")
    if state.replayed is not None:
        raise ValueError("replay_indices: this model is replaying already.")
    state.replayed, state.replayed_calls = recorded, 0
    try:
        yield
    finally:
        state.replayed = None


def merge_calls(recorded: Recording) -> Recording:
    """Makes one entry of successive calls on the same sequences (chunks, then decode steps).

    What a rollout recorded token by token can so be replayed by one forward call over all tokens.
    """
    merged = []
    for layer in zip(*recorded, strict=True):
        width = max(indices.shape[2] for indices in layer)
        padded = [torch.nn.functional.pad(i, (0, width - i.shape[2]), value=-1) for i in layer]
        merged.append(torch.cat(padded, dim=1))
    return [merged]
