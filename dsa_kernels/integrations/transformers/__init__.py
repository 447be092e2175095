"""Hugging Face transformers models on dsa_kernels: `enable(model)` and `disable(model)`.

See docs/transformers.md.
"""

from __future__ import annotations

try:
    import transformers
except ModuleNotFoundError as error:
    if error.name != "transformers":  # it is there, and lacks something itself
        raise
    raise ModuleNotFoundError(
        "dsa_kernels.integrations.transformers needs transformers 5.23, which is not installed "
        "(in the repository: pip install --no-build-isolation '.[transformers]')",
        name="transformers",
    ) from error

try:
    from dsa_kernels.integrations.transformers.patching import disable, enable
    from dsa_kernels.integrations.transformers.replay import (
        merge_calls,
        record_indices,
        replay_indices,
    )
except ImportError as error:
    raise ImportError(
        "dsa_kernels.integrations.transformers needs transformers 5.23; "
        f"found {transformers.__version__} ({error})"
    ) from error

__all__ = ["disable", "enable", "merge_calls", "record_indices", "replay_indices"]
