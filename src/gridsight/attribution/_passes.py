"""Passes through a network: which output is explained, its value for many inputs, its gradient; in parts that fit."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.measure.cost import cost
from gridsight.nn.memory import free_memory, in_parts, parts_that_fit
from gridsight.nn.undisturbed import undisturbed

MOST = 64
"""Items in one pass: larger batches are no faster on a CPU."""


def outputs_of(net: nn.Module, x: Tensor) -> Tensor:
    """The network's outputs (N, K); other shapes are a `UsageError`."""
    outputs = net(x)
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != len(x):
        said = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UsageError(f"a network that is explained gives outputs (N, K), not {said}: wrap it in one that does")
    return outputs


def chosen(net: nn.Module, x: Tensor, target: Any) -> Tensor:
    """`target` as (N,) int64 on the device of x: a number for all items, one an item, or None: each one's largest."""
    with undisturbed(net), torch.no_grad():
        outputs = torch.cat([outputs_of(net, part) for part in x.split(at_once(net, x))])
    if target is None:
        return outputs.argmax(1)
    given = torch.as_tensor(target, device=x.device)
    if given.dtype.is_floating_point or given.dtype == torch.bool or given.shape not in ((), (len(x),)):
        raise UsageError(f"a target is the number of an output, one for all {len(x)} items or one each, not {target!r}")
    given = given.long().expand(len(x))
    count = outputs.shape[1]
    if bool(((given < 0) | (given >= count)).any()):
        raise UsageError(f"target {int(given[(given < 0) | (given >= count)][0])}: outputs are 0 to {count - 1}")
    return given.clone()


def at_once(net: nn.Module, x: Tensor) -> int:
    """Items like those of x that may go through the network together, at least 1, at most `MOST`."""
    bytes_an_item = cost(net, tuple(x.shape[1:])).activation_bytes
    return max(1, MOST // parts_that_fit(2 * bytes_an_item, MOST, free_memory(x.device)))


def picked(outputs: Tensor, target: Tensor) -> Tensor:
    """The target's output of each item: (N, K), (N,) -> (N,)."""
    return outputs.gather(1, target[:, None])[:, 0]


@torch.no_grad()
def scores(net: nn.Module, x: Tensor, target: Tensor, most: int | None = None) -> Tensor:
    """The target's output of each item of x, float64 (N,), some items at once; within `undisturbed`."""

    def ask(x: Tensor, target: Tensor) -> tuple[Tensor]:
        return (picked(outputs_of(net, x), target).double(),)

    return in_turn(ask, x, target, most or at_once(net, x))[0]


def gradient(net: nn.Module, x: Tensor, target: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """(outputs (N,) float64, their gradients in x (N, C, *spatial)), some items at once; within `undisturbed`."""

    def ask(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        asked = x.detach().clone().requires_grad_()
        value = picked(outputs_of(net, asked), target)
        if not value.requires_grad:
            name = type(net).__name__
            raise UsageError(f"the outputs of {name} have no gradient in its input: take occlusion or shapley")
        (slope,) = torch.autograd.grad(value.sum(), asked)
        return value.detach().double(), slope

    values, slopes = in_turn(ask, x, target, most or at_once(net, x))
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
    inputs exist at a time; within `undisturbed`.
    """

    def ask(rows: Any) -> Tensor:
        mask = keep(slice(rows[0], rows[-1] + 1))[:, None].to(item.dtype)
        return picked(outputs_of(net, torch.lerp(baseline, item, mask)), target.expand(len(rows))).double()

    found = [in_parts(ask, range(i, min(i + most, count))) for i in range(0, count, most)]
    return torch.cat([each for parts in found for each in parts])


def in_turn(
    ask: Callable[[Tensor, Tensor], tuple[Tensor, ...]], x: Tensor, target: Tensor, most: int
) -> tuple[Tensor, ...]:
    """What `ask` says of (x, target), `most` items at a time, fewer where memory runs out."""

    def run(rows: Any) -> tuple[Tensor, ...]:
        part = slice(rows[0], rows[-1] + 1)
        return ask(x[part], target[part])

    found = [in_parts(run, range(i, min(i + most, len(x)))) for i in range(0, len(x), most)]
    return tuple(torch.cat(each) for each in zip(*(part for parts in found for part in parts), strict=True))
