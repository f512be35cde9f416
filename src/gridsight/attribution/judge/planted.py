"""Items whose evidence is known: a pattern somewhere among noise and things that say nothing.

An item (1, *spatial) holds one of three patterns, the class, at a random place: a block of cells of one value, stripes
of one cell, or stripes of two. Beside it lie three bumps as high as the pattern, of either sign, which every class has;
all is in noise. So the cells of the pattern are the evidence, nothing else is, and the middle of the item is no better
a guess than any other place.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

SPATIAL = {1: (128,), 2: (28, 28), 3: (12, 12, 12)}
"""Sizes on which the limits of the checks were chosen."""
CLASSES = ("block", "stripes", "wide stripes")
NOISE = 0.1
BUMPS = 3
"""Each as wide as the pattern."""


def planted(ndim: int, count: int, seed: int, spatial: Sequence[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """x (count, 1, *spatial) float32, y (count,) int64, and where the pattern lies, (count, *spatial) bool."""
    spatial = tuple(spatial or SPATIAL[ndim])
    rng = np.random.default_rng([seed, ndim])
    x = rng.normal(0, NOISE, (count, *spatial)).astype(np.float32)
    y, truth = rng.integers(0, len(CLASSES), count), np.zeros((count, *spatial), bool)
    side = [max(4, round(n / (8 if ndim == 1 else 3.5))) for n in spatial]
    for i in range(count):
        taken = np.zeros(spatial, bool)
        box = _place(rng, taken, side)
        x[i][box] += _pattern(int(y[i]), side, rng)
        truth[i][box] = taken[box] = True
        for _ in range(BUMPS):
            box = _place(rng, taken, side)
            x[i][box] += rng.choice([-1, 1]) * _bump(side)
            taken[box] = True
    return torch.from_numpy(x)[:, None], torch.from_numpy(y), torch.from_numpy(truth)


def _place(rng: np.random.Generator, taken: np.ndarray, side: Sequence[int]) -> tuple[slice, ...]:
    """A box of the size that is free; where none was found, the one with the fewest cells taken."""
    tried: list[tuple[int, int, tuple[slice, ...]]] = []
    for _ in range(50):
        first = [int(rng.integers(0, n - s + 1)) for n, s in zip(taken.shape, side, strict=True)]
        box = tuple(slice(f, f + s) for f, s in zip(first, side, strict=True))
        tried.append((int(taken[box].sum()), len(tried), box))
        if not tried[-1][0]:
            break
    return min(tried)[2]


def _pattern(kind: int, side: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """(*side) of -1 and 1: stripes run across the last axis, the first in either order."""
    if kind == 0:
        return np.ones(side, np.float32)
    along = np.arange(side[-1]) // kind % 2
    return np.broadcast_to((1 - 2 * along) * rng.choice([-1, 1]), side).astype(np.float32)


def _bump(side: Sequence[int]) -> np.ndarray:
    """(*side) from 0 at its edges to 1 in the middle, smoothly."""
    axes = [np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in side]
    grids = np.meshgrid(*axes, indexing="ij")
    return np.asarray(prod(grids), np.float32)
