"""Which items are the same but for brightness, compression, noise, a resize, a shift, a crop or a mirror: pairs.

Each item becomes a small grid (`data/signature.py`). A pair is reported when
1. its descriptors are near each other: within 0.03 (squared), and within 0.55 of the distance to the third nearest of
   2,000 random items. A descriptor is a unit vector, the square roots of the magnitudes of a windowed grid's lowest
   frequencies: a shift hardly changes it, a mirror does not. All items are compared with all, by matrix products of
   their leading directions, and each keeps its three nearest; and
2. once aligned (`data/alignment.py`), one item leaves under 5 % of the other's variance unexplained, and under a tenth
   of what that third nearest item leaves. This second bound is what makes one rule do for data of any kind: two ones of
   MNIST correlate at 0.98, but so do others.
Series, and pictures so small that a shift explains nearly everything, are also compared as they lie: there 1 is plain
correlation of the halved grids, 0.96 and more, and 2 is the same without alignment.

Measured (`benchmarks/bench_faults.py`, near-copies planted in 8,000 pictures): of CIFAR-10's copies 99.8 % are found,
of MNIST's 97.9 %: equal, recompressed (JPEG 60 to 90), brighter, noisy, at 90 to 110 % of the size, shifted by 1 or 2
pixels, mirrored, each at 96 % and more, 5 % cut off at 100 and 87 %. Clean data: 8 pairs in 60,000 pictures of MNIST,
none in the digits; 902 in 50,000 of CIFAR-10, no two of different classes, and all of 96 drawn are the same picture.
Not found: shifted or cut copies of pictures of 8x8, turned copies, copies of an item that has more than three (equal
ones are always found); ones of MNIST shrunk to three quarters and enlarged again are found at 92 to 95 %.
"""

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from gridsight.core import seed as hashing
from gridsight.data.alignment import Waves, halved, left_over
from gridsight.data.signature import grid_for, signatures

VERSION = 1  # of what is found: another number where a change of this file or of those it calls finds other pairs
CLOSE, CLOSER = 0.03, 0.55
LOOSEST, RATIO = 0.05, 0.1
COARSE = 0.08  # squared distance: 2 - 2 * 0.96
FEWEST, SMALL = 8, 16  # cells an axis: from where on moving says something, and up to where it says too much
EQUAL = 1e-5  # squared distances up to here are rounding
REFERENCES, LOOKED_AT = 2000, 4  # items that are drawn, and how many of them, the nearest, an item is aligned with
NEAREST = 3  # candidates an item
LARGEST = 200_000  # items above which pairs are not looked for: the time grows with their square
MOST_PAIRS = 5_000_000
DIRECTIONS, ROWS, WIDTH = 32, 512, 2048


@dataclass(frozen=True, eq=False)
class Near:
    """`pairs` (m, 2) of item numbers, first < second, with their `distance` (m,): 0 equal, 0.05 barely alike.

    `complete` is False when there were too many items or pairs to look at all.
    """

    pairs: np.ndarray
    distance: np.ndarray
    complete: bool = True


def near_duplicates(arrays: np.ndarray, rate: float | None = None) -> Near:
    """Pairs of the items (n, C, *spatial) that are near-duplicates, equal ones among them; `rate` says it is sound."""
    if len(arrays) > LARGEST:
        return _none(complete=False)
    grid = grid_for([arrays.shape[2:]]) if len(arrays) else ()
    blocks = [
        signatures(np.asarray(arrays[start : start + ROWS]), grid, rate, rate) for start in range(0, len(arrays), ROWS)
    ]
    return close_pairs(np.concatenate(blocks)) if blocks else _none()


def close_pairs(grids: np.ndarray) -> Near:
    """Near-duplicates among small grids (n, K, *grid); constant ones are left out."""
    items = _varying(grids)
    if len(items) < 2:
        return _none()
    grids = _lengthened(grids if len(items) == len(grids) else grids[items]).reshape(-1, *grids.shape[1:])
    with threadpool_limits(1):  # the products are small: a second thread waits more than it works
        longest, found = max(grids.shape[2:]), []
        if longest >= FEWEST:
            found.append(_once_aligned(grids))
        if grids.ndim == 3 or longest <= SMALL:
            found.append(_as_they_lie(grids))
    a, b, left = (np.concatenate(parts) for parts in list(zip(*found, strict=True))[:3])
    order = np.lexsort((left, b, a))
    pairs = np.stack([a, b], 1)[order]
    first = np.concatenate([[True], (pairs[1:] != pairs[:-1]).any(1)])[: len(pairs)]
    return Near(items[pairs[first]], left[order][first], all(complete for *_, complete in found))


