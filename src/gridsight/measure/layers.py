"""The layers of any network whose outputs are grids (N, C, *cells): their names, what their cells see, their tensors.

A layer is called as in `net.named_modules()`; the stages of a `Net` are also called "stage 1", "stage 2", ... and those
that keep tokens are turned into grids. A module that runs several times in a pass is its last run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gridsight.core.errors import UsageError, nearest
from gridsight.measure.cost import cost
from gridsight.nn.geometry import Field, centres, stage_shapes
from gridsight.nn.net import Net

STAGE = "stage "


@dataclass(frozen=True)
class Layer:
    """`shape` (C, *cells) of its output for one item, and what its cells see of the input."""

    name: str
    kind: str
    shape: tuple[int, ...]
    field: Field


def layers(net: nn.Module, shape: Sequence[int]) -> list[Layer]:
    """Every layer of `net` whose output is a grid of the input's axes, for one item (C, *spatial), in running order.

    Stages of a `Net` come last. A network of none is a `UsageError`.
    """
    total, rank = cost(net, shape), len(shape)
    found = [
        Layer(each.name, each.kind, each.shape, each.field)
        for each in total.layers
        if each.name and len(each.shape) == rank and each.field is not None
    ]
    if isinstance(net, Net):
        sizes = stage_shapes(net, shape[0], shape[1:])
        pairs = zip(sizes, total.stages, strict=True)
        found += [Layer(f"{STAGE}{i}", "stage", size, field) for i, (size, field) in enumerate(pairs, 1)]
    if not found:
        axes = "axis" if rank == 2 else "axes"
        raise UsageError(f"{type(net).__name__} has no layer whose output keeps the {rank - 1} {axes} of its input")
    return found


def find_layer(net: nn.Module, shape: Sequence[int], name: str) -> Layer:
    """The layer called `name`; another name is a `UsageError` with the nearest ones."""
    known = layers(net, shape)
    for layer in known:
        if layer.name == name:
            return layer
    if name in dict(net.named_modules()):
        raise UsageError(f"layer {name!r} has no grid as its output; {nearest(name, [each.name for each in known])}")
    raise UsageError(f"there is no layer {name!r}; {nearest(name, [each.name for each in known])}")


def run_through(net: nn.Module, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """(outputs, what the layer `name` wrote) of x (N, C, *spatial): parts of one graph, so that one has a gradient in
    the other; `as_grid` turns both the latter and its gradient into (N, C, *cells).
    """
    if name.startswith(STAGE) and isinstance(net, Net):
        kept = stage = x
        for number, stage in enumerate(net.forward_stages(x), 1):
            if number == int(name.removeprefix(STAGE)):
                kept = stage
        return net.forward_head(stage), kept
    written: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        written.append(output)
        return output.clone()  # what comes next may write over it

    hook = net.get_submodule(name).register_forward_hook(keep)
    try:
        outputs = net(x)
    finally:
        hook.remove()
    return outputs, written[-1]


def as_grid(net: nn.Module, written: Tensor) -> Tensor:
    """What a layer wrote, or its gradient, as (N, C, *cells)."""
    return net.to_grid(written) if isinstance(net, Net) and written.dim() == 3 else written


def place(grid: Tensor, field: Field, spatial: Sequence[int]) -> Tensor:
    """A layer's map (N, *cells) on the cells of its input, (N, *spatial): linear between the centres of what its cells
    see, constant beyond the first and the last. Stretching it over the input would move it by up to half a jump.
    """
    for axis, size in enumerate(spatial):
        where = torch.from_numpy(centres(field, axis, grid.shape[1 + axis], size)).to(grid.device, torch.float64)
        here = torch.arange(size, dtype=torch.float64, device=grid.device)
        right = torch.searchsorted(where, here).clamp(1, max(1, len(where) - 1))
        if len(where) == 1:
            grid = grid.repeat_interleave(size, 1 + axis)
            continue
        share = ((here - where[right - 1]) / (where[right] - where[right - 1])).clamp(0, 1).to(grid.dtype)
        moved = grid.movedim(1 + axis, -1)
        grid = torch.lerp(moved[..., right - 1], moved[..., right], share).movedim(-1, 1 + axis)
    return grid


def cut(x: Tensor, field: Field, cell: Sequence[int]) -> Tensor:
    """What one cell of a layer sees of an item x (C, *spatial): (C, *size of its field), zero beyond the item.

    The whole of an axis where it sees everything.
    """
    boxes, border = [slice(None)], []
    for axis, i in enumerate(cell):
        size, jump, start = field.size[axis], field.jump[axis], field.start[axis]
        if size is None or jump is None or start is None:
            boxes.append(slice(None))
            border.append((0, 0))
            continue
        first = round(start - (size - 1) / 2) + i * jump
        low, high = max(0, first), min(x.shape[1 + axis], first + size)
        boxes.append(slice(low, max(low, high)))
        border.append((min(size, low - first), size - min(size, low - first) - max(0, high - low)))
    return pad(x[tuple(boxes)], [side for pair in reversed(border) for side in pair])
