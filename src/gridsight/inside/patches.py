"""Top patches: what moves each unit most among the user's own items, cut by the exact receptive field.

A unit is a channel of a layer. Of each item its best cell alone counts, so that one item cannot fill a row; of equal
values the earlier item stays. Data stream by: at most units x k patches are kept, or items where those are smaller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.inside._reading import Data, batches, known_unit
from gridsight.inside.receptive import box
from gridsight.measure.layers import Layer, as_grid, cut, find_layer, run_through
from gridsight.nn.geometry import Field
from gridsight.nn.memory import SHARE, free_memory
from gridsight.nn.undisturbed import undisturbed


@dataclass(frozen=True, eq=False)
class Patches:
    """The best `k` of `n` items for each of `units`, best first; fewer columns where there are fewer items.

    - `values` (units, k): the activation; `items` (units, k) int64: the item's number in the order of the data;
      `cells` (units, k, ndim) int64: the cell of the layer.
    - `rows`: for each unit its patches (C, *size of the field), zero where the field reaches beyond the item.
    """

    layer: str
    units: tuple[int, ...]
    values: NDArray[np.float32]
    items: NDArray[np.int64]
    cells: NDArray[np.int64]
    rows: tuple[Sequence[Tensor], ...]
    seen: Layer
    spatial: tuple[int, ...]
    n: int

    def box(self, row: int, rank: int) -> tuple[tuple[int, int], ...]:
        """(first, behind the last) cell of the item, an axis each, that a patch is; it may lie beyond the item."""
        return box(self.seen.field, self.cells[row, rank].tolist(), self.spatial)


class Row(Sequence[Tensor]):
    """The patches of a unit; `kept` are patches, or items that are cut when asked for, at `cells`.

    A field that is larger than the item makes patches that are mostly border: too large to keep all of them.
    """

    def __init__(self, kept: list[Tensor], field: Field, cells: list[list[int]] | None) -> None:
        self.kept, self.field, self.cells = kept, field, cells

    def __len__(self) -> int:
        return len(self.kept)

    @overload
    def __getitem__(self, rank: int) -> Tensor: ...
    @overload
    def __getitem__(self, rank: slice) -> list[Tensor]: ...
    def __getitem__(self, rank: int | slice) -> Tensor | list[Tensor]:
        if isinstance(rank, slice):
            return [self[i] for i in range(*rank.indices(len(self)))]
        return self.kept[rank] if self.cells is None else cut(self.kept[rank], self.field, self.cells[rank])


class Best:
    """The best k places of each unit among grids that stream by, and the part of the item around each."""

    def __init__(self, layer: Layer, units: int, k: int, item: Tensor) -> None:
        sizes = [s or whole for s, whole in zip(layer.field.size, item.shape[1:], strict=True)]
        self.whole = prod(sizes) >= prod(item.shape[1:])  # then items are kept, each once a batch, and cut at last
        bytes_kept = units * k * item.shape[0] * min(prod(sizes), prod(item.shape[1:])) * item.element_size()
        free = free_memory(torch.device("cpu"))
        if free is not None and bytes_kept > SHARE * free:
            raise UsageError(f"the patches of {units} units may take {bytes_kept / 1e9:.1f} GB: name fewer units, or k")
        self.layer, self.k, self.n = layer, k, 0
        self.value = torch.empty(units, 0)
        self.item = torch.empty(units, 0, dtype=torch.int64)
        self.cell = torch.empty(units, 0, dtype=torch.int64)
        self.kept: list[list[Tensor]] = [[] for _ in range(units)]

    def add(self, x: Tensor, grid: Tensor) -> None:
        """Items x (n, C, *spatial) and what the units say of them, (n, units, *cells)."""
        top, cell = grid.detach().flatten(2).max(2)
        number = torch.arange(self.n, self.n + len(x)).expand(grid.shape[1], -1)
        value = torch.cat([self.value, top.T.float().cpu()], 1)
        order = value.argsort(dim=1, descending=True, stable=True)[:, : self.k]
        old = self.value.shape[1]
        self.value = value.gather(1, order)
        self.item = torch.cat([self.item, number], 1).gather(1, order)
        self.cell = torch.cat([self.cell, cell.T.cpu()], 1).gather(1, order)
        shared: dict[int, Tensor] = {}
        # units whose order is as it was keep what they have
        same = torch.arange(order.shape[1])
        for unit in (order != same).any(1).nonzero()[:, 0].tolist() if old == order.shape[1] else range(len(order)):
            row = []
            for place, source in enumerate(order[unit].tolist()):
                if source < old:
                    row.append(self.kept[unit][source])
                    continue
                here = source - old
                if self.whole:
                    if here not in shared:
                        shared[here] = x[here].detach().cpu().clone()
                    row.append(shared[here])
                else:
                    where = self.place(int(self.cell[unit, place]))
                    row.append(cut(x[here].detach(), self.layer.field, where).cpu().clone())
            self.kept[unit] = row
        self.n += len(x)

    def place(self, flat: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(flat, self.layer.shape[1:]))

    def result(self, units: Sequence[int], spatial: tuple[int, ...]) -> Patches:
        cells = np.stack(np.unravel_index(self.cell.numpy(), self.layer.shape[1:]), -1)
        rows = tuple(
            Row(row, self.layer.field, at if self.whole else None)
            for row, at in zip(self.kept, cells.tolist(), strict=True)
        )
        return Patches(
            self.layer.name,
            tuple(units),
            self.value.numpy(),
            self.item.numpy(),
            cells.astype(np.int64),
            rows,
            self.layer,
            spatial,
            self.n,
        )


def top_patches(net: nn.Module, data: Data, name: str, units: Sequence[int] | None = None, k: int = 9) -> Patches:
    """The k best patches of each of `units` (default: all channels) of the layer `name`, one an item at most.

    >>> net = nn.Sequential(nn.Conv1d(1, 1, 1))
    >>> _ = nn.init.ones_(net[0].weight)
    >>> found = top_patches(net, torch.tensor([[[1.0, 5]], [[7.0, 0]]]), "0")
    >>> found.items.tolist(), found.cells[..., 0].tolist()
    ([[1, 0]], [[0, 1]])
    """
    if k < 1:
        raise UsageError(f"k is the number of patches of each unit, at least 1, not {k}")
    best: Best | None = None
    spatial: tuple[int, ...] = ()
    chosen: list[int] = []
    with undisturbed(net), torch.no_grad():
        for x in batches(net, data):
            if best is None:
                spatial = tuple(x.shape[2:])
                layer = find_layer(net, tuple(x.shape[1:]), name)
                chosen = list(range(layer.shape[0]) if units is None else units)
                if not chosen:
                    raise UsageError("name at least one unit")
                for unit in chosen:
                    known_unit(unit, layer.shape[0], name)
                best = Best(layer, len(chosen), k, x[0])
            grid = as_grid(net, run_through(net, x, name)[1], name)
            best.add(x, grid[:, chosen])
    assert best is not None
    return best.result(chosen, spatial)
