"""Faithfulness: does the answer go when what a map calls evidence goes, and come when it comes?

Insertion shows the cells of an item on its baseline from the map's highest down, deletion takes them away in the same
order (Petsiuk, Das and Saenko, arXiv:1806.07421, section 3.3). Here both are one number: the mean, over the shares of
cells that are shown, of the answer with the highest cells minus the answer with the lowest, in units of
|f(x) - f(baseline)|. A map that says nothing scores 0 on average.

What a map of this texture scores by luck is measured, not assumed: the same map moved around the item (its edges
joined) by at least a quarter of an axis keeps its texture and loses its place.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gridsight.attribution._passes import masked_scores
from gridsight.core import seed as hashing

STEPS = 8
"""Shares of the cells that are shown, evenly between none and all."""


BLUR = 1 / 32
"""Of each axis, and at least three cells: what maps are blurred by before their cells are ranked, for every other cell
of a surface makes a pattern that no item has."""


def faithfulness(
    net: nn.Module, item: Tensor, base: Tensor, target: Tensor, maps: Tensor, most: int, steps: int = STEPS
) -> Tensor:
    """The score of each of `maps` (K, *spatial) for an item (C, *spatial) and its baseline, float64 (K,).

    Within `undisturbed`; K times 2 `steps` passes, `most` at a time. `target` is ().
    """
    ranks = _ranks(maps)
    shares = (torch.arange(steps, device=item.device) + 0.5) / steps

    def keep(rows: slice) -> Tensor:
        number = torch.arange(rows.start, rows.stop, device=item.device)
        share = shares[number // 2 % steps].view(-1, *[1] * (maps.dim() - 1))
        own = ranks[number // (2 * steps)]
        lowest = (number % 2 == 1).view(share.shape)
        return torch.where(lowest, own >= 1 - share, own < share)

    said = masked_scores(net, item, base, len(maps) * 2 * steps, keep, target, most).view(len(maps), steps, 2)
    ends = masked_scores(net, item, base, 2, lambda rows: _ends(item)[rows], target, most)
    gap = (ends[1] - ends[0]).abs().clamp(min=1e-12)  # an item that is its baseline scores 0, not NaN
    return (said[..., 0] - said[..., 1]).mean(1) / gap


def moved(values: Tensor, count: int, seed: int = 0) -> Tensor:
    """(count, *spatial): `values` (*spatial) moved at random, by at least a quarter of one axis."""
    spatial = values.shape
    draws = hashing.uniform(seed, 0, torch.arange(count), "moved", 2 * len(spatial)).numpy()
    found = []
    for row in draws:
        far = int(row[:-1].argmax()) % len(spatial)
        steps = [int(u * size) for u, size in zip(row[len(spatial) :], spatial, strict=True)]
        quarter = spatial[far] // 4
        steps[far] = quarter + int(row[len(spatial) + far] * (spatial[far] - 2 * quarter))
        found.append(values.roll(steps, tuple(range(len(spatial)))))
    return torch.stack(found)


def _ranks(maps: Tensor) -> Tensor:
    """Of each cell the share of cells with more evidence, in [0, 1); equal cells in the order in which they lie."""
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=maps.device).expand_as(order))
    return (rank.double() / flat.shape[1]).view(maps.shape)


def _ends(item: Tensor) -> Tensor:
    spatial: Sequence[int] = item.shape[1:]
    return torch.stack([torch.zeros(*spatial, device=item.device), torch.ones(*spatial, device=item.device)])
