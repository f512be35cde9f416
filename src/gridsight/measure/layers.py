"""The layers of any network whose outputs are grids (N, C, *cells): their names, what their cells see, their tensors.

A layer is called as in `net.named_modules()`; the stages of a `Net` are also called "stage 1", "stage 2", ... and those
that keep tokens are turned into grids. A module that runs several times in a pass is its last run.

Shapes and fields come from one real pass of one item, so that networks which make tensors of their own, or read values,
are known as well; where a tensor was not computed from the input by PyTorch, its field is not known.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.conv import _ConvNd

from gridsight.core.errors import UsageError, nearest
from gridsight.nn.geometry import Field, Tracer, centres
from gridsight.nn.net import Net
from gridsight.nn.undisturbed import undisturbed

STAGE = "stage "


@dataclass(frozen=True)
class Layer:
    """`shape` (C, *cells) of its output for one item, and what its cells see of the input."""

    name: str
    kind: str
    shape: tuple[int, ...]
    field: Field


def layers(net: nn.Module, shape: Sequence[int]) -> list[Layer]:
    """Every layer of `net` whose output is a grid of the input's axes, for one item (C, *spatial), in running order.

    Modules that hold others end after these. Stages of a `Net` come last. A network of none is a `UsageError`.
    """
    found: dict[str, Layer] = {}
    rank = len(shape) + 1
    with undisturbed(net), Tracer() as tracer, ExitStack() as stack:

        def note(name: str, kind: str) -> Callable[[nn.Module, Any, Any], None]:
            def keep(module: nn.Module, given: Any, output: Any) -> None:
                if is_grid(module, output, rank, tracer):
                    found.pop(name, None)  # the last run counts
                    found[name] = Layer(name, kind, tuple(output.shape[1:]), tracer.field(output))

            return keep

        for name, module in net.named_modules():
            if name:
                stack.callback(module.register_forward_hook(note(name, type(module).__name__)).remove)
        x = tracer.watch(_nothing(net, shape).requires_grad_())
        stages: dict[str, Layer] = {}
        if isinstance(net, Net):

            def note_stage(name: str, stage: Tensor) -> None:
                grid = as_grid(net, stage, name)
                stages[name] = Layer(name, "stage", tuple(grid.shape[1:]), tracer.field(grid))

            stack.enter_context(_each_stage(net, note_stage))
        net(x.clone())
    found |= stages
    if not found:
        axes = "axis" if rank == 3 else "axes"
        raise UsageError(f"{type(net).__name__} has no layer whose output keeps the {rank - 2} {axes} of its input")
    return list(found.values())


def find_layer(net: nn.Module, shape: Sequence[int], name: str) -> Layer:
    """The layer called `name`; another name is a `UsageError` with the nearest ones."""
    known = {layer.name: layer for layer in layers(net, shape)}
    if name in known:
        return known[name]
    modules = dict(net.named_modules(remove_duplicate=False))
    other = next((each for each, module in net.named_modules() if module is modules.get(name)), "")
    if other in known:
        return replace(known[other], name=name)  # a module that two names share
    wrong = f"layer {name!r} has no grid as its output" if modules.get(name) else f"there is no layer {name!r}"
    raise UsageError(f"{wrong}; {nearest(name, known)}")


def is_grid(module: nn.Module, output: Any, rank: int, tracer: Tracer) -> bool:
    """Whether what a module wrote is (N, C, *cells), and not tokens or a grid with its channels last."""
    if not isinstance(output, Tensor) or output.dim() != rank or isinstance(module, nn.Linear | nn.LayerNorm):
        return False
    spans = tracer.spans.get(output)
    if isinstance(module, _ConvNd) or spans is None or spans[1] is None:
        return True
    # where each axis sees everything, as after attention, nothing says which one is that of the channels
    return not spans[1].jump and any(span is not None and span.jump for span in spans[2:])


def reads_grid(net: nn.Module, written: Any, name: str, rank: int, tracer: Tracer) -> bool:
    """`is_grid` of what the layer `name` wrote; a stage is one by its contract."""
    return _is_stage(net, name) or is_grid(net.get_submodule(name), written, rank, tracer)


def run_through(net: nn.Module, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """(outputs, what the layer `name` wrote) of x (N, C, *spatial): parts of one graph, so that one has a gradient in
    the other; `as_grid` turns both the latter and its gradient into (N, C, *cells).
    """
    outputs, written = run_through_all(net, x, [name])
    return outputs, written[name]


def run_through_all(
    net: nn.Module, x: Tensor, names: Sequence[str], seen: Callable[[str, Tensor], None] = lambda name, written: None
) -> tuple[Tensor, dict[str, Tensor]]:
    """(outputs, what each of the layers wrote) of one pass, as `run_through`; one that does not run is a `UsageError`.

    Where x asks for no gradient, the graph starts at the first of them: nothing is kept for what comes before. `seen`
    is told of each as soon as it has run.
    """
    graph, written = torch.is_grad_enabled(), dict[str, Tensor]()

    def note(name: str) -> Callable[[nn.Module, Any, Any], Tensor]:
        def keep(module: nn.Module, given: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise UsageError(f"layer {name!r} gives {type(output).__name__}, not a tensor: take one inside it")
            with torch.set_grad_enabled(graph):  # also where the network itself turns gradients off until here
                written[name] = output.detach().requires_grad_() if graph and not output.requires_grad else output
                seen(name, written[name])
                return written[name].clone()  # what comes next may write over it

        return keep

    stages = {name for name in names if name.startswith(STAGE) and isinstance(net, Net)}
    with ExitStack() as stack:
        for name in names:
            if name not in stages:
                stack.callback(find_module(net, name).register_forward_hook(note(name)).remove)
        if stages and isinstance(net, Net):

            def note_stage(name: str, stage: Tensor) -> None:
                if name in stages:
                    # the network goes on with this very tensor, which it does not write over
                    written[name] = stage.requires_grad_() if graph else stage
                    seen(name, stage)

            stack.enter_context(_each_stage(net, note_stage))
        outputs = net(x.clone())
    for name in names:
        if name not in written:
            find_layer(net, tuple(x.shape[1:]), name)  # says which are near
            raise UsageError(f"layer {name!r} does not run when the network answers: take another")
    return outputs, written


@contextmanager
def _each_stage(net: Net, note: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within it, `note` is called with the name and the tensor of each stage that a pass goes through."""
    run = net.forward_stages

    def forward_stages(x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        for number, stage in enumerate(run(x, mask), 1):
            note(f"{STAGE}{number}", stage)
            yield stage

    net.forward_stages = forward_stages  # type: ignore[method-assign]
    try:
        yield
    finally:
        del net.forward_stages  # what its class says


def find_module(net: nn.Module, name: str) -> nn.Module:
    """The module called `name`, by any of its names; another name is a `UsageError` with the nearest ones."""
    modules = dict(net.named_modules(remove_duplicate=False))
    if not name or name not in modules:
        raise UsageError(f"there is no layer {name!r}; {nearest(name, [each for each in modules if each])}")
    return modules[name]


def _nothing(net: nn.Module, shape: Sequence[int]) -> Tensor:
    """One item of zeros, of the kind of number that the network works with, where it does."""
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point():
            return torch.zeros(1, *shape, dtype=tensor.dtype, device=tensor.device)
    return torch.zeros(1, *shape)


def as_grid(net: nn.Module, written: Tensor, name: str) -> Tensor:
    """What the layer `name` wrote, or its gradient, as (N, C, *cells)."""
    return net.to_grid(written) if isinstance(net, Net) and name.startswith(STAGE) else written


def _is_stage(net: nn.Module, name: str) -> bool:
    return name.startswith(STAGE) and isinstance(net, Net)


def place(grid: Tensor, field: Field, spatial: Sequence[int]) -> Tensor:
    """A layer's map (N, *cells) on the cells of its input, (N, *spatial): linear between the centres of what its cells
    see, constant beyond the first and the last. Stretching it over the input would move it by up to half a jump.
    """
    for axis, size in enumerate(spatial):
        where = torch.from_numpy(centres(field, axis, grid.shape[1 + axis], size)).to(grid.device, torch.float64)
        here = torch.arange(size, dtype=torch.float64, device=grid.device)
        right = torch.searchsorted(where, here).clamp(1, max(1, len(where) - 1))
        if len(where) == 1:
            grid = grid.repeat_interleave(size, 1 + axis)
            continue
        share = ((here - where[right - 1]) / (where[right] - where[right - 1])).clamp(0, 1).to(grid.dtype)
        moved = grid.movedim(1 + axis, -1)
        grid = torch.lerp(moved[..., right - 1], moved[..., right], share).movedim(-1, 1 + axis)
    return grid


def cut(x: Tensor, field: Field, cell: Sequence[int]) -> Tensor:
    """What one cell of a layer sees of an item x (C, *spatial): (C, *size of its field), zero beyond the item.

    The whole of an axis where it sees everything.
    """
    boxes, border = [slice(None)], []
    for axis, i in enumerate(cell):
        size, jump, start = field.size[axis], field.jump[axis], field.start[axis]
        if size is None or jump is None or start is None:
            boxes.append(slice(None))
            border.append((0, 0))
            continue
        first = round(start - (size - 1) / 2) + i * jump
        low, high = max(0, first), min(x.shape[1 + axis], first + size)
        boxes.append(slice(low, max(low, high)))
        border.append((min(size, low - first), size - min(size, low - first) - max(0, high - low)))
    return pad(x[tuple(boxes)], [side for pair in reversed(border) for side in pair])
