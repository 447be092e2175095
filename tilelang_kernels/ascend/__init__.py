"""Ops as TileLang kernels for the NPU Ascend 950, in TileLang's dialect for it.

Sources only: they have met neither CANN's compiler nor a device. Tests check their syntax and
types, and run them on the CPU in a model of the instructions; see docs/tilelang.md. Importing this
package does not import TileLang.
"""

NAME = "ascend"
OPS = ("mqa_logits", "sparse_mla_decode")
