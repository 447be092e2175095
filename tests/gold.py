"""Formulas of the papers in fp64, written without the package's reference."""

from __future__ import annotations

import math

import torch


def logits(q, k, weights, k_scale=None) -> torch.Tensor:
    """float64 [rows, keys]: k_scale[s] * sum_h weights[t, h] relu(q[t, h] . k[s])."""
    dots = torch.einsum("thd,sd->ths", q.double(), k.double())
    out = torch.einsum("th,ths->ts", weights.double(), torch.where(dots < 0, 0.0, dots))
    return out if k_scale is None else out * k_scale.double()


def attention(q, keys, sm_scale, sink=None):
    """One query: q [heads, d_qk], keys [n, d_qk] -> float64 out [heads, 512], max, lse [heads]."""
    heads = q.shape[0]
    if keys.shape[0] == 0:
        empty = torch.full((heads,), -math.inf, dtype=torch.float64)
        return torch.zeros(heads, 512, dtype=torch.float64), empty, empty
    scores = q.double() @ keys.double().T * sm_scale
    lse = torch.logsumexp(scores, -1)
    log_denominator = lse if sink is None else torch.logaddexp(lse, sink.double())
    p = torch.exp(scores - log_denominator[:, None])
    return p @ keys.double()[:, :512], scores.amax(-1), lse


def attention_rounded(q, keys, sm_scale, sink=None):
    """The same in fp32, with P rounded to bf16 before P.V, as a tensor-core kernel would do it."""
    if keys.shape[0] == 0:
        return torch.zeros(q.shape[0], 512)
    scores = q.float() @ keys.float().T * sm_scale
    top = scores.amax(-1, keepdim=True)
    p = torch.exp(scores - top)
    total = p.sum(-1, keepdim=True)
    if sink is not None:
        total = total + torch.exp(sink[:, None] - top)
    return (p.bfloat16().float() @ keys.float()[:, :512]) / total


def valid(indices, length, start, capacity) -> list[int]:
    """Positions that a row of indices selects, by the contract's rule, in plain Python."""
    count = len(indices) if length is None else max(0, min(int(length), len(indices)))
    picked = [int(i) for i in indices[:count]]
    return [start + i for i in picked if i >= 0 and 0 <= start + i < capacity]
