"""Items of unequal size: kept one after the other in one memory-mapped file, padded only when they meet in a batch."""

from collections.abc import Sequence

import numpy as np


class Ragged:
    """`x[i]` is item i (C, *sizes[i]) of a flat array, from `ends[i]` to `ends[i + 1]`; `sizes` (n, ndim) int64."""

    def __init__(self, flat: np.ndarray, channels: int, sizes: np.ndarray) -> None:
        self.flat, self.channels, self.sizes = flat, channels, np.asarray(sizes, np.int64)
        self.ends = np.append(0, np.cumsum(channels * self.sizes.prod(1)))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.flat[self.ends[i] : self.ends[i + 1]].reshape(self.channels, *self.sizes[i])

    @property
    def dtype(self) -> np.dtype:
        """The items' type."""
        return self.flat.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all items."""
        return self.flat.nbytes


Arrays = np.ndarray | Ragged
"""All items of a data set: (n, C, *spatial), or of unequal size."""


def gather(
    x: Arrays, rows: Sequence[int] | np.ndarray, spatial: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The items `rows` as (N, C, *spatial), and where they are of unequal size each one's own (N, ndim).

    `spatial` pads them to a fixed size, for networks that take no mask: then no sizes come with them.
    """
    if not isinstance(x, Ragged):
        return _take(x, rows), None
    padded, sizes = stack([x[int(i)] for i in rows], spatial)
    return padded, sizes if spatial is None else None


def channels_last(x: np.ndarray) -> np.ndarray:
    """A view (*first, *spatial, C) of an array (*first, C, *spatial) of pictures, two axes of space."""
    return np.moveaxis(x, -3, -1)


def _take(x: np.ndarray, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """The items `rows`, in memory as they lie in x."""
    if x.ndim == 4 and channels_last(x).flags.c_contiguous:  # of any other order NumPy would copy all of x first
        return np.moveaxis(np.take(channels_last(x), rows, axis=0), -1, 1)
    return np.take(x, rows, axis=0)


def cut(x: Arrays, rows: Sequence[int] | np.ndarray, patch: Sequence[int], place: np.ndarray) -> np.ndarray:
    """One patch (C, *patch) of each of the items `rows`: (N, C, *patch).

    `place` (N, ndim) in [0, 1] says where: 0 at the start of an axis, 1 at its end, the patch wholly inside. An axis
    shorter than the patch gets zeros at its end. Only the patch's own cells are read.
    """
    out = np.zeros((len(rows), x[int(rows[0])].shape[0], *patch), x.dtype)
    for target, i, share in zip(out, rows, place, strict=True):
        item = x[int(i)]
        room = np.array(item.shape[1:]) - patch
        start = np.maximum(0, np.minimum(np.floor(share * (room + 1)), room)).astype(np.int64)
        part = item[(slice(None), *(slice(a, a + size) for a, size in zip(start, patch, strict=True)))]
        target[tuple(map(slice, part.shape))] = part
    return out


def stack(items: Sequence[np.ndarray], spatial: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(N, C, *spatial) of items (C, *size), zeros at the end of what is shorter, and their sizes (N, ndim).

    `spatial` is that of the largest item unless it is given; what is longer than it is cut in the middle.
    """
    sizes = np.array([item.shape[1:] for item in items], np.int64)
    target = tuple(sizes.max(0)) if spatial is None else tuple(spatial)
    out = np.zeros((len(items), items[0].shape[0], *target), items[0].dtype)
    for row, item in zip(out, items, strict=True):
        part = item[(slice(None), *middle(item.shape[1:], target))]
        row[tuple(map(slice, part.shape))] = part
    return out, np.minimum(sizes, target)


def middle(have: Sequence[int], most: Sequence[int]) -> tuple[slice, ...]:
    """The box in the middle of `have` cells that has at most `most`; a shorter axis is taken whole.

    >>> middle((5, 2), (2, 9))
    (slice(1, 3, None), slice(0, 2, None))
    """
    kept = [min(pair) for pair in zip(have, most, strict=True)]
    return tuple(slice((n - keep) // 2, (n - keep) // 2 + keep) for n, keep in zip(have, kept, strict=True))
