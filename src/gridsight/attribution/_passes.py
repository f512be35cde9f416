"""Passes through a network: which output is explained, its value for many inputs, its gradient; in parts that fit."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.measure.passes import at_once as at_once
from gridsight.measure.passes import outputs_of as outputs_of
from gridsight.nn.memory import in_parts
from gridsight.nn.undisturbed import undisturbed


def chosen(net: nn.Module, x: Tensor, target: Any) -> Tensor:
    """`target` as (N,) int64 on the device of x: a number for all items, one an item, or None: each one's largest."""
    if target is None:
        with undisturbed(net), torch.no_grad():
            most = at_once(net, x) if len(x) > 1 else 1
            return torch.cat([outputs_of(net, part).argmax(1) for part in x.split(most)])
    given = torch.as_tensor(target, device=x.device)
    if given.dtype.is_floating_point or given.dtype == torch.bool or given.shape not in ((), (len(x),)):
        raise UsageError(f"a target is the number of an output, one for all {len(x)} items or one each, not {target!r}")
    return given.long().expand(len(x)).clone()


def picked(outputs: Tensor, target: Tensor) -> Tensor:
    """The target's output of each item: (N, K), (N,) -> (N,); a target that is no output is a `UsageError`."""
    low, high = target.aminmax()
    count = outputs.shape[1]
    if not 0 <= int(low) <= int(high) < count:
        raise UsageError(f"target {int(low if low < 0 else high)}: outputs are 0 to {count - 1}")
    return outputs.gather(1, target[:, None])[:, 0]


@torch.no_grad()
def scores(net: nn.Module, x: Tensor, target: Tensor, most: int | None = None) -> Tensor:
    """The target's output of each item of x, float64 (N,), some items at once; within `undisturbed`."""

    def ask(x: Tensor, target: Tensor) -> tuple[Tensor]:
        return (picked(outputs_of(net, x), target).double(),)

    return in_turn(ask, x, target, most or (at_once(net, x) if len(x) > 1 else 1))[0]


def refuse_unless_differentiable(net: nn.Module, value: Tensor) -> None:
    """A `UsageError` where outputs do not hang on the input by a gradient."""
    if not value.requires_grad:
        name = type(net).__name__
        raise UsageError(f"the outputs of {name} have no gradient in its input: take occlusion or shapley")


def gradient(net: nn.Module, x: Tensor, target: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """(outputs (N,) float64, their gradients in x (N, C, *spatial)), some items at once; within `undisturbed`."""

    def ask(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        asked = x.detach().clone().requires_grad_()
        value = picked(outputs_of(net, asked), target)
        refuse_unless_differentiable(net, value)
        (slope,) = torch.autograd.grad(value.sum(), asked)
        if not bool(value.isfinite().all() & slope.isfinite().all()):
            raise UsageError("the network's answer, or its gradient, is not finite (NaN or infinite) for this input")
        return value.detach().double(), slope

    values, slopes = in_turn(ask, x, target, most or (at_once(net, x) if len(x) > 1 else 1))
    return values, slopes


@torch.no_grad()
def masked_scores(
    net: nn.Module,
    item: Tensor,
    baseline: Tensor,
    count: int,
    keep: Callable[[slice], Tensor],
    target: Tensor,
    most: int,
) -> Tensor:
    """The target's output, float64 (count,), of an item (C, *spatial) that is partly replaced by `baseline` (same).

    `keep(rows)` gives some of the masks, (rows, *spatial) from 0 (baseline) to 1 (item); `target` is (). Only `most`
    inputs exist at a time, in memory that is used again and again: new memory would cost more than the masking itself.
    Within `undisturbed`.
    """
    shown = item.new_empty(min(most, count), *item.shape)

    def ask(rows: Any) -> Tensor:
        mask = keep(slice(rows[0], rows[-1] + 1))[:, None].to(item.dtype)
        x = torch.lerp(baseline, item, mask, out=shown[: len(rows)])
        return picked(outputs_of(net, x), target.expand(len(rows))).double()

    found = [in_parts(ask, range(i, min(i + most, count))) for i in range(0, count, most)]
    said = torch.cat([each for parts in found for each in parts])
    if not bool(said.isfinite().all()):
        raise UsageError("of an item partly replaced by its baseline the network says nothing finite (NaN or infinite)")
    return said


def set_scores(
    net: nn.Module, item: Tensor, baseline: Tensor, regions: Tensor, sets: Tensor, target: Tensor, most: int
) -> Tensor:
    """`masked_scores` of sets of regions that show the item, (M, P) bool; `regions` (*spatial) are their numbers."""
    flat = regions.flatten()
    masks = item.new_empty(min(most, len(sets)), len(flat))

    def keep(rows: slice) -> Tensor:
        some = sets[rows].to(item.dtype)
        return torch.index_select(some, 1, flat, out=masks[: len(some)]).view(-1, *regions.shape)

    return masked_scores(net, item, baseline, len(sets), keep, target, most)


def in_turn(
    ask: Callable[[Tensor, Tensor], tuple[Tensor, ...]], x: Tensor, target: Tensor, most: int
) -> tuple[Tensor, ...]:
    """What `ask` says of (x, target), `most` items at a time, fewer where memory runs out."""

    def run(rows: Any) -> tuple[Tensor, ...]:
        part = slice(rows[0], rows[-1] + 1)
        return ask(x[part], target[part])

    found = [in_parts(run, range(i, min(i + most, len(x)))) for i in range(0, len(x), most)]
    return tuple(torch.cat(each) for each in zip(*(part for parts in found for part in parts), strict=True))
