"""What every look inside shares: the user's data batch by batch, several layers read in one pass, a layer changed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from gridsight.core.errors import UsageError, nearest
from gridsight.measure.layers import STAGE, as_grid, find_module
from gridsight.measure.passes import at_once, outputs_of
from gridsight.nn.net import Net
from gridsight.nn.undisturbed import undisturbed

Data = Tensor | Iterable[Any]
"""Items (N, C, *spatial), or batches of them: tensors, or tuples (a loader's, with answers) that start with one."""


def batches(net: nn.Module, data: Data) -> Iterator[Tensor]:
    """Batches (n, C, *spatial) of one item shape, as `net` takes them; no item at all is a `UsageError`."""
    shape, axes = None, _axes(net)
    parts: Iterable[Any] = data
    if isinstance(data, Tensor):
        with undisturbed(net):
            parts = data.split(at_once(net, _checked(data, axes))) if len(data) else []
    for given in parts:
        x = _checked(given[0] if isinstance(given, tuple | list) and len(given) else given, axes)
        if shape is not None and tuple(x.shape[1:]) != shape:
            raise UsageError(f"items of one shape: the first batch has {shape}, another {tuple(x.shape[1:])}")
        if len(x):
            shape = tuple(x.shape[1:])
            yield x
    if shape is None:
        raise UsageError("there is no data: give at least one item")


def _checked(x: Any, axes: int | None) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 3:
        said = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise UsageError(f"a batch is a tensor of floating-point numbers (N, C, *spatial), not {said}")
    if axes is not None and x.dim() - 2 != axes:
        raise UsageError(f"a batch (N, {_shape(axes)}), not {tuple(x.shape)}")
    return x


def one_item(net: nn.Module, item: Tensor) -> Tensor:
    """An item (C, *spatial) as a batch of one, with as many axes as the convolutions of `net` have."""
    if not isinstance(item, Tensor) or not item.is_floating_point() or not 2 <= item.dim() <= 4:
        said = tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__
        raise UsageError(f"an item is a tensor of floating-point numbers (C, *spatial), not {said}")
    axes = _axes(net)
    if axes is not None and item.dim() - 1 != axes:
        raise UsageError(f"one item ({_shape(axes)}), without an axis of items, not {tuple(item.shape)}")
    return item[None]


def _axes(net: nn.Module) -> int | None:
    """How many axes the convolutions of a network have; None where they do not agree, or there are none."""
    found = {len(module.kernel_size) for module in net.modules() if isinstance(module, _ConvNd)}
    return found.pop() if len(found) == 1 else None


def _shape(axes: int) -> str:
    return "C, length" if axes == 1 else "C, " + ", ".join(("depth", "height", "width")[-axes:])


def known_unit(unit: int, count: int, where: str) -> int:
    """`unit` itself; beyond the `count` units of `where` a `UsageError`."""
    if not 0 <= unit < count:
        raise UsageError(f"unit {unit}: {where} has units 0 to {count - 1}")
    return unit


def read(net: nn.Module, x: Tensor, names: Sequence[str]) -> tuple[Any, dict[str, Tensor]]:
    """(outputs, what each layer wrote, as a grid where it is one), of one pass; within `undisturbed`."""
    stages = {name for name in names if isinstance(net, Net) and name.startswith(STAGE)}
    written: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def keep(module: nn.Module, given: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                raise UsageError(f"layer {name!r} gives {type(output).__name__}, not a tensor: take one inside it")
            written[name] = output
            return output.clone()  # what comes next may write over it

        return keep

    with ExitStack() as stack:
        for name in names:
            if name not in stages:
                hook = find_module(net, name).register_forward_hook(keeper(name))
                stack.callback(hook.remove)
        if stages and isinstance(net, Net):
            last = x
            for number, last in enumerate(net.forward_stages(x), 1):
                if f"{STAGE}{number}" in stages:
                    written[f"{STAGE}{number}"] = last.clone()
            outputs: Any = net.forward_head(last)
        else:
            outputs = net(x.clone())
    for name in names:
        if name not in written:
            known = [each for each, _ in net.named_modules() if each] if name not in stages else sorted(written)
            raise UsageError(f"layer {name!r} does not run; {nearest(name, known, otherwise='take another')}")
    return outputs, {name: as_grid(net, written[name], name) for name in names}


@torch.no_grad()
def answer(net: nn.Module, x: Tensor, name: str, shift: Callable[[Tensor], Tensor]) -> Tensor:
    """The outputs (N, K) of x when `shift(grid)`, of its shape, is added to what a layer wrote; in `undisturbed`."""
    if isinstance(net, Net) and name.startswith(STAGE):
        last = x
        for number, last in enumerate(net.forward_stages(x.clone()), 1):
            if number == int(name.removeprefix(STAGE)):
                last.copy_(_shifted(net, last, name, shift))  # the network goes on with this very tensor
        return net.forward_head(last)
    module, runs, run = find_module(net, name), 0, 0

    def count(*given: Any) -> None:
        nonlocal runs
        runs += 1

    def change(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        nonlocal run
        run += 1
        return _shifted(net, output, name, shift) if run == runs else output

    hook = module.register_forward_hook(count)
    try:
        net(x[:1].clone())
    finally:
        hook.remove()
    hook = module.register_forward_hook(change)
    try:
        return outputs_of(net, x)
    finally:
        hook.remove()


def _shifted(net: nn.Module, written: Tensor, name: str, shift: Callable[[Tensor], Tensor]) -> Tensor:
    """Where a layer writes tokens, the gradient of the turn into a grid takes each cell back to its token."""
    with torch.enable_grad():
        own = written.detach().clone().requires_grad_()
        grid = as_grid(net, own, name)
        (moved,) = torch.autograd.grad(grid, own, shift(grid.detach()).to(grid))
    return written + moved
