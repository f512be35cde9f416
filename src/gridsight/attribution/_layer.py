"""Methods that read a layer: its activations, their gradients, and which layer to read where none is named.

Which layer is best depends on the network and on the data, so it is measured: of each size of grid the last layer is
tried, and the one whose maps are most faithful (`_faithful`) is taken. Notes say which were tried and how they scored.
"""

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor, nn

from gridsight.attribution import Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._faithful import STEPS, faithfulness
from gridsight.attribution._passes import at_once, in_turn, outputs_of, picked
from gridsight.core.errors import UsageError
from gridsight.measure.layers import STAGE, Layer, as_grid, find_layer, layers, place, run_through
from gridsight.nn.undisturbed import undisturbed

TRIED = 4
"""Items of a batch on which layers are compared."""

Weigh = Callable[[Tensor, Tensor], Tensor]
"""(activations (N, C, *cells), their gradients) -> a map (N, *cells)."""


def layer_map(net: nn.Module, x: Tensor, target: Tensor, name: str | None, weigh: Weigh) -> Map:
    """The map of the layer `name`, or of the most faithful one, placed on the cells of x."""
    with undisturbed(net):
        most, notes, passes = at_once(net, x), tuple[str, ...](), 0
        if name is None:
            layer, scores, passes = most_faithful(net, x, target, weigh, most)
            notes = (_reason(layer, scores),)
        else:
            layer = find_layer(net, tuple(x.shape[1:]), name)
        grid = _grid(net, x, target, layer, weigh, most)
    return Map(
        values=place(grid, layer.field, x.shape[2:]),
        grid=grid,
        layer=layer.name,
        passes=len(x) + passes,
        backward=len(x),
        notes=notes,
    )


def most_faithful(
    net: nn.Module, x: Tensor, target: Tensor, weigh: Weigh, most: int
) -> tuple[Layer, dict[str, float], int]:
    """The layer whose maps of the first items of x are most faithful, the scores of all that were tried, and passes.

    Within `undisturbed`.
    """
    shape, some, own = tuple(x.shape[1:]), x[:TRIED], target[:TRIED]
    tried = candidates(net, shape)
    if len(tried) == 1:
        return tried[0], {}, 0
    maps = torch.stack([place(_grid(net, some, own, layer, weigh, most), layer.field, shape[1:]) for layer in tried], 1)
    base = baseline_of(some, "zero")
    each = [faithfulness(net, some[i], base[i], own[i], maps[i], most) for i in range(len(some))]
    # the median: of an item whose answer hardly differs from the baseline's the score is nearly a quotient by zero
    said = torch.stack(each).median(0).values
    scores = {layer.name: float(score) for layer, score in zip(tried, said, strict=True)}
    best = max(tried, key=lambda layer: scores[layer.name])
    return best, scores, len(some) * len(tried) * (1 + 2 * STEPS)


def candidates(net: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """Of each size of grid, of more than one cell, the last layer; the stages alone where a network has them."""
    known = [layer for layer in layers(net, shape) if prod(layer.shape[1:]) > 1]
    stages = [layer for layer in known if layer.name.startswith(STAGE)]
    last: dict[tuple[int, ...], Layer] = {layer.shape[1:]: layer for layer in stages or known}
    if not last:
        raise UsageError(
            f"{type(net).__name__} has no layer of more than one cell: take integrated_gradients or shapley"
        )
    return list(last.values())


def _grid(net: nn.Module, x: Tensor, target: Tensor, layer: Layer, weigh: Weigh, most: int) -> Tensor:
    def ask(part: Tensor, own: Tensor) -> tuple[Tensor]:
        given = part.detach().clone().requires_grad_()
        outputs, written = run_through(net, given, layer.name)
        if outputs.dim() != 2:
            outputs_of(net, part)  # says what is wrong
        (slope,) = torch.autograd.grad(picked(outputs, own).sum(), written, allow_unused=True)
        slope = torch.zeros_like(written) if slope is None else slope
        return (weigh(as_grid(net, written.detach()), as_grid(net, slope)),)

    return in_turn(ask, x, target, most)[0]


def _reason(layer: Layer, scores: Mapping[str, float]) -> str:
    if not scores:
        return f"{layer.name} is the only layer with a grid of more than one cell"
    others = ", ".join(f"{name} {score:.2f}" for name, score in scores.items() if name != layer.name)
    return f"{layer.name} was the most faithful layer: {scores[layer.name]:.2f} (others: {others})"
