"""Batches whose content is a pure function of (seed, epoch): any number of workers, any start, the same batches.

An epoch's order is `core.seed.permutation`; it is cut into batches whose sizes differ by at most one, so that every
item counts once and no batch is left too small for its norms. Workers are threads that read ahead; nothing forks.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gridsight.core import seed as hashing

READ_AHEAD = 4
"""Batches that the workers keep ready."""


@dataclass(frozen=True, eq=False)
class Batch:
    """`x` (N, C, *spatial) as cached, `y` (N,) int64, `items` (N,) int64: their numbers in the data."""

    x: Tensor
    y: Tensor
    items: Tensor


@dataclass(frozen=True, eq=False)
class Loader:
    """Batches of the items `index` of arrays `x` (n, C, *spatial) and `y` (n,); `size` items a batch."""

    x: np.ndarray
    y: np.ndarray
    index: np.ndarray
    size: int
    workers: int = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return max(1, -(-len(self.index) // self.size))

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The shuffled batches of one epoch, from batch `start` on."""
        order = self.index[hashing.permutation(seed, epoch, len(self.index))]
        yield from self._read(np.array_split(order, len(self))[start:])

    def in_order(self) -> Iterator[Batch]:
        """Every item once, unshuffled: for evaluation."""
        yield from self._read(np.array_split(self.index, len(self)))

    def _read(self, parts: Sequence[np.ndarray]) -> Iterator[Batch]:
        if self.workers == 0:
            yield from map(self._batch, parts)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            waiting = deque(pool.submit(self._batch, part) for part in parts[:READ_AHEAD])
            for part in [*parts[READ_AHEAD:], *[None] * min(READ_AHEAD, len(parts))]:
                yield waiting.popleft().result()
                if part is not None:
                    waiting.append(pool.submit(self._batch, part))

    def _batch(self, rows: np.ndarray) -> Batch:
        return Batch(
            torch.from_numpy(np.take(self.x, rows, axis=0)),
            torch.from_numpy(np.take(self.y, rows)),
            torch.from_numpy(rows),
        )
