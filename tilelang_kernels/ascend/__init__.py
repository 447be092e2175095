"""Ops as TileLang kernels for the NPU Ascend 950, in TileLang's dialect for it.

Sources only: nobody of ours has CANN's compiler or such a machine. What can be said of them without
is in docs/tilelang.md. Importing this package does not import TileLang.
"""

NAME = "ascend"
OPS = ("mqa_logits", "sparse_mla_decode")
