"""One run of the demo's model, in a process of its own so that its memory can be measured.

    python -m dsa_kernels.cli.demo_worker SPEC      SPEC: a `Spec` as JSON

Prints one JSON object a line: {"phase": ..., "tokens": done so far} on the way, {"result": ...} at
the end. Logits and selections go to files as they are made, so keeping them takes no memory.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

VOCAB = 256  # a token is a byte


@dataclass
class Spec:
    """What a worker does. Lengths are in tokens."""

    implementation: str  # "eager", "sdpa" or "enabled"
    text: str  # a file with at least contexts[-1] + steps + 1 bytes
    out: str  # logits and selections go to files `out`.*, which must not exist; "" keeps neither
    contexts: list[int]  # ascending; decode steps are timed at each
    steps: int  # decode steps at each context, along the text
    greedy: int  # tokens that the model then continues with on its own
    chunk: int
    layers: int
    heads: int
    topk: int
    dtype: str
    seed: int
    threads: int
    budget: float  # seconds; contexts that are not reached by then are left out


def build_model(spec: Spec):
    """A seeded DeepseekV32ForCausalLM: V3.2's attention in a model that is otherwise small."""
    from transformers import DeepseekV32Config, DeepseekV32ForCausalLM

    config = DeepseekV32Config(
        vocab_size=VOCAB,
        hidden_size=1024,
        intermediate_size=1024,
        num_hidden_layers=spec.layers,
        first_k_dense_replace=spec.layers,  # no experts: attention is what is shown
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        q_lora_rank=512,
        index_topk=spec.topk,
        max_position_embeddings=65536,
    )
    config._attn_implementation = "sdpa" if spec.implementation == "sdpa" else "eager"
    torch.manual_seed(spec.seed)
    model = DeepseekV32ForCausalLM(config).eval().to(getattr(torch, spec.dtype))
    if spec.implementation == "enabled":
        from dsa_kernels.integrations.transformers import enable

        enable(model)
    return model


def resident_bytes() -> int:
    """Memory that this process occupies now; its peak where the system does not say."""
    return _status_bytes("VmRSS:") or peak_bytes()


def peak_bytes() -> int:
    """The most that `resident_bytes` has been since the start, or since `reset_peak`."""
    if peak := _status_bytes("VmHWM:"):
        return peak
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> None:
    """Takes the present size for the peak, where the system can, so that loading does not count."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0


class RecordTopk(TorchFunctionMode):
    """Records each `Tensor.topk` made within: the indices, and how close the selection was.

    closeness: (k-th value - next one) / |first value|, per row; inf where all were selected.
    """

    def __init__(self):
        super().__init__()
        self.records: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.Tensor.topk:
            return func(*args, **(kwargs or {}))
        values, k = args
        with_next = torch.topk(values, min(k + 1, values.shape[-1]), dim=-1)
        best, last = with_next.values[..., 0].abs(), with_next.values[..., k - 1]
        closeness = torch.full_like(last, math.inf)
        if values.shape[-1] > k:
            closeness = (last - with_next.values[..., k]) / best
        result = torch.return_types.topk(
            (with_next.values[..., :k], with_next.indices[..., :k].contiguous())
        )
        self.records.append((result.indices, closeness))
        return result


@contextlib.contextmanager
def recorded_selections(model, spec: Spec) -> Iterator[list]:
    """Within it, (indices [1, rows, topk], closeness or None) of each layer go into the list."""
    if spec.implementation != "enabled":
        with RecordTopk() as recorder:
            yield recorder.records
        return
    from dsa_kernels.integrations.transformers import record_indices

    records = []
    with record_indices(model) as recorded:
        yield records
    records += [(indices, None) for call in recorded for indices in call]


class Run:
    """The model, its cache, and where it is in the text."""

    def __init__(self, spec: Spec):
        self.spec = spec
        text = Path(spec.text).read_bytes()[: spec.contexts[-1] + spec.steps]
        self.tokens = torch.tensor(list(text)).unsqueeze(0)
        self.model = build_model(spec)
        self.cache = None
        self.position = 0
        self.next_logits = None  # [VOCAB], of the last token

    def forward(self, tokens: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Runs the model on `tokens` [1, n] behind the cache; returns seconds and logits [n]."""
        start = time.perf_counter()
        out = self.model(tokens, past_key_values=self.cache, use_cache=True)
        seconds = time.perf_counter() - start
        self.cache = out.past_key_values
        logits = out.logits[0].float()
        self.next_logits = logits[-1]
        return seconds, logits

    def advance(self, count: int) -> float:
        """Runs the text's next `count` tokens and keeps what the spec asks for; returns seconds."""
        first, self.position = self.position, self.position + count
        tokens = self.tokens[:, first : self.position]
        if not self.spec.out:
            return self.forward(tokens)[0]
        with recorded_selections(self.model, self.spec) as records:
            seconds, logits = self.forward(tokens)
        self.keep("logits", logits)
        for layer, (indices, closeness) in enumerate(records):
            choosing = slice(max(0, self.spec.topk - first), None)  # rows with more than topk keys
            rows, width = indices[0, choosing].long(), self.tokens.shape[1]
            selected = torch.zeros(rows.shape[0], width + 1, dtype=torch.bool)
            selected.scatter_(1, rows % (width + 1), True)  # -1 goes to the last column
            self.keep(f"selected{layer}", np.packbits(selected[:, :width].numpy(), axis=1))
            if closeness is not None:
                self.keep(f"closeness{layer}", closeness[0, choosing])
        return seconds

    def keep(self, kind: str, rows: torch.Tensor | np.ndarray) -> None:
        with open(f"{self.spec.out}.{kind}", "ab") as file:
            file.write(np.asarray(rows).tobytes())


def say(**message) -> None:
    print(json.dumps(message), flush=True)


@torch.no_grad()
def run(spec: Spec) -> dict:
    """Prefills and decodes along the text; returns what was measured."""
    deadline = time.perf_counter() + spec.budget
    torch.set_num_threads(spec.threads)
    say(phase="loading", tokens=0)
    state = Run(spec)
    reset_peak()
    loaded = resident_bytes()
    contexts = list(along_the_text(state, loaded, deadline))
    result = {"loaded_bytes": loaded, "contexts": contexts, "greedy": []}
    if spec.greedy and time.perf_counter() < deadline:
        say(phase="greedy continuation", tokens=state.position)
        result["greedy"] = [greedy_step(state) for _ in range(spec.greedy)]
    return result


def along_the_text(state: Run, loaded: int, deadline: float) -> Iterator[dict]:
    """Yields a record at each context, until the deadline."""
    prefill = 0.0
    for context in state.spec.contexts:
        while state.position < context:
            if time.perf_counter() > deadline:
                return
            say(phase=f"prefill to {context:,}", tokens=state.position)
            prefill += state.advance(min(state.spec.chunk, context - state.position))
        say(phase=f"decode at {context:,}", tokens=state.position)
        steps = [state.advance(1) for _ in range(state.spec.steps)]
        yield {
            "tokens": context,
            "prefill_s": prefill,
            "decode_s": statistics.median(steps),
            "growth_bytes": peak_bytes() - loaded,
        }


def greedy_step(state: Run) -> dict:
    """Runs the likeliest next token; returns it and its lead over the second, in logits."""
    best = state.next_logits.topk(2)
    state.forward(best.indices[:1].unsqueeze(0))
    lead = (best.values[0] - best.values[1]).item()
    return {"token": best.indices[0].item(), "lead": lead}


if __name__ == "__main__":
    say(result=run(Spec(**json.loads(sys.argv[1]))))
