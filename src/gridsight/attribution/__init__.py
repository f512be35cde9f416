"""Attribution: how much each cell of an input, or each region, moved a network's answer; one method a file.

A method is a frozen dataclass of its settings; called with `(net, x, target)` it returns a `Map`. `net` is any module
from x (N, C, *spatial), float and as the network sees it, to outputs (N, K); `target` (N,) int64 says which output of
each item is explained, before any softmax. Items of a batch are explained each by itself. Evidence is signed: above 0
speaks for the target. Registered tags: `needs` ("gradient", "layer" or "passes": what it asks of the network);
`complete`: true when the parts add up to `gap`; `linear`, what it must say of a linear network w x + b: "weights" (w),
"terms" (w (x - baseline)), "regions" (their sums over regions), or "" with `nonlinear`, the reason; `sound`, false
where it is known to mislead, with `unsound`, the reason; `source`, the paper; `ndims`. For the contract test: `network`
(name, arguments) of a model that it explains, where gridnet is none, and `contract`, settings that are cheap enough.

Every method runs within `nn.undisturbed`, cuts its passes so that they fit into memory, and draws random numbers by
`core.seed` alone: the same settings, the same map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gridsight.core.errors import UsageError
from gridsight.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

EXPLAINERS = Registry("explainer", "gridsight.attribution")


@dataclass(frozen=True, kw_only=True, eq=False)
class Map:
    """The answer of a method about a batch: `values` (N, *spatial) float32, the evidence of every cell for the target.

    - `channels` (N, C, *spatial): the same before channels were added up, where the method tells them apart.
    - `grid` (N, *cells): what a layer's own cells say, before it was placed on the input; `layer` is its name.
    - `regions` (N, *spatial) int64, from 0 on: where the method judges regions; `values` then are equal within each.
    - `parts` (N, P) float64: the numbers that add up to `gap` (N,) float64, f(x) - f(baseline) or what the method
      claims, where it claims it: cells, regions, or a layer's cells and the bias.
    - `error` (N, P) float64: half a 95 % interval of each part, of methods that estimate.
    - `passes`: items that went through the network, forward; `backward` of them also backward.
    - `notes`: what a reader must know of how it was made, in sentences.
    """

    values: Tensor
    channels: Tensor | None = None
    grid: Tensor | None = None
    layer: str | None = None
    regions: Tensor | None = None
    parts: Tensor | None = None
    gap: Tensor | None = None
    error: Tensor | None = None
    passes: int = 0
    backward: int = 0
    notes: tuple[str, ...] = ()

    @property
    def residual(self) -> Tensor | None:
        """|sum of the parts - gap| over |gap|, (N,) float64; None of a method that claims no sum."""
        if self.parts is None or self.gap is None:
            return None
        return (self.parts.sum(1) - self.gap).abs() / self.gap.abs().clamp(min=1e-12)


class Explainer(Protocol):
    """A method with its settings."""

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map: ...


def attribute(net: nn.Module, x: Tensor, method: str, target: Any = None, **settings: Any) -> Map:
    """The `Map` of one method for x (N, C, *spatial); `target` an output's number, one an item, or None: the largest.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2))
    >>> attribute(net, torch.ones(1, 1, 6), "gradient", 0).values.shape
    torch.Size([1, 6])
    """
    import torch

    from gridsight.attribution._passes import chosen

    EXPLAINERS.require(method)
    x = checked(x, method)
    with torch.inference_mode(False):
        x = x.clone() if x.is_inference() else x  # which have no gradients
        return EXPLAINERS.create(method, **settings)(net, x, chosen(net, x, target))


def checked(x: Tensor, method: str) -> Tensor:
    """x itself; a `UsageError` where the method does not take it."""
    import torch

    ndims = EXPLAINERS.get(method).tags["ndims"]
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise UsageError("x is a tensor of floating-point numbers (N, C, *spatial), as the network sees it")
    if x.dim() - 2 not in ndims:
        axes = ", ".join(map(str, ndims))
        raise UsageError(f"{method} explains inputs (N, C, *spatial) of {axes} axes, not {tuple(x.shape)}")
    if not len(x):
        raise UsageError("x holds no item")
    if not bool(x.isfinite().all()):
        raise UsageError("x is not finite (NaN or infinite)")
    return x
