"""Occlusion: what the answer loses when a window of the input is replaced by the baseline (Zeiler and Fergus,
arXiv:1311.2901, section 4.2).

A window's loss is shared evenly by its cells; where windows overlap a cell has the mean of its windows.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import at_once, masked_scores, scores
from gridsight.core.errors import UsageError
from gridsight.nn.undisturbed import undisturbed

PARTS = 8
"""Windows an axis where no size is given."""


@EXPLAINERS.register(
    "occlusion",
    ndims=(1, 2, 3),
    needs="passes",
    complete=False,
    linear="regions",
    sound=True,
    source="Zeiler and Fergus, arXiv:1311.2901",
)
@dataclass(frozen=True)
class Occlusion:
    """Windows of `size` cells (an int, or one an axis; an eighth of the axis where none is given), every `stride` cells
    (None: side by side).
    """

    size: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    baseline: str | Tensor = "zero"

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        spatial = tuple(x.shape[2:])
        size = _each(self.size, spatial, "size") or tuple(-(-n // PARTS) for n in spatial)
        stride = _each(self.stride, spatial, "stride") or size
        if any(far > own for far, own in zip(stride, size, strict=True)):
            raise UsageError(f"windows of {size} cells every {stride} leave cells out: a stride is at most the size")
        inside = [_windows(*axis, x.device) for axis in zip(spatial, size, stride, strict=True)]
        shape = [len(axis) for axis in inside]
        base, count, maps = baseline_of(x, self.baseline), prod(shape), []

        def keep(rows: slice) -> Tensor:
            number = torch.arange(rows.start, rows.stop, device=x.device)
            masks = torch.ones(len(number), *[1] * len(spatial), dtype=torch.bool, device=x.device)
            for axis, places in enumerate(torch.unravel_index(number, shape)):
                masks = masks & inside[axis][places].view(
                    -1, *[spatial[a] if a == axis else 1 for a in range(len(spatial))]
                )
            return ~masks

        with undisturbed(net):
            most = at_once(net, x)
            whole = scores(net, x, target, most)
            for i in range(len(x)):
                lost = whole[i] - masked_scores(net, x[i], base[i], count, keep, target[i], most)
                maps.append(_over_cells(lost.view(shape), inside))
        regions = None
        if stride == size:
            index = torch.zeros(spatial, dtype=torch.int64, device=x.device)
            for axis, own in enumerate(inside):
                index = index * len(own) + own.int().argmax(0).view(-1, *[1] * (len(spatial) - axis - 1))
            regions = index.expand(len(x), *spatial)
        return Map(values=torch.stack(maps).to(x.dtype), regions=regions, passes=len(x) * (count + 1))


def _each(given: int | tuple[int, ...] | None, spatial: tuple[int, ...], name: str) -> tuple[int, ...] | None:
    if given is None:
        return None
    each = (given,) * len(spatial) if isinstance(given, int) else tuple(given)
    if len(each) != len(spatial) or any(not 1 <= n <= most for n, most in zip(each, spatial, strict=False)):
        raise UsageError(f"occlusion's {name} is a number of cells, or one an axis of {spatial}, not {given}")
    return each


def _windows(cells: int, size: int, stride: int, device: torch.device) -> Tensor:
    """(windows, cells) bool: which cells of an axis lie in which window; the last may be cut by the end."""
    last = max(0, -(-(cells - size) // stride))
    start = torch.arange(last + 1, device=device)[:, None] * stride
    cell = torch.arange(cells, device=device)
    return (cell >= start) & (cell < start + size)


def _over_cells(lost: Tensor, inside: list[Tensor]) -> Tensor:
    """Losses of all windows (one axis an axis) over the cells, (*spatial)."""
    share, cover = lost, torch.ones_like(lost)
    for own in inside:
        matrix = own.to(lost.dtype)
        each = matrix / matrix.sum(1, keepdim=True)
        # the first axis is used up and its cells go to the end: after all of them the order is right again
        share, cover = torch.tensordot(share, each, ([0], [0])), torch.tensordot(cover, matrix, ([0], [0]))
    return share / cover
