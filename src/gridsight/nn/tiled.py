"""A network on an input larger than memory: tile by tile, with exact halos, equal to the untiled pass to rounding.

A tile is a block of last-stage cells and the input cells that these read (`nn.reach`, which also says for which
networks this can be). The head reads the assembled last stage; where that is too large and the head is a mean over
cells, the answer is the weighted mean of what the head says about each tile.

Shapes: `read(box)` gives (1, C, *box) of any type, the last stage is (1, width, *cells), logits are (1, K). Memory is
in bytes, tiles in cells of the input, blocks in cells of the last stage.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gridsight.core.errors import UsageError
from gridsight.nn.blocks import times
from gridsight.nn.frontend import FrontEnd
from gridsight.nn.geometry import meta_copy, stage_shapes
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net
from gridsight.nn.reach import (
    SAME,
    Box,
    Reach,
    Read,
    blocks,
    exact_copy,
    last_stage,
    reach_of,
    require_equal,
    run_blocks,
)

MEMORY = 256 << 20
"""Default bytes for what the largest operation on a tile reads and writes, and for an assembled last stage."""


@torch.no_grad()
def tiled_logits(
    net: Net,
    read: Read,
    spatial: Sequence[int],
    *,
    front: FrontEnd | None = None,
    tile: OneOrEach | None = None,
    memory: int = MEMORY,
    check: bool = True,
) -> Tensor:
    """Logits (1, K) of an input of `spatial` cells, equal to `net(front(whole))`, never holding more than a tile of it.

    `tile` is the side of a tile without its halo, rounded up to the jump; None takes the largest for which `memory`
    suffices. `check=False` leaves out the comparison with the whole on a small input: for a network that passed it.

    >>> from gridsight.models import create
    >>> from gridsight.nn.reach import reader
    >>> net = create("resnet20", ndim=1).eval()
    >>> x = torch.randn(1, 3, 1000)
    >>> logits = tiled_logits(net, reader(x[0]), (1000,), tile=100)
    >>> float((logits - net(x)).detach().abs().max()) < 1e-5
    True
    """
    if net.training:
        raise UsageError("tiles need a network in eval mode: batch statistics of a tile are not those of the whole")
    if front is not None and front.mel is not None:
        raise UsageError("a sound cannot be tiled: its log-mel is brought to the mean and deviation of the whole item")
    spatial, name = tuple(spatial), type(net).__name__
    channels = read((slice(0, 1),) * len(spatial)).shape[1]
    reach = reach_of(net, channels, spatial)
    if check:
        require_equal(net, channels, reach)
    width, *cells = stage_shapes(net, channels, spatial)[-1]
    if tile is None:
        size = _largest_block(net, channels, spatial, cells, reach, memory)
    else:
        size = _block_of(tile, reach)
    weight = next(net.parameters())

    def prepare(box: Box) -> Tensor:
        x = read(box).to(weight.device)
        return x.to(weight.dtype) if front is None else front(x)

    parts = run_blocks(net, prepare, spatial, reach, blocks(cells, size))
    needed = width * math.prod(cells) * weight.element_size()
    if needed <= memory:
        stage = torch.empty(1, width, *cells, dtype=weight.dtype, device=weight.device)
        for block, part in parts:
            stage[(slice(None), slice(None), *block)] = part
        return net.forward_head(stage)
    if not averages(net, width, len(cells)):
        raise UsageError(
            f"the last stage of {name} on {times(spatial)} cells takes {_mega(needed)}, above memory={_mega(memory)}, "
            "and its head is no mean over cells, so that it needs them all at once: give more memory, or take a "
            "network with larger strides or a global mean"
        )
    total = torch.zeros((), dtype=torch.float64, device=weight.device)
    for _, part in parts:
        total = total + net.forward_head(part).double() * math.prod(part.shape[2:])
    return (total / math.prod(cells)).to(weight.dtype)


@torch.no_grad()
def averages(net: Net, width: int, ndim: int) -> bool:
    """Whether the head's answer is the mean of its answers about single cells, as of a global mean and a linear layer.

    Tried on random cells in float64.
    """
    exact = exact_copy(net)
    x = torch.randn(1, width, 4, *[3] * (ndim - 1), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole, quarter, rest = (exact.forward_head(part) for part in (x, x[:, :, :1], x[:, :, 1:]))
    return torch.allclose(whole, 0.25 * quarter + 0.75 * rest, rtol=SAME, atol=SAME)


def _block_of(tile: OneOrEach, reach: Reach) -> tuple[int, ...]:
    """Last-stage cells of a tile of that many input cells, at least one an axis."""
    sides = Nd(len(reach.jump)).each(tile)
    if min(sides) < 1:
        raise UsageError(f"a tile has at least 1 cell an axis, not {times(sides)}")
    return tuple(-(-side // jump) for side, jump in zip(sides, reach.jump, strict=True))


def _largest_block(
    net: Net, channels: int, spatial: Sequence[int], cells: Sequence[int], reach: Reach, memory: int
) -> tuple[int, ...]:
    """The most last-stage cells an axis for which `memory` suffices, halo included; the same on every axis."""
    bytes_a_cell = _largest_step(net, channels, spatial) / math.prod(spatial)

    def with_halo(side: int) -> list[int]:
        axes = zip(spatial, cells, reach.size, reach.jump, strict=True)
        return [min(n, (min(side, have) - 1) * jump + size + jump - 1) for n, have, size, jump in axes]

    def bytes_of(side: int) -> int:
        return round(bytes_a_cell * math.prod(with_halo(side)))

    side = bisect_right(range(1, max(cells) + 1), memory, key=bytes_of)
    if side == 0:
        raise UsageError(
            f"one cell of the last stage of {type(net).__name__} reads {times(with_halo(1))} cells, for which its "
            f"largest operation takes {_mega(bytes_of(1))}, above memory={_mega(memory)}: give more memory, or use "
            "windows"
        )
    return tuple(min(side, have) for have in cells)


def _largest_step(net: Net, channels: int, spatial: Sequence[int]) -> int:
    """Bytes that the largest operation reads and writes for an input of that size; half of the peak, or more."""
    net = meta_copy(net)
    x = torch.empty(1, channels, *spatial, dtype=next(net.parameters()).dtype, device="meta")
    with torch.no_grad(), _Steps() as steps:
        last_stage(net, x)
    return steps.largest


class _Steps(TorchDispatchMode):
    """Keeps the bytes of the operation with the largest arguments and result together."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        written = result if isinstance(result, list | tuple) else [result]
        tensors = [t for t in (*args, *written) if isinstance(t, Tensor)]
        self.largest = max(self.largest, sum(t.numel() * t.element_size() for t in tensors))
        return result


def _mega(count: float) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
