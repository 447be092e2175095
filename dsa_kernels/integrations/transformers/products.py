"""Matrix products around the attention: torch's own, or oneDNN's where those are slow.

On CPUs torch hands float32 products to MKL, which on processors other than Intel's stays with AVX2.
oneDNN, which torch also carries, uses AVX-512 there too: 2.5 times the speed on Zen 5.
"""

from __future__ import annotations

import torch
from torch.nn.modules import module as torch_module

# Fewer rows are bound by reading the weights, at which both are as good.
MIN_ROWS = 32


def linear(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """layer(x), for x [..., rows, in_features]."""
    if _is_plain(layer) and _through_onednn(x.numel() // x.shape[-1], x, layer.weight):
        return _onednn_linear(x, layer.weight, layer.bias)
    return layer(x)


def bmm_into(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """out [rows, heads, n] = a [heads, rows, k] @ b [heads, k, n], rounded to out's dtype."""
    if not _through_onednn(a.shape[1], a, b):
        out.copy_(torch.bmm(a, b).transpose(0, 1))
        return
    for head in range(a.shape[0]):
        out[:, head] = _onednn_linear(a[head], b[head].T, None)


def _onednn_linear(x, weight, bias) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _is_plain(layer: torch.nn.Module) -> bool:
    """Whether a call of the layer would do nothing but the product."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer)
    everywhere = torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks
    return type(layer) is torch.nn.Linear and not hooked and not everywhere


def _through_onednn(rows: int, x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # inductor cannot lower oneDNN's product, as it is called
        and rows >= MIN_ROWS
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and type(x.data) is type(weight.data) is torch.Tensor
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )
