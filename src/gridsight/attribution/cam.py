"""Class activation mapping: where a network that ends in a global mean and one linear layer has its answer from.

Zhou et al., "Learning deep features for discriminative localization" (arXiv:1512.04150), section 2.

The answer is then a sum over the cells of the last grid, so that the map is exact: its cells and the bias add up to the
logit. Whether a network ends that way is measured on the input, not guessed from its layers: of all grids that any
operation of a pass writes, the last is taken whose mean over cells is what the last linear layer reads, so that a mean
after a functional activation is known as well. A network whose last grid has a channel for each output, and their means
as outputs, is one too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._passes import at_once, in_turn, outputs_of, picked
from gridsight.core.errors import UsageError
from gridsight.measure.layers import place
from gridsight.nn.geometry import Field, Tracer
from gridsight.nn.undisturbed import undisturbed

BEFORE = "the grid before the mean"
"""What is said for the name of a layer where a functional call writes the last grid."""
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
            end = _end(net, x[:2].clone())

            def ask(part: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                with _Grids(x.dim(), lambda number, grid: grid.clone() if number == end.number else None) as grids:
                    outputs = outputs_of(net, part)
                logits, grid = picked(outputs, own), grids.kept[end.number]
                if end.head is None:
                    terms, bias = grid[torch.arange(len(part)), own], torch.zeros_like(logits)
                else:
                    terms = torch.einsum("nc,nc...->n...", end.head.weight[own], grid)
                    bias = torch.zeros_like(logits) if end.head.bias is None else end.head.bias[own]
                return terms / terms[0].numel(), bias, logits

            grid, bias, logits = in_turn(ask, x, target, at_once(net, x) if len(x) > 1 else 1)
        return Map(
            values=place(grid, end.field, x.shape[2:]),
            grid=grid,
            layer=end.name,
            parts=torch.cat([grid.double().flatten(1), bias.double()[:, None]], 1),
            gap=logits.double(),
            passes=len(x) + min(2, len(x)),
        )


@dataclass(frozen=True)
class _End:
    """The last grid: the `number` of the operation that writes it, its name, what its cells see, and the linear layer
    that reads its mean; None where the means are the outputs.
    """

    number: int
    name: str
    field: Field
    head: nn.Linear | None


class _Grids(TorchDispatchMode):
    """Within it, `keep` is asked about each tensor of `rank` axes that an operation writes, by its number; `kept`."""

    def __init__(self, rank: int, keep: Callable[[int, Tensor], Any]) -> None:
        super().__init__()
        self.rank, self.keep = rank, keep
        self.count, self.kept = 0, dict[int, Any]()
        self.last: Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for out in result if isinstance(result, list | tuple) else [result]:
            if isinstance(out, Tensor) and out.dim() == self.rank and out.is_floating_point():
                self.count, self.last = self.count + 1, out
                kept = self.keep(self.count, out)
                if kept is not None:
                    self.kept[self.count] = kept
        return result


def _end(net: nn.Module, x: Tensor) -> _End:
    """Where the answer is a linear layer of a grid's mean; a network that ends otherwise is a `UsageError`."""
    names: dict[int, str] = {}
    tracer = Tracer()

    def keep(number: int, grid: Tensor) -> tuple[Tensor, Field, int] | None:
        if len(grid) != len(x):
            return None
        return grid.flatten(2).mean(2), tracer.field(grid), grid[0, 0].numel()

    grids = _Grids(x.dim(), keep)

    def note(name: str) -> Any:
        def called(module: nn.Module, given: Any, output: Any) -> None:
            if output is grids.last:
                names[grids.count] = name

        return called

    with _given_to_linear(net) as given, tracer, grids:
        for name, module in net.named_modules():
            if name:
                module.register_forward_hook(note(name))  # `undisturbed` takes it away
        outputs = outputs_of(net, tracer.watch(x))
    flat = False
    for number, (mean, field, cells) in reversed(grids.kept.items()):
        heads: list[nn.Linear | None] = [None] if _same(mean, outputs) else []
        heads += [head for head, read, said in given if _same(mean, read) and _same(said, outputs)]
        if heads and cells > 1:
            return _End(number, names.get(number, BEFORE), field, heads[0])
        flat |= bool(heads)
    if flat:
        raise UsageError(f"the last grid of {type(net).__name__} has one cell for {tuple(x.shape[2:])}: take grad_cam")
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
