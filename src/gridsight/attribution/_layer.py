"""Methods that read a layer: its activations, their gradients, and which layer to read where none is named.

Which layer is best depends on the network, the data and the item, so it is measured: every stage is tried, of networks
without stages the last layer of each size of grid, and the one whose maps are most faithful (`_faithful`, as in the
verdict) is taken. Notes say which were tried and how they
scored; the best of several is a little better than it is. A batch has one layer, which is compared on its first items:
items that are asked about one by one get one each. Whoever knows the layer names it, and pays for one pass.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from math import prod

import torch
from torch import Tensor, nn

from gridsight.attribution import Map
from gridsight.attribution._baseline import baseline_of, blurred
from gridsight.attribution._faithful import BLUR, STEPS, faithfulness
from gridsight.attribution._passes import at_once, in_turn, outputs_of, picked
from gridsight.core.errors import UsageError
from gridsight.measure.layers import STAGE, Layer, as_grid, find_layer, layers, place, reads_grid, run_through_all
from gridsight.nn.geometry import Field, Tracer
from gridsight.nn.undisturbed import undisturbed

TRIED = 4
"""Items of a batch on which layers are compared."""
LOOKS = 2
"""Items that go through the network to find its layers."""

Weigh = Callable[[Tensor, Tensor], Tensor]
"""(activations (N, C, *cells), their gradients) -> a map (N, *cells)."""


def layer_map(net: nn.Module, x: Tensor, target: Tensor, name: str | None, weigh: Weigh) -> Map:
    """The map of the layer `name`, or of the most faithful one, placed on the cells of x."""
    with undisturbed(net):
        most, notes, passes = at_once(net, x) if name is None or len(x) > 1 else 1, tuple[str, ...](), 0
        if name is None:
            outputs_of(net, x[:1])  # says what is wrong
            name, scores, passes = most_faithful(net, x, target, weigh, most)
            notes = (_reason(name, scores),)
        ((grid, field),) = _read(net, x, target, [name], weigh, most)
        if grid is None:
            raise UsageError(f"layer {name!r} has no part in the answer of {type(net).__name__}: take another")
    return Map(
        values=place(grid, field, x.shape[2:]),
        grid=grid,
        layer=name,
        passes=len(x) + passes,
        backward=len(x),
        notes=notes,
    )


def most_faithful(
    net: nn.Module, x: Tensor, target: Tensor, weigh: Weigh, most: int
) -> tuple[str, dict[str, float], int]:
    """The layer whose maps of the first items of x are most faithful, the scores of all that were tried, and passes.

    Within `undisturbed`.
    """
    shape, some, own = tuple(x.shape[1:]), x[:TRIED], target[:TRIED]
    tried = candidates(net, shape)
    read = _read(net, some, own, [layer.name for layer in tried], weigh, most)
    found = [(layer, grid) for layer, (grid, _) in zip(tried, read, strict=True) if grid is not None]
    if not found:
        raise UsageError(f"{type(net).__name__} has no layer of more than one cell with a part in the answer")
    if len(found) == 1:
        return found[0][0].name, {}, LOOKS + len(some)
    placed = [place(grid, layer.field, shape[1:]) for layer, grid in found]
    maps = torch.stack([blurred(each[:, None], 1, BLUR)[:, 0] for each in placed], 1)
    base = baseline_of(some, "zero")
    each = [faithfulness(net, some[i], base[i], own[i], maps[i], most) for i in range(len(some))]
    # the median: of an item whose answer hardly differs from the baseline's the score is nearly a quotient by zero
    said = torch.stack(each).median(0).values
    scores = {layer.name: float(score) for (layer, _), score in zip(found, said, strict=True)}
    # of equals the last, which the sources take
    return max(reversed(scores), key=scores.__getitem__), scores, LOOKS + len(some) * (3 + 2 * STEPS * len(found))


def candidates(net: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """The stages whose grids have more than one cell; of other networks the last layer of each size of grid."""
    known = [layer for layer in layers(net, shape) if prod(layer.shape[1:]) > 1]
    stages = [layer for layer in known if layer.name.startswith(STAGE)]
    last: dict[tuple[int, ...], Layer] = {layer.shape[1:]: layer for layer in known}
    if not last:
        raise UsageError(
            f"{type(net).__name__} has no layer of more than one cell: take integrated_gradients or shapley"
        )
    return stages or list(last.values())


def _read(
    net: nn.Module, x: Tensor, target: Tensor, names: Sequence[str], weigh: Weigh, most: int
) -> list[tuple[Tensor | None, Field]]:
    """Of each layer its map (N, *cells), None where it has no part in the answer, and what its cells see."""
    fields: dict[str, Field] = {}
    unused: set[int] = set()

    def ask(part: Tensor, own: Tensor) -> tuple[Tensor, ...]:
        given = part.detach().clone()
        if fields:
            outputs, written = run_through_all(net, given, names)
        else:
            outputs, written = _run_and_trace(net, given, names, fields)
        if outputs.dim() != 2:
            outputs_of(net, part)  # says what is wrong
        value = picked(outputs, own).sum()
        wrote = [written[name] for name in names]
        slopes = torch.autograd.grad(value, wrote, allow_unused=True) if value.requires_grad else [None] * len(names)
        unused.update(i for i, slope in enumerate(slopes) if slope is None)
        return tuple(
            weigh(as_grid(net, a.detach(), name), as_grid(net, torch.zeros_like(a) if slope is None else slope, name))
            for name, a, slope in zip(names, wrote, slopes, strict=True)
        )

    maps = in_turn(ask, x, target, most)
    return [
        (None if i in unused else grid, fields[name]) for i, (grid, name) in enumerate(zip(maps, names, strict=True))
    ]


def _run_and_trace(
    net: nn.Module, x: Tensor, names: Sequence[str], fields: dict[str, Field]
) -> tuple[Tensor, dict[str, Tensor]]:
    """`run_through_all`, which also fills in what the cells of the layers see; it is not followed beyond the last."""
    tracing, runs = ExitStack(), 0
    tracer = tracing.enter_context(Tracer())

    def seen(name: str, written: Tensor) -> None:
        nonlocal runs
        runs += 1
        if reads_grid(net, written, name, x.dim(), tracer):
            fields[name] = tracer.field(as_grid(net, written, name))
        if runs == len(names):
            tracing.close()

    with tracing:
        found = run_through_all(net, tracer.watch(x), names, seen)
    for name in names:
        if name not in fields or runs > len(names):  # no grid, which this says, or a module that runs several times
            fields[name] = find_layer(net, tuple(x.shape[1:]), name).field
    return found


def _reason(best: str, scores: Mapping[str, float]) -> str:
    if not scores:
        return f"{best} is the only layer with a grid of more than one cell"
    others = ", ".join(f"{name} {score:.2f}" for name, score in scores.items() if name != best)
    return f"{best} was the most faithful layer: {scores[best]:.2f} (others: {others})"
