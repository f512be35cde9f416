"""Pooled maps: of every cell behind a max pool, which cell won, so that arrows can be drawn back to it.

Winners are PyTorch's own: of equal cells the first in the order of memory. `pixels` goes on to the network's input: the
middle of what the winning cell sees of it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.pooling import _MaxPoolNd

from gridsight.core.errors import UsageError, nearest
from gridsight.inside._reading import one_item
from gridsight.measure.layers import find_layer, find_module
from gridsight.nn.geometry import Field, centres
from gridsight.nn.undisturbed import undisturbed


@dataclass(frozen=True, eq=False)
class Pooled:
    """`before` (C, *cells) and `after` (C, *out) a max pool, for one item.

    - `winner` (C, *out, ndim) int64: the cell of `before` that each cell of `after` is; windows may share one.
    - `pixels` (C, *out, ndim) float64: the middle of what that cell sees, in cells of the network's input.
    - `kernel`, `stride`, `padding`, `dilation`: one number an axis.
    """

    layer: str
    before: Tensor
    after: Tensor
    winner: Tensor
    pixels: Tensor
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


def max_pools(net: nn.Module) -> list[str]:
    """The names of a network's max pools."""
    return [name for name, module in net.named_modules() if isinstance(module, _MaxPoolNd)]


def pooled(net: nn.Module, item: Tensor, name: str | None = None) -> Pooled:
    """What the max pool `name` (default: the first) does with an item (C, *spatial).

    >>> net = nn.Sequential(nn.MaxPool1d(2))
    >>> pooled(net, torch.tensor([[1.0, 3, 2, 2]])).winner[0, :, 0].tolist()
    [1, 2]
    """
    x, known = one_item(net, item), max_pools(net)
    if not known:
        raise UsageError(f"{type(net).__name__} has no max pool (nn.MaxPool1d, 2d, 3d): see its feature maps instead")
    name = known[0] if name is None else name
    pool = find_module(net, name)
    if not isinstance(pool, _MaxPoolNd):
        raise UsageError(f"layer {name!r} is {type(pool).__name__}, no max pool; {nearest(name, known)}")
    ndim = x.dim() - 2
    kernel, stride, padding, dilation = (
        tuple(value) if isinstance(value, tuple | list) else (value,) * ndim
        for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    given: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any) -> None:
        given.append(inputs[0].clone())

    with undisturbed(net), torch.no_grad():
        hook = pool.register_forward_pre_hook(keep)
        try:
            net(x.clone())
        finally:
            hook.remove()
        if not given:
            raise UsageError(f"the max pool {name!r} does not run")
        field = find_layer(net, tuple(item.shape), name).field
    before = given[-1]
    function = getattr(F, f"max_pool{ndim}d")
    after, flat = function(before, kernel, stride, padding, dilation, pool.ceil_mode, return_indices=True)
    winner = torch.stack(torch.unravel_index(flat[0], before.shape[2:]), -1)
    seen = _before(field, kernel, stride, padding, dilation)
    middles = [centres(seen, axis, before.shape[2 + axis], item.shape[1 + axis]) for axis in range(ndim)]
    pixels = torch.stack(
        [torch.from_numpy(middle).to(winner.device)[winner[..., axis]] for axis, middle in enumerate(middles)], -1
    )
    return Pooled(name, before[0], after[0], winner, pixels, kernel, stride, padding, dilation)


def _before(
    field: Field,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Field:
    """What the cells before a pool see, from what those behind it see."""
    jump: list[int | None] = []
    start: list[float | None] = []
    for j, s, k, step, p, d in zip(field.jump, field.start, kernel, stride, padding, dilation, strict=True):
        own = None if j is None else j // step
        jump.append(own)
        start.append(None if own is None or s is None else s - ((k - 1) * d / 2 - p) * own)
    return Field(field.size, tuple(jump), tuple(start))
