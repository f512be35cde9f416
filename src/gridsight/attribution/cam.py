"""Class activation mapping: where a network that ends in a global mean and one linear layer has its answer from.

Zhou et al., "Learning deep features for discriminative localization" (arXiv:1512.04150), section 2.

The answer is then a sum over the cells of the last grid, so that the map is exact: its cells and the bias add up to the
logit. Whether a network ends that way is measured on the input, not guessed from its layers. A network whose last grid
has a channel for each output, and their means as outputs, is one too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._passes import at_once, in_turn, outputs_of, picked
from gridsight.core.errors import UsageError
from gridsight.measure.layers import Layer, as_grid, layers, place, run_through
from gridsight.nn.undisturbed import undisturbed

SAME = 1e-4
"""Largest difference, of the largest value, that is put down to rounding."""


@EXPLAINERS.register(
    "cam",
    ndims=(1, 2, 3),
    needs="layer",
    complete=True,
    linear="",
    nonlinear="it reads a layer with a grid, and a linear network has none",
    sound=True,
    source="Zhou et al., arXiv:1512.04150",
)
@dataclass(frozen=True)
class CAM:
    """The exact share of every cell of the last grid in the logit. It has no settings."""

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        with undisturbed(net), torch.no_grad():
            layer, head = _end(net, x)

            def ask(part: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                outputs, written = run_through(net, part, layer.name)
                grid = as_grid(net, written)
                if head is None:
                    terms, bias = grid[torch.arange(len(part)), own], torch.zeros_like(picked(outputs, own))
                else:
                    terms = torch.einsum("nc,nc...->n...", head.weight[own], grid)
                    bias = torch.zeros_like(terms[:, 0].flatten(1)[:, 0]) if head.bias is None else head.bias[own]
                return terms / terms[0].numel(), bias, picked(outputs, own)

            grid, bias, logits = in_turn(ask, x, target, at_once(net, x))
        return Map(
            values=place(grid, layer.field, x.shape[2:]),
            grid=grid,
            layer=layer.name,
            parts=torch.cat([grid.double().flatten(1), bias.double()[:, None]], 1),
            gap=logits.double(),
            passes=2 * len(x),
        )


def _end(net: nn.Module, x: Tensor) -> tuple[Layer, nn.Linear | None]:
    """The last grid and the linear layer that reads its mean; None where the means are the outputs."""
    known, some = layers(net, tuple(x.shape[1:])), x[:2]
    with _given_to_linear(net) as given:
        outputs = outputs_of(net, some)
    for layer in reversed(known):
        mean = as_grid(net, run_through(net, some, layer.name)[1]).flatten(2).mean(2)
        if _same(mean, outputs):
            return layer, None
        for head, read, said in given:
            if _same(mean, read) and _same(said, outputs):
                return layer, head
    raise UsageError(
        f"CAM is for networks that end in a global mean and one linear layer, and {type(net).__name__} does not: take "
        "grad_cam"
    )


@contextmanager
def _given_to_linear(net: nn.Module) -> Iterator[list[tuple[nn.Linear, Tensor, Tensor]]]:
    """(layer, its input, its output) of every linear layer that runs within."""
    found: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def keep(module: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((module, given[0], output))

    hooks = [module.register_forward_hook(keep) for module in net.modules() if isinstance(module, nn.Linear)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= SAME * float(b.abs().max().clamp(min=1e-12))
