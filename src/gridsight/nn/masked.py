"""Layers on items of unequal size: a mask (N, *spatial) marks the real cells, the rest is padding and is not read.

Whatever a network answers, in training and in evaluation, is then what it would answer about each item without padding
(and, where a norm takes batch statistics, about the real cells of the batch): to rounding, for any amount of padding.
Items lie at the start of every axis and are padded at its end. `mask` None means that every cell is real.

Convolutions must be centred and keep ceil(cells / stride) cells, as `same_conv` builds them: cell i of their output is
then real where cell i * stride of the input was, and padding filled with zeros reads like the zero padding of a border.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

Mask = Tensor | None


def fill(x: Tensor, mask: Mask, value: float = 0.0) -> Tensor:
    """x (N, C, *spatial) with `value` in the cells that are not real; to be called before every convolution."""
    return x if mask is None else x.masked_fill(~mask[:, None], value)


def shrink(mask: Mask, *strides: int | Sequence[int]) -> Mask:
    """The mask after layers of these strides, each one int or one int an axis."""
    if mask is None:
        return None
    for stride in strides:
        each = [stride] * (mask.dim() - 1) if isinstance(stride, int) else stride
        mask = mask[(slice(None), *(slice(None, None, s) for s in each))]
    return mask


def conv(layer: nn.Module, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
    """`layer`, a convolution, of the real cells of x, and the mask after its stride."""
    return layer(fill(x, mask)), shrink(mask, layer.stride)  # type: ignore[arg-type]


def run(layers: Iterable[nn.Module], x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
    """Layers one after another: convolutions, norms, what looks at each cell alone, and an `nn.Sequential` of these."""
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            x, mask = run(layer, x, mask)
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            x, mask = conv(layer, x, mask)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.GroupNorm):
            x = norm(layer, x, mask)
        else:
            x = layer(x)
    return x, mask


def max_pool(pool: nn.Module, x: Tensor, mask: Mask) -> Tensor:
    """`pool` over the real cells alone; every window of the mask shrunk by its stride must hold one."""
    if mask is None:
        return pool(x)
    pooled = pool(fill(x, mask, torch.finfo(x.dtype).min))
    # a window without real cells would hand on a huge number, which turns to NaN in the norm's gradient
    return fill(pooled, shrink(mask, pool.stride))  # type: ignore[arg-type]


def norm(layer: nn.Module, x: Tensor, mask: Mask) -> Tensor:
    """A batch or group norm whose statistics are those of the real cells."""
    if mask is None or isinstance(layer, nn.Identity):
        return layer(x)
    if isinstance(layer, nn.GroupNorm):
        return _group_norm(layer, x, mask)
    if not layer.training:  # running statistics: each cell by itself
        return layer(x)
    last = x.movedim(1, -1)
    real = last[mask]  # (cells, C)
    as_items = real.T.reshape(1, x.shape[1], -1, *[1] * (x.dim() - 3))
    out = torch.zeros_like(last)
    out[mask] = layer(as_items).reshape(x.shape[1], -1).T
    return out.movedim(-1, 1)


def _group_norm(layer: nn.GroupNorm, x: Tensor, mask: Tensor) -> Tensor:
    grouped = x.reshape(len(x), layer.num_groups, -1, *x.shape[2:])  # (N, G, C / G, *spatial)
    inside = mask[:, None, None].to(x.dtype)
    axes = tuple(range(2, grouped.dim()))
    count = inside.sum(axes, keepdim=True) * grouped.shape[2]
    mean = (grouped * inside).sum(axes, keepdim=True) / count
    centred = (grouped - mean) * inside
    variance = centred.square().sum(axes, keepdim=True) / count
    x = (centred / (variance + layer.eps).sqrt()).reshape(x.shape)
    if layer.affine:
        shape = (1, -1, *[1] * (x.dim() - 2))
        x = x * layer.weight.view(shape) + layer.bias.view(shape)
    return x


def mean(x: Tensor, mask: Mask) -> Tensor:
    """Mean over the real cells: (N, C, *spatial) -> (N, C)."""
    if mask is None:
        return x.flatten(2).mean(2)
    return fill(x, mask).flatten(2).sum(2) / mask.flatten(1).sum(1, keepdim=True)


def cells(x: Tensor, mask: Tensor, grid: Sequence[int]) -> Tensor:
    """Adaptive average pooling of each item's real cells: (N, C, *spatial) -> (N, C, *grid).

    Cell i of g averages the cells from floor(i L / g) to ceil((i + 1) L / g) of the item's own L, as PyTorch's does.
    """
    x = fill(x, mask)
    for axis, (g, length) in enumerate(zip(grid, lengths(mask).T, strict=True)):
        i = torch.arange(g, device=x.device)
        start = i * length[:, None] // g
        end = -((i + 1) * length[:, None] // -g)
        place = torch.arange(x.shape[2 + axis], device=x.device)
        inside = (place >= start[..., None]) & (place < end[..., None])  # (N, g, size)
        share = inside.to(x.dtype) / (end - start)[..., None]
        x = torch.einsum("nc...t,ngt->nc...g", x.movedim(2 + axis, -1), share).movedim(-1, 2 + axis)
    return x


def lengths(mask: Tensor) -> Tensor:
    """(N, ndim) int64: the real cells of each item along every axis."""
    spans = []
    for axis in range(1, mask.dim()):
        others = tuple(a for a in range(1, mask.dim()) if a != axis)
        spans.append((mask.any(others) if others else mask).sum(1))
    return torch.stack(spans, 1)


def mask_of(sizes: Tensor, spatial: Sequence[int]) -> Tensor:
    """(N, *spatial) bool from the real cells (N, ndim) of each item along every axis."""
    mask = torch.ones(len(sizes), *spatial, dtype=torch.bool, device=sizes.device)
    for axis, size in enumerate(spatial):
        shape = [len(sizes), *[1] * len(spatial)]
        shape[1 + axis] = size
        mask &= (torch.arange(size, device=sizes.device) < sizes[:, axis, None]).view(shape)
    return mask
