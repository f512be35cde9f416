"""Batches whose content is a pure function of (seed, epoch): any number of workers, any start, the same batches.

An epoch's order is `core.seed.permutation`; it is cut into batches whose sizes differ by at most one, so that every
item counts once and no batch is left too small for its norms. Workers are threads that read ahead; nothing forks.
Of several processes that train together (`core.ranks`) each reads its own share of the same batches.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gridsight.core import seed as hashing
from gridsight.data.paging import expect
from gridsight.data.ragged import Arrays, cut, gather
from gridsight.nn.masked import mask_of

T = TypeVar("T")

READ_AHEAD = 4
"""Batches that the workers keep ready."""


@dataclass(frozen=True, eq=False)
class Batch:
    """`x` (N, C, *spatial) as cached, targets `y` (N, ...), `items` (N,) int64: their numbers in the data.

    `sizes` (N, ndim) int64 are the items' own where these are of unequal size; beyond them is padding. `number` is the
    batch's place in its epoch. Of a share of a batch, or of one with a row more, `all_y` (M, ...) are the targets of
    the batch itself.
    """

    x: Tensor
    y: Tensor
    items: Tensor
    sizes: Tensor | None = None
    number: int = 0
    all_y: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; `all_y`, which is only counted and weighed, stays where it is."""
        sizes = None if self.sizes is None else self.sizes.to(device)
        return replace(self, x=self.x.to(device), y=self.y.to(device), items=self.items.to(device), sizes=sizes)

    def rows(self, rows: slice | Tensor) -> "Batch":
        """Some of the items, as a batch of their own."""
        sizes = None if self.sizes is None else self.sizes[rows]
        return Batch(self.x[rows], self.y[rows], self.items[rows], sizes)

    @property
    def targets(self) -> Tensor:
        """(M, ...) the targets of the batch that this may be a share of."""
        return self.y if self.all_y is None else self.all_y

    @property
    def mask(self) -> Tensor | None:
        """(N, *spatial) bool, the real cells; None where all are."""
        return None if self.sizes is None else mask_of(self.sizes, self.x.shape[2:])


@dataclass(frozen=True, eq=False)
class Loader:
    """Batches of the items `index` of arrays `x` (n, C, *spatial) and `y` (n, ...); `size` items a batch.

    `spatial` pads items of unequal size to a fixed one, for networks that take no mask. `rank` of `world` processes
    reads its share of them alone, without a gap or an overlap. With `chained` a share has one row more: the first of
    the next share, after the last share the batch's first, so that every row has a neighbour in its batch (mixup).

    With a `patch` size an item is met `repeats` times an epoch, each time by another patch of it, whose place is a
    function of (seed, epoch, number): visit v of item i of n has the number i + v n. In order, by its middle.
    `balanced` draws equally many items of each class, which `y` (n,) numbers, whatever their share of the data.
    """

    x: Arrays
    y: np.ndarray
    index: np.ndarray
    size: int
    workers: int = 0
    spatial: tuple[int, ...] | None = None
    rank: int = 0
    world: int = 1
    chained: bool = False
    patch: tuple[int, ...] | None = None
    repeats: int = 1
    balanced: bool = False

    def __len__(self) -> int:
        """Batches an epoch."""
        return max(1, -(-len(self.index) * self.repeats // self.size))

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The shuffled batches of one epoch, from batch `start` on: of each this process's share."""
        order = hashing.permutation(seed, epoch, len(self.index) * self.repeats)
        index = self._drawn(seed, epoch) if self.balanced else self.index
        order = index[order % len(index)] + len(self.y) * (order // len(index))
        parts = list(enumerate(np.array_split(order, len(self))))
        yield from self._read(parts[start:], lambda part: self._share(*part, seed, epoch))

    def _drawn(self, seed: int, epoch: int) -> np.ndarray:
        """As many numbers as there are items, equally many of each class: of a rare one each item several times."""
        classes = np.unique(self.y[self.index])
        drawn = []
        for c, share in zip(classes, np.array_split(np.arange(len(self.index)), len(classes)), strict=True):
            own = self.index[self.y[self.index] == c]
            own = own[hashing.permutation(hashing.key(seed, "class", int(c)), epoch, len(own))]
            visit = np.arange(len(share))
            # each visit under a number of its own, beyond those of the patches, so that augmentation differs
            drawn.append(own[visit % len(own)] + len(self.y) * self.repeats * (visit // len(own)))
        return np.concatenate(drawn)

    def in_order(self) -> Iterator[Batch]:
        """Every item of this process's share of all once, unshuffled: for evaluation."""
        own = np.array_split(self.index, self.world)[self.rank]
        if len(own) or self.world == 1:
            yield from self._read(np.array_split(own, max(1, -(-len(own) // self.size))), self._batch)

    def _read(self, parts: Sequence[T], make: Callable[[T], Batch]) -> Iterator[Batch]:
        if self.workers == 0:
            yield from map(make, parts)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            waiting = deque(pool.submit(make, part) for part in parts[:READ_AHEAD])
            for part in [*parts[READ_AHEAD:], *[None] * min(READ_AHEAD, len(parts))]:
                yield waiting.popleft().result()
                if part is not None:
                    waiting.append(pool.submit(make, part))

    def _share(self, number: int, rows: np.ndarray, seed: int, epoch: int) -> Batch:
        """This process's rows of the batch of items numbered `rows`, which are neighbours there."""
        start, end = (len(rows) * rank // self.world for rank in (self.rank, self.rank + 1))
        own = rows[start:end]
        if self.chained:
            own = np.append(own, rows[end % len(rows)])
        batch = replace(self._batch(own, seed, epoch), number=number)
        if self.world == 1 and not self.chained:
            return batch
        return replace(batch, all_y=torch.from_numpy(np.take(self.y, rows % len(self.y), axis=0)))

    def _batch(self, numbers: np.ndarray, seed: int = 0, epoch: int | None = None) -> Batch:
        rows, items = numbers % len(self.y), torch.from_numpy(numbers)
        if self.patch is None:
            expect(self.x, rows)
            x, sizes = gather(self.x, rows, self.spatial)
        else:
            place = np.full((len(rows), len(self.patch)), 0.5)
            if epoch is not None:
                place = hashing.uniform(seed, epoch, items, "patch", len(self.patch)).numpy()
            x, sizes = cut(self.x, rows, self.patch, place), None
        return Batch(
            torch.from_numpy(x),
            torch.from_numpy(np.take(self.y, rows, axis=0)),
            items,
            None if sizes is None else torch.from_numpy(sizes),
        )
