"""What the kernels of the lightning indexer share: operands of products, scores from products."""

import tilelang.language as T
import torch

from tilelang_kernels.pieces.arguments import ALIGNMENT, aligned, name_of
from tilelang_kernels.pieces.fp8 import E4M3FN, FNUZ, code_value, fnuz_operand, in_pair, in_pairs
from tilelang_kernels.toolchain.targets import Target


def product_type(target: Target, dtype: str) -> str:
    """Of operands of matrix products: bfloat16, which is exact, where there are none of fp8."""
    return (target.fp8 or "bfloat16") if dtype == E4M3FN else dtype


def product_scale(target: Target, dtype: str) -> float:
    """What products of operands are to be multiplied by: as e4m3fnuz both are half their value."""
    return 4.0 if product_type(target, dtype) == FNUZ else 1.0


def word_type(target: Target, dtype: str) -> str:
    """Of words of operands in memory: an operand, or two codes."""
    return "bfloat16" if dtype == E4M3FN and in_pairs(target) else dtype


def words(target: Target, dtype: str) -> int:
    """Of a chunk, 16 bytes."""
    return ALIGNMENT // getattr(torch, word_type(target, dtype)).itemsize


def elements(dtype: str) -> int:
    """Of a chunk."""
    return ALIGNMENT // getattr(torch, dtype).itemsize


def operands(target: Target, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor [..., dim] as an array of words of operands, [n, chunks, words]."""
    dtype = name_of(tensor.dtype)
    rows = aligned(tensor).view(-1, tensor.shape[-1]).view(getattr(torch, word_type(target, dtype)))
    return rows.view(rows.shape[0], tensor.shape[-1] // elements(dtype), words(target, dtype))


def staging(target: Target, rows: int, dim: int, dtype: str):
    """Registers for rows on their way to shared memory: as words, and as operands."""
    chunks = dim // elements(dtype)
    return (
        T.alloc_fragment((rows, chunks, words(target, dtype)), word_type(target, dtype)),
        T.alloc_fragment((rows, chunks, elements(dtype)), product_type(target, dtype)),
    )


@T.macro
def fetch_rows(array, first_row, last_row, staged):
    """The words of array[min(first_row + i, last_row)]."""
    for i, c, w in T.Parallel(*staged[0].shape):
        staged[0][i, c, w] = array[T.min(first_row + i, last_row), c, w]


def operand_of(target: Target, staged, i, c, e, dtype: str):
    if word_type(target, dtype) == dtype:
        return staged[i, c, e]
    code = in_pair(staged[i, c, e // 2], e % 2)
    if target.fp8 == FNUZ:
        return fnuz_operand(code)
    return T.cast(code_value(target, code), "bfloat16")


@T.macro
def put_operands(target: Target, staged, tile, dtype: str):
    """tile: shared [n, dim]."""
    size = staged[1].shape[2]
    for i, c, e in T.Parallel(*staged[1].shape):
        staged[1][i, c, e] = operand_of(target, staged[0], i, c, e, dtype)
    for i, c, e in T.Parallel(*staged[1].shape):
        tile[i, c * size + e] = staged[1][i, c, e]


@T.macro
def score_tile(dots, weights, first_row, last_row, terms, scores):
    """scores[s, t] = sum_h weights[first_row + t, h] * relu(dots[s, t * heads + h]).

    dots: float32 fragment [keys, tokens * heads]; weights: float32 [rows, heads]; terms: float32
    fragment [keys, tokens, heads], overwritten. Tokens from last_row on score 0.
    """
    keys, tokens, heads = terms.shape
    for s, t, h in T.Parallel(keys, tokens, heads):
        dot = dots[s, t * heads + h]
        relu = T.if_then_else(dot < 0, 0, dot)  # NaN stays NaN
        terms[s, t, h] = T.if_then_else(
            first_row + t < last_row, weights[first_row + t, h] * relu, 0
        )
    T.reduce_sum(terms, scores, dim=2)
