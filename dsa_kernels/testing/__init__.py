"""The test kit: poison, guard bands, comparison rules and hostile generators.

Shipped because engines that embed the ops, and new backends, need the same checks.
"""

from dsa_kernels.testing.compare import (
    assert_bitwise_equal,
    assert_close_to_gold,
    calc_diff,
    differing_bits,
)
from dsa_kernels.testing.generators import adversarial_rows, hostile_rows, random_fp8
from dsa_kernels.testing.memory import Guarded, poisoned_memory

__all__ = [
    "Guarded",
    "adversarial_rows",
    "assert_bitwise_equal",
    "assert_close_to_gold",
    "calc_diff",
    "differing_bits",
    "hostile_rows",
    "poisoned_memory",
    "random_fp8",
]
