"""Memory for large results on the CPU, and how much of a batch is worked on at once.

A fresh tensor of more than 32 MB is memory that the system clears and maps again in pages of 4 kB. NumPy asks for huge
pages, PyTorch does not: filling 38 MB for the first time takes 6 ms, 17 ms as `torch.empty`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PART = 1 << 20
"""Numbers that are worked on at once: what lies between two operations stays in the processor's caches."""


def room(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """An uninitialised tensor on the CPU."""
    if dtype != torch.float32:
        return torch.empty(*shape, dtype=dtype)
    return torch.from_numpy(np.empty(tuple(shape), np.float32))


def at_once(x: Tensor) -> int:
    """Items of a batch x (N, ...) that are worked on at once, at least 1."""
    return max(1, PART * len(x) // max(1, x.numel()))
