"""Shapley's axioms as figures, for any method on a given network and item; 0 where an axiom holds.

- efficiency: |sum of the map - (f(x) - f(baseline))| over |f(x) - f(baseline)|; of a layer's map its own cells are
  added up, for those of the input are more of the same.
- dummy: the network g(x) = f(x with the region D at the baseline) does not look at D; what share of the evidence in g
  lies in D nevertheless?
- symmetry: what is in the region A is copied into B, and g(x) = f(x) + f(x with A and B exchanged) does not know them
  apart; the difference of their evidence in g, cell by cell, over its sum.

Regions are boxes of a quarter of every axis: D and A the one without which f(x) changes most, B the one without which
it changes least. Methods that judge regions are given such as respect these. Shapley values hold all three exactly;
that an axiom is broken makes a map no lie, but says what must not be read from it.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.attribution import Explainer, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import at_once, masked_scores, scores
from gridsight.attribution._regions import regions_of
from gridsight.core.errors import UsageError
from gridsight.nn.net import Net
from gridsight.nn.undisturbed import undisturbed

Box = tuple[Any, ...]
"""A slice an axis, behind "..." for what comes before the axes."""
QUARTERS = 4
OTHERS = 6
"""About how many regions there are beside A and B, or D; never above 8, so that 2^10 sets are all there are."""


@dataclass(frozen=True)
class Axioms:
    """How far a method is from each axiom; None where it cannot be asked, and `why`."""

    efficiency: float | None = None
    dummy: float | None = None
    symmetry: float | None = None
    why: str = ""


def axioms(
    net: nn.Module, x: Tensor, target: Tensor, explainer: Explainer, found: Map, baseline: str | Tensor = "zero"
) -> list[Axioms]:
    """The figures of each item of x (N, C, *spatial), whose map `found` the `explainer` made for `target` (N,)."""
    base = baseline_of(x, baseline)
    if isinstance(baseline, str) and hasattr(explainer, "baseline"):
        explainer = _with(explainer, baseline=baseline)
    if found.layer is not None and hasattr(explainer, "layer"):
        explainer = _with(explainer, layer=found.layer)
    whole = found.values if found.grid is None else found.grid
    with undisturbed(net):
        gap = scores(net, x, target) - scores(net, base, target)
    sums = whole.double().flatten(1).sum(1)
    rows = []
    for i in range(len(x)):
        efficiency = float((sums[i] - gap[i]).abs() / gap[i].abs().clamp(min=1e-12))
        one, at, own = x[i : i + 1], base[i : i + 1], target[i : i + 1]
        try:
            most, least = _boxes(net, one, at, own)
            dummy = _dummy(net, one, at, own, explainer, most)
            symmetry = _symmetry(net, one, own, explainer, most, least, layer=found.layer is not None)
            why = "" if dummy is not None and symmetry is not None else "its map is empty"
            rows.append(Axioms(efficiency, dummy, symmetry, why))
        except UsageError as error:
            rows.append(Axioms(efficiency, why=str(error)))
    return rows


def _dummy(net: nn.Module, x: Tensor, base: Tensor, target: Tensor, explainer: Explainer, box: Box) -> float | None:
    values = _aligned(explainer, x, box)(blind_to(net, base[0], box), x, target).values[0].double().abs()
    return float(values[box].sum() / values.sum()) if bool(values.any()) else None


def _symmetry(
    net: nn.Module, x: Tensor, target: Tensor, explainer: Explainer, a: Box, b: Box, *, layer: bool
) -> float | None:
    x = x.clone()
    x[b] = x[a]
    # a method that reads a layer would read it in both passes of g; here x and its exchange are equal, so are these
    twin = net if layer else Exchanged(net, a, b)
    values = _aligned(explainer, x, a, b)(twin, x, target).values[0].double()
    total = values[a].abs().sum() + values[b].abs().sum()
    if not bool(values.any()):
        return None
    return float((values[a] - values[b]).abs().sum() / total.clamp(min=1e-300))


class Exchanged(nn.Module):
    """f(x) + f(x with the boxes a and b exchanged)."""

    def __init__(self, net: nn.Module, a: Box, b: Box) -> None:
        super().__init__()
        self.net, self.a, self.b = net, a, b

    def forward(self, x: Tensor) -> Tensor:
        other = x.clone()
        other[self.a], other[self.b] = x[self.b], x[self.a]
        found: Tensor = self.net(x) + self.net(other)
        return found


def blind_to(net: nn.Module, base: Tensor, box: Box) -> nn.Module:
    """A copy of `net` that sees `base` (C, *spatial) in the box, whatever is there; its layers keep their names."""
    own: Any = type(net)

    def covered(self: Any, x: Tensor) -> Tensor:
        return x * self.shown + self.base_of_hidden

    def forward_stages(self: Any, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        yield from own.forward_stages(self, covered(self, x), mask)

    def forward(self: Any, x: Tensor) -> Any:
        return own.forward(self, covered(self, x))

    twin = copy.deepcopy(net)
    shown = torch.ones_like(base)
    shown[box] = 0
    twin.register_buffer("shown", shown)
    twin.register_buffer("base_of_hidden", base * (1 - shown))
    # a class of its own and not a wrapper, so that layers, stages and the last linear layer are found as in `net`
    methods = {"forward_stages": forward_stages} if isinstance(net, Net) else {"forward": forward}
    twin.__class__ = type(own.__name__, (own,), methods)
    return twin


def _boxes(net: nn.Module, x: Tensor, base: Tensor, target: Tensor) -> tuple[Box, Box]:
    """The boxes without which the answer changes most and least."""
    spatial = tuple(x.shape[2:])
    cut = [min(QUARTERS, n) for n in spatial]
    if prod(cut) < 2:
        raise UsageError("an item of one cell has no two regions")
    side = [n // parts for n, parts in zip(spatial, cut, strict=True)]
    places = torch.cartesian_prod(*[torch.arange(parts) for parts in cut]).view(-1, len(cut)).tolist()
    boxes = [(..., *(slice(p * s, (p + 1) * s) for p, s in zip(place, side, strict=True))) for place in places]

    def keep(rows: slice) -> Tensor:
        masks = torch.ones(len(boxes), *spatial, device=x.device)
        for mask, box in zip(masks, boxes, strict=True):
            mask[box] = 0
        return masks[rows]

    with undisturbed(net):
        most = at_once(net, x)
        said = masked_scores(net, x[0], base[0], len(boxes), keep, target[0], most)
        change = (scores(net, x, target, most) - said).abs()
    first = int(change.argmax())
    change[first] = torch.inf
    return boxes[first], boxes[int(change.argmin())]


def _aligned(explainer: Explainer, x: Tensor, *boxes: Box) -> Explainer:
    """The method with regions, or windows, that respect the boxes, where it has such a setting."""
    if hasattr(explainer, "regions"):
        regions = regions_of(x, "grid", min(OTHERS, x[0, 0].numel()))[0].clone()
        for number, box in enumerate(boxes):
            regions[box] = x[0, 0].numel() + number
        return _with(explainer, regions=regions)
    if hasattr(explainer, "size") and hasattr(explainer, "stride"):
        side = tuple(part.stop - part.start for part in boxes[0][1:])
        return _with(explainer, size=side, stride=side)
    return explainer


def _with(explainer: Any, **settings: Any) -> Any:
    return replace(explainer, **settings) if is_dataclass(explainer) else explainer  # type: ignore[type-var]
