"""From the headers of all files to a DataSpec: what the items have in common, and what they will be brought to."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from gridsight.core.errors import DataError, UsageError
from gridsight.data.sample import Header
from gridsight.data.spacing import choose
from gridsight.data.spec import DataSpec, Fit, Kind

LARGEST = {1: 4096, 2: 128, 3: 48}
"""The longest side that items of many sizes are brought to without `--size`: what two cores train on in minutes."""
LARGEST_CLIP = (32, 64)
"""The most frames, and the longest shorter side of them, that clips are brought to."""
FINEST = 1 << 20
"""The same where items are only read in patches: no limit."""
SOUND_SECONDS = 4.0
"""Sounds are cut to this, or to the 98th percentile of their lengths where that is shorter."""


def survey(
    name: str,
    headers: Sequence[Header],
    *,
    sound: bool,
    video: bool = False,
    size: int | None,
    fit: str = "auto",
    axes: str | None = None,
    notes: Sequence[str] = (),
    sides: tuple[int, int] | None = None,
) -> DataSpec:
    """The spec without classes and counts: kind, channels, type, rate and the size that items are brought to.

    `sides` are the least and the most cells of the shorter side of pictures, without `size`.
    """
    if not headers:
        raise DataError(f"{name} has no readable items")
    ndims = Counter[int]()
    for header in headers:
        ndims[len(header.spatial)] += header.count
    if len(ndims) > 1:
        listed = ", ".join(f"{count:,} with {ndim}" for ndim, count in ndims.most_common())
        raise DataError(f"{name} mixes items of different numbers of axes: {listed}; keep one kind in a data set")
    ndim = next(iter(ndims))
    kinds: dict[int, Kind] = {1: "series", 2: "image", 3: "video" if video else "volume"}
    alphabet = _alphabet(headers, name)
    kind: Kind = "sequence" if alphabet else "sound" if sound else kinds[ndim]
    channels = _channels(headers, kind, name)
    rate = _rate(headers) if sound else None
    spatial, found, sizes = _spatial(headers, kind, rate, size, sides if kind == "image" else None)
    # cut and resized, volumes have no common scale
    patches = fit == "patch"  # then `size` is theirs, and items stay as fine as they are
    most = FINEST if patches else LARGEST[3]
    physical = choose(headers, None if patches else size, most) if kind == "volume" and fit != "crop" else None
    if physical is not None:
        spatial, found = physical.spatial, "exact" if physical.exact else "pad"
    if fit != "auto":
        spatial, found = _fitted(fit, spatial, found, physical.sizes if physical else sizes, size, kind)
    return DataSpec(
        name=name,
        kind=kind,
        ndim=ndim,
        channels=channels,
        spatial=spatial,
        dtype=_dtype({header.dtype for header in headers}),
        classes=(),
        fit=found,
        axes=axes,
        rate=rate,
        sizes=sizes,
        notes=tuple(notes),
        alphabet=alphabet,
        spacing=physical.spacing if physical else None,
        spacings=physical.seen if physical else None,
    )


def _alphabet(headers: Sequence[Header], name: str) -> str | None:
    """That of all items, None where they are no sequences."""
    found = Counter[str | None]()
    for header in headers:
        found[header.alphabet] += header.count
    if len(found) > 1:
        listed = ", ".join(f"{count:,} of {alphabet or 'no alphabet'}" for alphabet, count in found.most_common())
        raise DataError(f"{name} mixes sequences of different alphabets: {listed}; a data set has one")
    return next(iter(found))


def _channels(headers: Sequence[Header], kind: Kind, name: str) -> int:
    found = Counter[int]()
    for header in headers:
        found[header.channels] += header.count
    if len(found) == 1:
        return next(iter(found))
    if kind in ("image", "video") and set(found) <= {1, 3}:
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
    headers: Sequence[Header], kind: Kind, rate: float | None, size: int | None, sides: tuple[int, int] | None
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
    if kind in ("series", "sequence"):
        longest = int(high[0]) if size is None else size
        if kind == "sequence" and size is None:
            longest = min(longest, LARGEST[1])  # one chromosome among genes would make every item as long
        return (longest,), "exact" if (low == high).all() and longest == int(high[0]) else "mask", sizes
    middle = np.array([_percentile(column, weights, 50) for column in shapes.T])
    if kind == "video":
        return *_clip(shapes, middle, size), sizes
    least, limit = sides or (1, LARGEST[len(middle)])
    most = limit if sides else 2 * limit
    if size is None and (low == high).all() and high.max() <= most and low.min() >= least:
        return sizes[1], "exact", sizes
    aspects = shapes / shapes.max(1, keepdims=True)
    if not np.allclose(aspects, aspects[0], atol=0.03):
        middle[:] = middle.min()  # many aspects: cut to a square
    # the shorter side is given by --size, else bounded so that the network sees at most about limit**ndim cells
    scale = (size if size is not None else min(max(middle.min(), least), limit)) / middle.min()
    return tuple(max(1, round(v * scale)) for v in middle), "crop", sizes


def _clip(shapes: np.ndarray, middle: np.ndarray, size: int | None) -> tuple[tuple[int, ...], Fit]:
    """Frames and their size: time has no aspect with space, so each is brought to its own."""
    frames, side = LARGEST_CLIP
    equal = bool((shapes == shapes[0]).all())
    if size is None and equal and middle[0] <= 2 * frames and middle[1:].max() <= 2 * side:
        return tuple(int(v) for v in middle), "exact"
    aspects = shapes[:, 1] / shapes[:, 2]
    if not np.allclose(aspects, aspects[0], atol=0.03):
        middle[1:] = middle[1:].min()
    scale = (size if size is not None else min(middle[1:].min(), side)) / middle[1:].min()
    height, width = (max(1, round(v * scale)) for v in middle[1:])
    return (int(min(middle[0], frames)), height, width), "crop"


def _fitted(
    fit: str, spatial: tuple[int, ...], found: Fit, sizes: tuple[tuple[int, ...], ...], size: int | None, kind: Kind
) -> tuple[tuple[int, ...], Fit]:
    """What the user asked for in place of the rule: "crop", or items at their own scale, padded or under a mask."""
    if fit == "crop":
        if kind in ("sound", "series", "sequence"):
            raise UsageError(f"--fit crop resizes pictures and volumes; for a {kind} give pad or mask")
        return spatial, "exact" if found == "exact" else "crop"
    if fit == "patch":
        if kind == "sound" or size is None:
            raise UsageError("--patch N cuts pictures, volumes, series and sequences; sounds are padded")
        if all(size > side for side in sizes[1]):
            largest = "x".join(map(str, sizes[1]))
            raise UsageError(f"--patch {size} is more than the largest item has ({largest}); give at most its size")
        return (size,) * len(spatial), "patch"
    limit = size if size is not None else LARGEST[len(spatial)]
    own = tuple(min(side, limit) for side in sizes[1])
    if kind == "sound" and fit == "mask":
        raise UsageError("--fit mask is for series, sequences, pictures and volumes; sounds are padded")
    return (spatial if kind == "sound" else own), ("mask" if fit == "mask" else "pad")


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