def _once_aligned(grids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Pairs (a, b) that are alike once aligned, what is left over, and whether these are all."""
    seen, flat = descriptors(grids), grids.reshape(len(grids), -1)
    third, others = _references(seen)
    a, b, complete = _candidates(seen, np.minimum(CLOSE, CLOSER * third))
    left = 1 - np.maximum(_dots(flat[a], flat[b]), 0) ** 2
    unequal = np.flatnonzero(left > EQUAL)
    left[unequal] = left_over(grids, a[unequal], b[unequal], LOOSEST)
    good = left <= LOOSEST
    asked, place = np.unique([a[good], b[good]], return_inverse=True)
    count = others.shape[1]
    rest = left_over(grids, np.repeat(asked, count), others[asked].ravel()).reshape(-1, count)
    bound = np.maximum(RATIO * np.sort(rest, 1)[:, min(3, count) - 1], EQUAL)
    good[good] = left[good] <= bound[place.reshape(2, -1)].min(0)
    return a[good], b[good], left[good], complete


def _as_they_lie(grids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """The same for pairs that are alike without being moved, found by plain correlation."""
    third, _ = _references(grids.reshape(len(grids), -1))
    a, b, complete = _candidates(_lengthened(halved(grids)), np.minimum(COARSE, third))
    left = left_over(grids, a, b, aligned=False)
    good = left <= np.maximum(np.minimum(LOOSEST, RATIO * np.minimum(third[a], third[b])), EQUAL)
    return a[good], b[good], left[good], complete


def descriptors(grids: np.ndarray) -> np.ndarray:
    """Unit vectors (n, d) that shifts hardly change and mirroring the last axis does not, of grids (n, K, *grid)."""
    waves = Waves.of(grids.shape[2:])
    once = np.flatnonzero(np.arange(len(waves.mirror)) <= waves.mirror)
    out = []
    for k in range(0, len(grids), ROWS):
        size = np.abs(waves.spectra(grids[k : k + ROWS]))
        other = size[:, :, waves.mirror]
        both = np.concatenate([np.maximum(size, other)[:, :, once], np.minimum(size, other)[:, :, once]], 2)
        both = np.sqrt(both).reshape(len(both), -1)
        out.append(both / np.maximum(np.sqrt(_dots(both, both)), 1e-20)[:, None])
    return np.concatenate(out)


def _none(complete: bool = True) -> Near:
    return Near(np.empty((0, 2), np.int64), np.empty(0), complete)


def _varying(grids: np.ndarray) -> np.ndarray:
    """The numbers of the items whose values differ, and by more than rounding."""
    v = grids.reshape(len(grids), -1)
    return np.flatnonzero(v.var(1) > 1e-10 * np.maximum(_dots(v, v) / max(1, v.shape[1]), 1e-30))


def _lengthened(x: np.ndarray) -> np.ndarray:
    """Vectors (n, d) of zero mean and unit length, or zero where nothing varies."""
    v = x.reshape(len(x), -1)
    v = v - v.mean(1, keepdims=True)
    v /= np.maximum(np.sqrt(_dots(v, v)), 1e-20)[:, None]
    return v


def _references(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The squared distance (n,) of each item to the third nearest of a sample, and the nearest ones' numbers (n, 4)."""
    chosen = hashing.permutation(1, 0, len(v))[:REFERENCES]
    count = min(LOOKED_AT, len(chosen) - 1)
    rank = min(3, count) - 1
    third, nearest = np.empty(len(v), np.float32), np.empty((len(v), count), np.int64)
    for k in range(0, len(v), ROWS):
        some = np.arange(k, min(k + ROWS, len(v)))
        likeness = v[some] @ v[chosen].T
        likeness[some[:, None] == chosen] = -1  # itself
        places = np.argpartition(likeness, -count, axis=1)[:, -count:]
        values = np.sort(np.take_along_axis(likeness, places, 1), axis=1)[:, ::-1]
        third[some], nearest[some] = 2 - 2 * values[:, rank], chosen[places]
    return third, nearest


def _candidates(v: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Pairs (a < b) of unit vectors within both items' squared distances, their own, and whether these are all.

    Of pairs that are not equal, each item keeps its nearest.
    """
    # a projection on orthogonal directions, with the length of the rest, never puts two points further apart
    sample = v[hashing.permutation(0, 0, len(v))[:4000]]
    middle = sample.mean(0)
    _, directions = np.linalg.eigh(np.cov((sample - middle).T).reshape(v.shape[1], v.shape[1]))
    p = (v - middle) @ directions[:, ::-1][:, :DIRECTIONS].astype(np.float32)
    rest = _dots(v - middle, v - middle) - _dots(p, p)
    p = np.concatenate([p, np.sqrt(np.maximum(rest, 0))[:, None]], 1)
    norms, ones = _dots(p, p)[:, None], np.ones((len(p), 1), np.float32)
    left, right = np.concatenate([-2 * p, norms, ones], 1), np.concatenate([p, ones, norms], 1)
    bounds = np.maximum(bounds, EQUAL)
    slack = bounds * 1.001 + 1e-5
    products, flags = np.empty(ROWS * WIDTH, np.float32), np.empty(ROWS * WIDTH, bool)  # once: new memory is slow
    found, count = [], 0
    for row, column in ((i, j) for i in range(0, len(v), ROWS) for j in range(i, len(v), WIDTH)):
        rows, columns = slice(row, row + ROWS), slice(column, column + WIDTH)
        shape = (len(left[rows]), len(right[columns]))
        squared, close = (part[: shape[0] * shape[1]].reshape(shape) for part in (products, flags))
        np.matmul(left[rows], right[columns].T, out=squared)
        np.less_equal(squared, slack[rows, None], out=close)
        hits = np.flatnonzero(close)
        a, b = np.divmod(hits, shape[1])
        a, b = a + row, b + column
        once = (a < b) & (products[hits] <= slack[b])
        a, b = a[once], b[once]
        distance = 2 - 2 * _dots(v[a], v[b])
        good = distance <= np.minimum(bounds[a], bounds[b])
        found.append((a[good], b[good], distance[good]))
        count += int(good.sum())
        if count > MOST_PAIRS:
            break
    a, b, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    kept = _nearest(a, b, distance)
    return a[kept], b[kept], count <= MOST_PAIRS


def _nearest(a: np.ndarray, b: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Which pairs are equal, or among the nearest of one of their items."""
    items, both = np.concatenate([a, b]), np.concatenate([distance, distance])
    order = np.lexsort((both, items))
    first = np.concatenate([[True], np.diff(items[order]) > 0])[: len(order)]
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    near = order[np.arange(len(order)) - start < NEAREST] % max(1, len(a))
    return np.union1d(near, np.flatnonzero(distance <= EQUAL))


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", a, b)
