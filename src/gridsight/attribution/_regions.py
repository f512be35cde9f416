"""Regions of an input, which methods that take cells away judge as wholes: a grid (time windows in 1-D), superpixels,
supervoxels, or the user's own.
"""

from math import prod

import numpy as np
import torch
from torch import Tensor

from gridsight.core.errors import UsageError, nearest

REGIONS = ("grid", "slic")
COMPACT = (0.1, 0.3, 1.0, 3.0, 10.0)
"""How much being near counts for pieces beside being alike, which is up to 1: more where noise breaks all pieces up."""
ENOUGH = 0.7
"""Of the pieces that were asked for; where none of `COMPACT` gives as many, the grid does."""
TAILS = (0.01, 0.99)
"""What is beyond these shares of an item's values is cut off before values are compared."""


def regions_of(x: Tensor, kind: str | Tensor, count: int) -> Tensor:
    """(N, *spatial) int64 on the device of x (N, C, *spatial): each item's regions, numbered from 0 without gaps.

    - "grid": about `count` boxes, as near to cubes as the axes allow; the same for every item;
    - "slic": about `count` pieces of like values that hang together (Achanta et al., TPAMI 2012; scikit-image);
    - a tensor (*spatial) or (N, *spatial) of whole numbers: the user's own.
    """
    spatial = tuple(x.shape[2:])
    if isinstance(kind, Tensor):
        return _own(x, kind)
    if not 1 <= count <= prod(spatial):
        raise UsageError(f"{count} regions: an item of {prod(spatial):,} cells has 1 to as many")
    if kind == "grid":
        return _grid(spatial, count).to(x.device).expand(len(x), *spatial)
    if kind == "slic":
        return torch.stack([_pieces(item, count) for item in x])
    raise UsageError(f"there are no regions {kind!r}; {nearest(str(kind), REGIONS)}")


def spread(parts: Tensor, regions: Tensor) -> Tensor:
    """Evidence of regions (N, P) over their cells, (N, *spatial): each cell gets its share, so that sums stay."""
    flat = regions.flatten(1)
    sizes = torch.zeros_like(parts).scatter_add_(1, flat, torch.ones_like(flat, dtype=parts.dtype))
    return (parts / sizes.clamp(min=1)).gather(1, flat).view(regions.shape)


def _own(x: Tensor, regions: Tensor) -> Tensor:
    if regions.dtype.is_floating_point or regions.shape not in (x.shape[2:], (len(x), *x.shape[2:])):
        raise UsageError(
            f"regions are whole numbers of shape {tuple(x.shape[2:])} or {(len(x), *x.shape[2:])}, not "
            f"{regions.dtype} {tuple(regions.shape)}"
        )
    each = regions.to(x.device).expand(len(x), *x.shape[2:])
    return torch.stack([own.unique(return_inverse=True)[1] for own in each])


def _grid(spatial: tuple[int, ...], count: int) -> Tensor:
    """Boxes whose edges are about equally long: the axis with the longest edge is cut once more until there are enough.

    Never beyond what is nearest to `count` by ratio.
    """
    parts = [1] * len(spatial)
    while prod(parts) < count:
        axis = max(range(len(spatial)), key=lambda a: spatial[a] / parts[a])
        more = [n + (a == axis) for a, n in enumerate(parts)]
        if parts[axis] == spatial[axis] or (prod(more) * prod(parts) > count * count and prod(parts) > 1):
            break
        parts = more
    index = torch.zeros(spatial, dtype=torch.int64)
    for axis, (size, n) in enumerate(zip(spatial, parts, strict=True)):
        along = torch.arange(size) * n // size
        index = index * n + along.view(-1, *[1] * (len(spatial) - axis - 1))
    return index


def _pieces(item: Tensor, count: int) -> Tensor:
    try:
        from skimage.segmentation import slic
    except ImportError:
        raise UsageError(
            'regions="slic" needs the package scikit-image, which is not installed; pip install "gridsight[regions]"'
        ) from None
    values = item.detach().float().cpu().numpy()
    low, high = np.quantile(values, TAILS)
    values = np.clip((values - low) / max(high - low, 1e-12), 0, 1) / len(values) ** 0.5  # distances up to 1
    if item.dim() == 2:  # a signal is a picture one cell high
        values = values[:, None]
    for compact in COMPACT:
        found = slic(values, count, compact, channel_axis=0, start_label=0, convert2lab=False)
        pieces, index = np.unique(found, return_inverse=True)
        if len(pieces) >= ENOUGH * count:
            return torch.from_numpy(index.reshape(item.shape[1:])).to(item.device)
    return _grid(tuple(item.shape[1:]), count).to(item.device)
