"""What a unit sees: the box of its receptive field, exactly, and how much of it the unit goes by.

The effective receptive field is the mean over items of the absolute gradient of one cell in the input (Luo, Li, Urtasun
and Zemel, arXiv:1701.04128, section 2; their figures average over inputs as well). Differs: where no channel is named,
channels are added up with random signs, so that they neither cancel nor favour one another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError
from gridsight.inside._reading import Data, batches, known_unit
from gridsight.measure.layers import as_grid, find_layer, run_through
from gridsight.nn.geometry import Field
from gridsight.nn.undisturbed import undisturbed

LEVEL = 1 - 0.9545
"""Cells with more than this share of the largest gradient belong to the effective field (Luo et al., section 4.1)."""


@dataclass(frozen=True, eq=False)
class Effective:
    """`heat` (*spatial), the mean absolute gradient of `cell` of a layer over `n` items, 1 at its largest.

    `box` has (first, behind the last) input cell of the receptive field an axis, which may lie beyond the input;
    `share` is how much of the box, as far as it lies within the input, is above `LEVEL`.
    """

    layer: str
    unit: int | None
    cell: tuple[int, ...]
    heat: Tensor
    box: tuple[tuple[int, int], ...]
    share: float
    n: int


def box(field: Field, cell: Sequence[int], spatial: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(first, behind the last) input cell, an axis each, that a cell of a layer sees, padding included."""
    edges = []
    for size, jump, start, i, whole in zip(field.size, field.jump, field.start, cell, spatial, strict=True):
        if size is None or jump is None or start is None:
            edges.append((0, whole))
            continue
        first = round(start - (size - 1) / 2) + i * jump
        edges.append((first, first + size))
    return tuple(edges)


def effective(
    net: nn.Module, data: Data, name: str, unit: int | None = None, cell: Sequence[int] | None = None, seed: int = 0
) -> Effective:
    """The effective receptive field of one cell (default: the middle) of a layer; `unit` None: of all its channels."""
    total, count, layer = torch.zeros(()), 0, None
    with undisturbed(net):
        for part in batches(net, data):
            if layer is None:
                layer = find_layer(net, tuple(part.shape[1:]), name)
                cells = layer.shape[1:]
                where: tuple[int, ...] = tuple(cell) if cell is not None else tuple(size // 2 for size in cells)
                if len(where) != len(cells) or not all(0 <= i < size for i, size in zip(where, cells, strict=True)):
                    raise UsageError(f"cell {where}: {name} has {' x '.join(map(str, cells))} cells")
                if unit is not None:
                    known_unit(unit, layer.shape[0], name)
            x = part.detach().clone().requires_grad_()
            place: Any = (slice(None), slice(None), *where)
            said = as_grid(net, run_through(net, x, name)[1], name)[place]
            if unit is None:
                items = torch.arange(count, count + len(x), device=x.device)
                sign = hashing.uniform(seed, 0, items, "effective", said.shape[1]).lt(0.5).to(said) * 2 - 1
                value = (said * sign).sum()
            else:
                value = said[:, unit].sum()
            (slope,) = torch.autograd.grad(value, x)
            total = total.to(slope.device, torch.float64) + slope.abs().sum((0, 1)).double()
            count += len(x)
    assert layer is not None
    heat = (total / total.max().clamp(min=1e-300)).float()
    edges = box(layer.field, where, heat.shape)
    inside = [min(high, size) - max(low, 0) for (low, high), size in zip(edges, heat.shape, strict=True)]
    share = int((heat > LEVEL).sum()) / max(1, prod(inside))
    return Effective(name, unit, where, heat, edges, share, count)
