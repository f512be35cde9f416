"""Moving the cells of a batch by one affine matrix an item: several geometric operations in one resampling.

A matrix (N, ndim, ndim + 1) = [A | t] says for each output cell where to look in the input: `source = A q + t`, with q
and source in cells from the middle of the grid, axes in the order of `spatial`. (It is therefore the inverse of what
the eye sees: A = 0.5 I is a magnifying glass.) What lies outside is the nearest cell of the edge: unlike zero it needs
no knowledge of what "nothing" is worth in normalised data, and on sound a held sample is a constant that no mel band
hears. Source: the spatial transformer of Jaderberg et al. (arXiv:1506.02025, section 3.2 and 3.3).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gridsight.nn.resample import resize


def identity(count: int, ndim: int, device: torch.device) -> Tensor:
    """`count` matrices (count, ndim, ndim + 1) that move nothing."""
    return torch.eye(ndim, ndim + 1, device=device).repeat(count, 1, 1)


def compose(first: Tensor, then: Tensor) -> Tensor:
    """The one matrix (N, ndim, ndim + 1) equal to warping by `first` and warping its result by `then`.

    Written as sums of products, not `bmm`, so that an item's numbers do not depend on how many others there are.
    """
    a, b = first[:, :, :-1], then
    product = (a[:, :, :, None] * b[:, None]).sum(2)
    product[:, :, -1] += first[:, :, -1]
    return product


def warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Sample x (N, C, *spatial) linearly at `matrix` (N, ndim, ndim + 1); same shape, differentiable."""
    spatial = x.shape[2:]
    ndim = len(spatial)
    if ndim == 1:  # grid_sample has no 1-D: a signal is an image of height one
        flat = matrix.new_zeros(len(x), 2, 3)
        flat[:, 0, 0] = 1
        flat[:, 1, 1:] = matrix[:, 0]
        return warp(x[:, :, None], flat)[:, :, 0]
    # grid_sample's coordinates: -1 and 1 are the outer edges of the grid (align_corners=False), the last axis first
    axes = [torch.arange(n, device=x.device, dtype=matrix.dtype) - (n - 1) / 2 for n in spatial]
    grid = matrix.new_empty(len(x), *spatial, ndim)
    for axis in range(ndim):
        where = _along(matrix[:, axis, ndim], -1, ndim)
        for other in range(ndim):
            where = where + _along(matrix[:, axis, other, None] * axes[other], other, ndim)
        torch.mul(where, 2 / spatial[axis], out=grid[..., ndim - 1 - axis])
    return F.grid_sample(x, grid.to(x.dtype), mode="bilinear", padding_mode="border", align_corners=False)


def window(x: Tensor, matrix: Tensor) -> Tensor:
    """As `warp`, of pictures of bytes (N, C, H, W) on the CPU: cut out and resized, result in channels-last memory.

    For matrices whose A is diagonal and whose windows lie inside; these are rounded to whole cells, and values too.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    full = torch.tensor(x.shape[2:], dtype=matrix.dtype)
    scale = matrix[:, :, :-1].diagonal(dim1=1, dim2=2)
    size = (scale.abs() * full).round().clamp_(min=1)
    start = ((full - size) / 2 + matrix[:, :, -1]).round().clamp_(min=0).minimum(full - size)
    out = torch.empty_like(x)
    boxes = list(zip(start.int().tolist(), size.int().tolist(), strict=True))

    def cut(i: int) -> None:
        (top, left), (height, width) = boxes[i]
        out[i] = resize(x[i : i + 1, :, top : top + height, left : left + width], x.shape[2:])[0]

    # one picture's resize keeps to one thread
    if torch.get_num_threads() == 1:
        for i in range(len(x)):
            cut(i)
    else:
        list(_pool(torch.get_num_threads()).map(cut, range(len(x))))
    for i, axis in (scale < 0).nonzero().tolist():
        out[i] = out[i].flip(1 + axis)
    return out


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "window")


def warp_exact(x: Tensor, matrix: Tensor) -> Tensor:
    """As `warp`, by copying cells: for matrices whose A is diagonal with entries 1 or -1 and whose t is whole cells."""
    spatial = x.shape[2:]
    indices = []
    for axis, size in enumerate(spatial):
        middle = (size - 1) / 2
        cells = torch.arange(size, device=x.device, dtype=matrix.dtype) - middle
        source = matrix[:, axis, axis, None] * cells + (matrix[:, axis, -1, None] + middle)
        indices.append(source.clamp_(0, size - 1).to(torch.int64))
    if len(spatial) > 1:  # whole rows first: a copy of rows is several times cheaper than one of cells
        row = torch.arange(x.shape[0] * x.shape[1], device=x.device).view(*x.shape[:2], *[1] * (len(spatial) - 1))
        for axis, index in enumerate(indices[:-1]):
            row = row * spatial[axis] + _along(index, axis, len(spatial) - 1)[:, None]
        x = x.reshape(-1, spatial[-1]).index_select(0, row.flatten()).view(x.shape)
    return x.gather(-1, _along(indices[-1], len(spatial) - 1, len(spatial))[:, None].expand(x.shape))


def _along(values: Tensor, axis: int, ndim: int) -> Tensor:
    """(N, size) laid along `axis` of `ndim` axes, to broadcast: (N, 1, size, 1); axis -1: (N,) to (N, 1, 1, 1)."""
    shape: Sequence[int] = [1] * ndim if axis < 0 else [-1 if i == axis else 1 for i in range(ndim)]
    return values.view(len(values), *shape)
