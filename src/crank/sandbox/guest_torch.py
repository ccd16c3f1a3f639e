"""torch between processes of one job: tensors go by value.

torch hands tensors to another process as descriptors, over a Unix socket that no job may make; a DataLoader
with workers would wait for ever. Inside a job they are copied through the pipe that is there anyway. Runs in
the zygote, once, where torch is loaded.
"""

from __future__ import annotations

import sys
from typing import Any


def share_by_value() -> None:
    """Let tensors cross a process border by value. Does nothing where torch is not loaded."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    from multiprocessing.reduction import ForkingPickler

    reductions: Any = torch.multiprocessing.reductions

    def rebuild_by_value(content: bytes, dtype: Any, shape: tuple[int, ...], wants_grad: bool) -> Any:
        flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return flat.reshape(shape).requires_grad_(wants_grad)

    def reduce_by_value(tensor: Any) -> Any:
        plain = tensor.detach().cpu().contiguous()
        content = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        return rebuild_by_value, (content, plain.dtype, tuple(plain.shape), bool(tensor.requires_grad))

    # Found again by name in the process that takes it.
    rebuild_by_value.__module__, rebuild_by_value.__qualname__ = reductions.__name__, "rebuild_by_value"
    reductions.rebuild_by_value = rebuild_by_value
    ForkingPickler.register(torch.Tensor, reduce_by_value)
