"""From the headers of all files to a DataSpec: what the items have in common, and what they will be brought to."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from gridsight.core.errors import DataError
from gridsight.data.sample import Header
from gridsight.data.spec import DataSpec, Fit, Kind

LARGEST = {1: 4096, 2: 128, 3: 48}
"""The longest side that items of many sizes are brought to without `--size`: what two cores train on in minutes."""
SOUND_SECONDS = 4.0
"""Sounds are cut to this, or to the 98th percentile of their lengths where that is shorter."""


def survey(
    name: str,
    headers: Sequence[Header],
    *,
    sound: bool,
    size: int | None,
    axes: str | None = None,
    notes: Sequence[str] = (),
) -> DataSpec:
    """The spec without classes and counts: kind, channels, type, rate and the size that items are brought to."""
    if not headers:
        raise DataError(f"{name} has no readable items")
    ndims = Counter[int]()
    for header in headers:
        ndims[len(header.spatial)] += header.count
    if len(ndims) > 1:
        listed = ", ".join(f"{count:,} with {ndim}" for ndim, count in ndims.most_common())
        raise DataError(f"{name} mixes items of different numbers of axes: {listed}; keep one kind in a data set")
    ndim = next(iter(ndims))
    kinds: dict[int, Kind] = {1: "series", 2: "image", 3: "volume"}
    kind: Kind = "sound" if sound else kinds[ndim]
    channels = _channels(headers, kind, name)
    rate = _rate(headers) if sound else None
    spatial, fit, sizes = _spatial(headers, kind, rate, size)
    return DataSpec(
        name=name,
        kind=kind,
        ndim=ndim,
        channels=channels,
        spatial=spatial,
        dtype=_dtype({header.dtype for header in headers}),
        classes=(),
        fit=fit,
        axes=axes,
        rate=rate,
        sizes=sizes,
        notes=tuple(notes),
    )


def _channels(headers: Sequence[Header], kind: Kind, name: str) -> int:
    found = Counter[int]()
    for header in headers:
        found[header.channels] += header.count
    if len(found) == 1:
        return next(iter(found))
    if kind == "image" and set(found) <= {1, 3}:
        # a few gray pictures among colour ones are repeated; colour among gray is worth keeping
        return 3
    if kind == "sound":
        return 1
    listed = ", ".join(f"{count:,} with {channels}" for channels, count in found.most_common())
    raise DataError(f"{name} mixes items of different channels: {listed}")


def _dtype(found: set[str]) -> str:
    """The smallest type that holds all: equal ones stay, 8 with 16 bits give 16, anything else float32."""
    if len(found) == 1 and found <= {"uint8", "uint16", "float32"}:
        return next(iter(found))
    return "uint16" if found == {"uint8", "uint16"} else "float32"


def _spatial(
    headers: Sequence[Header], kind: Kind, rate: float | None, size: int | None
) -> tuple[tuple[int, ...], Fit, tuple[tuple[int, ...], tuple[int, ...]]]:
    shapes = np.array([header.spatial for header in headers], float)
    if rate:
        shapes *= np.array([rate / (header.rate or rate) for header in headers])[:, None]
    weights = np.array([header.count for header in headers])
    low, high = shapes.min(0), shapes.max(0)
    sizes = (tuple(int(v) for v in low), tuple(int(v) for v in high))
    if kind == "sound":
        length = _percentile(shapes[:, 0], weights, 98)
        length = min(length, SOUND_SECONDS * (rate or 1.0)) if size is None else size
        return (max(1, round(length)),), "pad", sizes
    if kind == "series":
        longest = int(high[0]) if size is None else size
        return (longest,), "exact" if (low == high).all() and longest == int(high[0]) else "pad", sizes
    middle = np.array([_percentile(column, weights, 50) for column in shapes.T])
    limit = LARGEST[len(middle)]
    if size is None and (low == high).all() and high.max() <= 2 * limit:
        return sizes[1], "exact", sizes
    aspects = shapes / shapes.max(1, keepdims=True)
    if not np.allclose(aspects, aspects[0], atol=0.03):
        middle[:] = middle.min()  # many aspects: cut to a square
    # the shorter side is given by --size, else bounded so that the network sees at most about limit**ndim cells
    scale = (size if size is not None else min(middle.min(), limit)) / middle.min()
    return tuple(max(1, round(v * scale)) for v in middle), "crop", sizes


def _percentile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, share / 100 * total[-1])])


def _rate(headers: Sequence[Header]) -> float | None:
    """The rate that most items have."""
    found = Counter[float | None]()
    for header in headers:
        found[header.rate] += header.count
    return found.most_common(1)[0][0]
