"""What the kernels of the lightning indexer share: operands of products, scores from products."""

import tilelang.language as T
import torch

from tilelang_kernels.pieces.arguments import aligned, name_of
from tilelang_kernels.pieces.fp8 import E4M3FN, FNUZ, code_type, code_value, fnuz_operand
from tilelang_kernels.toolchain.targets import Target


def array_type(target: Target, dtype: str) -> str:
    """Of arrays in memory of operands of `dtype`."""
    return code_type(target) if dtype == E4M3FN else dtype


def product_type(target: Target, dtype: str) -> str:
    """Of operands of matrix products: bfloat16, which is exact, where there are none of fp8."""
    return (target.fp8 or "bfloat16") if dtype == E4M3FN else dtype


def product_scale(target: Target, dtype: str) -> float:
    """What products of operands are to be multiplied by: as e4m3fnuz both are half their value."""
    return 4.0 if product_type(target, dtype) == FNUZ else 1.0


def operands(target: Target, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as an array of operands."""
    return aligned(tensor).view(getattr(torch, array_type(target, name_of(tensor.dtype))))


def as_operand(target: Target, element, dtype: str):
    """An element of an array of `dtype` as an operand."""
    if dtype != E4M3FN or target.fp8 == E4M3FN:
        return element
    if target.fp8 == FNUZ:
        return fnuz_operand(element)
    return T.cast(code_value(target, element), "bfloat16")


def load_operands(target: Target, array, first_row, num_rows, tile, dtype: str):
    """tile[i] = array[first_row + i], zeros from row num_rows on. tile: shared [n, dim]."""

    @T.macro
    def load(array, first_row, num_rows, tile):
        n, dim = tile.shape
        for i, d in T.Parallel(n, dim):
            row = first_row + i
            tile[i, d] = T.if_then_else(
                row < num_rows,
                as_operand(target, array[row, d], dtype),
                T.cast(0, product_type(target, dtype)),
            )

    if array_type(target, dtype) == product_type(target, dtype):
        return T.copy(array[first_row, 0], tile)
    return load(array, first_row, num_rows, tile)


@T.macro
def fetch_operands(target: Target, array, first_row, last_row, tile, dtype: str):
    """tile[i] = array[min(first_row + i, last_row)]. tile: registers [n, dim]."""
    n, dim = tile.shape
    for i, d in T.Parallel(n, dim):
        tile[i, d] = as_operand(target, array[T.min(first_row + i, last_row), d], dtype)


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
