"""Random numbers as a pure function of what they are for: a counter-based hash, no generator state.

uniform(seed, epoch, items, operation, count) is the same for any batch size, worker, rank or device, which is what
makes resume exact and the number of workers irrelevant. The mixer is the finaliser of SplitMix64 (Steele, Lea and
Flood, OOPSLA 2014, "Fast splittable pseudorandom number generators"), run on 64-bit integers that wrap around.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*parts: int | str) -> int:
    """A 63-bit integer from any parts, the same in every process (Python's own `hash` is salted)."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def reseed(number: int, device: torch.device) -> None:
    """Let what draws numbers of its own on the CPU and on `device` start from `number`.

    `torch.manual_seed` tells every kind of device that PyTorch knows as well, which takes 0.1 ms and more.
    """
    import torch

    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order (count,) int64 in which epoch `epoch` visits `count` items."""
    counters = np.arange(count, dtype=np.uint64)
    return np.argsort(_mix(counters * np.uint64(_GOLDEN) + np.uint64(key(seed, epoch, "order"))), kind="stable")


def uniform(seed: int, epoch: int, items: Tensor, operation: str, count: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 (N, count), on the device of `items` (N,) int64: one row an item."""
    import torch

    z = expand(_keys(seed, epoch, items, operation), count)
    return ((z >> 40) & 0xFFFFFF).to(torch.float32) / float(1 << 24)


def shorts(seed: int, epoch: int, items: Tensor, operation: str, count: int) -> Tensor:
    """Integers of which all 65,536 are equally likely, int16 (N, count): a quarter of the work of `uniform`."""
    import torch

    return expand(_keys(seed, epoch, items, operation), -(-count // 4)).view(torch.int16)[:, :count]


def _keys(seed: int, epoch: int, items: Tensor, operation: str) -> Tensor:
    import torch

    return items.to(torch.int64) * _signed(_GOLDEN) + _signed(key(seed, epoch, operation))


def expand(keys: Tensor, count: int) -> Tensor:
    """64 random bits for each of `count` columns of each key: keys (N,) int64 -> (N, count) int64."""
    import torch

    columns = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64)
    return _mix_torch(_mix_torch(keys)[:, None] + columns * _signed(_GOLDEN))


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
    return z ^ (z >> np.uint64(31))


def _mix_torch(z: Tensor) -> Tensor:
    # torch has no unsigned shift: mask off the copies of the sign bit that an arithmetic shift brings in
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _signed(_MIX1)
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _signed(_MIX2)
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
