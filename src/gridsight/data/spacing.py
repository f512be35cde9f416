"""Volumes at one physical scale: which spacing a data set is brought to, and the resampling that brings it there.

Spacing is in mm between cells, one number an axis. The rule: the median of each axis, so that most items are changed
least; where that makes too many cells, the finest axes are made coarser until the rest fits, so thick slices stay as
they are and thin ones lose detail first. Sizes follow from the median extent in mm. Larger volumes lose their margin,
smaller ones get one of their own lowest value: nothing is stretched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data.ragged import middle
from gridsight.data.sample import Header

ALIKE = 0.01  # share by which spacings may differ and still be one
MOST_CELLS = 64  # times the cells of an item or of the target: more come of a spacing that makes no sense

Triple = tuple[float, ...]


@dataclass(frozen=True)
class Physical:
    """`spacing` that items are brought to, `spatial` their size there; `exact` where none is changed.

    `seen` are the smallest and largest spacing, `sizes` the smallest and largest size at the new spacing.
    """

    spacing: Triple
    spatial: tuple[int, ...]
    exact: bool
    seen: tuple[Triple, Triple]
    sizes: tuple[tuple[int, ...], tuple[int, ...]]


def choose(headers: Sequence[Header], size: int | None, limit: int) -> Physical | None:
    """What volumes of these headers are brought to; None where none says its spacing.

    `size` is the number of cells along the shortest side, `limit` ** 3 the most cells where it is not given.
    """
    known = [header for header in headers if header.spacing is not None]
    if not known:
        return None
    spacings = np.array([header.spacing for header in known], float)
    shapes = np.array([header.spatial for header in known], float)
    weights = np.array([header.count for header in known])
    low, high = spacings.min(0), spacings.max(0)
    spacing = _medians(spacings, weights)
    extent = _medians(shapes * spacings, weights)
    same = bool((high / low < 1 + ALIKE).all() and (shapes == shapes[0]).all())
    exact = same and size is None and shapes.max() <= 2 * limit
    if size is not None:
        spacing = spacing * (extent / spacing).min() / size
    elif not exact:
        spacing = np.maximum(spacing, _coarser(spacing, extent, limit**3))
    chosen = tuple(float(f"{value:.5g}") for value in spacing)
    resized = np.array([_size(header.spatial, header.spacing or chosen, chosen) for header in known])
    return Physical(
        spacing=chosen,
        spatial=known[0].spatial if exact else tuple(max(1, round(e / s)) for e, s in zip(extent, chosen, strict=True)),
        exact=exact,
        seen=(tuple(low.tolist()), tuple(high.tolist())),
        sizes=(tuple(resized.min(0).tolist()), tuple(resized.max(0).tolist())),
    )


def resample(x: np.ndarray, have: Triple | None, want: Triple, spatial: tuple[int, ...], path: str) -> np.ndarray:
    """(C, D, H, W) at the spacing `want`; integers stay integers. An array of exactly `spatial` needs no spacing."""
    if have is None:
        if x.shape[1:] == spatial:
            return x
        cells = "x".join(map(str, spatial))
        raise ReadError(
            path,
            f"says no spacing, and the data's volumes are brought to {words(want)} mm; give a file that says it, or "
            f"{cells} cells at that spacing (--fit crop trains without regard to spacing)",
        )
    size = _size(x.shape[1:], have, want)
    if size == x.shape[1:]:
        return x
    if prod(size) > MOST_CELLS * max(prod(spatial), prod(x.shape[1:])):
        raise ReadError(path, f"its spacing of {words(have)} mm makes no sense where the data have {words(want)} mm")
    import torch

    from gridsight.nn.resample import resize

    out = resize(torch.from_numpy(np.ascontiguousarray(x, np.float32))[None], size)[0].numpy()
    if x.dtype.kind == "f":
        return out.astype(x.dtype, copy=False)
    limits = np.iinfo(x.dtype)
    return np.rint(out).clip(limits.min, limits.max).astype(x.dtype)


def centred(x: np.ndarray, spatial: tuple[int, ...]) -> np.ndarray:
    """(C, *spatial): the middle of what is larger, and a margin of each channel's lowest value around what is smaller.

    >>> centred(np.array([[[[5, 6, 7]]]]), (1, 2, 2)).tolist()
    [[[[5, 6], [5, 5]]]]
    """
    out = np.empty((x.shape[0], *spatial), x.dtype)
    out[:] = x.reshape(x.shape[0], -1).min(1).reshape(-1, *[1] * len(spatial))
    have = x.shape[1:]
    out[(slice(None), *middle(spatial, have))] = x[(slice(None), *middle(have, spatial))]
    return out


def words(spacing: Triple) -> str:
    """As people write it.

    >>> words((5.0, 0.70313, 0.70313))
    '5 x 0.703 x 0.703'
    """
    return " x ".join(f"{value:.3g}" for value in spacing)


def _size(shape: Sequence[int], have: Triple, want: Triple) -> tuple[int, ...]:
    return tuple(
        n if abs(h / w - 1) < ALIKE else max(1, round(n * h / w)) for n, h, w in zip(shape, have, want, strict=True)
    )


def _medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The lower median of each column, items counted by their weights."""
    out = []
    for column in values.T:
        order = np.argsort(column, kind="stable")
        total = np.cumsum(weights[order])
        out.append(column[order][np.searchsorted(total, total[-1] / 2)])
    return np.array(out)


def _coarser(spacing: np.ndarray, extent: np.ndarray, cells: int) -> float:
    """The least spacing such that, with no axis finer than it, there are at most so many cells."""
    low, high = float(spacing.min()), float(max(spacing.max(), extent.max()))
    if prod(extent / spacing) <= cells:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if prod(extent / np.maximum(spacing, middle)) > cells else (low, middle)
    return high
