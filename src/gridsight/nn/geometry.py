"""What each cell of a network's output can see: receptive field, jump and start, an axis at a time.

Cell i of a map sees the input cells from `left + i * jump` to `right + i * jump`. Its receptive field is
`right - left + 1` cells, and `start = (left + right) / 2` is the centre of what cell 0 sees, in input cells (0 is the
first cell; below 0 where padding is seen). Definitions as in Araujo, Norris and Sim, "Computing receptive fields of
convolutional neural networks", Distill 2019, doi:10.23915/distill.00021, whose start counts from 0.5 instead.

`Tracer` follows the intervals through every tensor operation that really runs (on the meta device: no memory, no
arithmetic), so any module works, with branches, functional calls and generators, in 1-D, 2-D and 3-D; where paths meet
the largest counts. An operation that is not known to be local (a matrix product, statistics over cells, a transposed
convolution) counts as seeing everything: an upper bound. `measured_fields` finds the same numbers by gradients alone.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from gridsight.nn.blocks import average_pool
from gridsight.nn.nd import Nd
from gridsight.nn.net import Net

aten = torch.ops.aten


@dataclass(frozen=True)
class Span:
    """What the cells along one axis see of an input axis; infinite edges are all of it, jump 0 is not known."""

    left: float = -math.inf
    right: float = math.inf
    jump: int = 0

    def window(self, kernel: int, stride: int, padding: int, dilation: int) -> "Span":
        """After a convolution or a pool."""
        if math.isinf(self.left):
            return Span(jump=self.jump * stride)
        left = self.left - padding * self.jump
        return Span(left, left + self.right - self.left + (kernel - 1) * dilation * self.jump, self.jump * stride)

    def union(self, other: "Span") -> "Span":
        """Where two paths meet; after a mean over cells the jump is the other path's."""
        return Span(min(self.left, other.left), max(self.right, other.right), max(self.jump, other.jump))


Spans = tuple[Span | None, ...]
"""One entry an axis of a tensor; None for an axis that is not spatial."""

EVERYTHING = Span()


@dataclass(frozen=True)
class Field:
    """Receptive field, jump and start of a map, an axis each; None where everything is seen or nothing is known."""

    size: tuple[int | None, ...]
    jump: tuple[int | None, ...]
    start: tuple[float | None, ...]


def centres(field: Field, axis: int, cells: int, size: int) -> NDArray[np.float64]:
    """Where along an input axis of `size` cells the receptive fields of a map's cells have their centres.

    Where that is not known, cells are spread evenly.
    """
    start, jump = field.start[axis], field.jump[axis]
    if start is None or jump is None:
        return (np.arange(cells) + 0.5) * size / cells - 0.5
    return start + jump * np.arange(cells, dtype=np.float64)


class Tracer(TorchDispatchMode):
    """Inside `with Tracer() as tracer`, follows what is computed from the tensors that were given to `watch`."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: Any = WeakTensorKeyDictionary()
        self.lost = False  # after a write through a view the spans of the tensor behind it are not known

    def watch(self, x: Tensor) -> Tensor:
        """Mark `x` (N, C, *spatial) as the input."""
        self.spans[x] = (None, None, *(Span(0, 0, 1) for _ in x.shape[2:]))
        return x

    def field(self, x: Tensor) -> Field:
        """What the cells of `x` (N, C, *spatial) see."""
        spans = self.spans.get(x)
        known = [EVERYTHING] * (x.dim() - 2) if spans is None or self.lost else [s or EVERYTHING for s in spans[2:]]
        local = [not math.isinf(s.right - s.left) for s in known]
        return Field(
            tuple(int(s.right - s.left) + 1 if ok else None for s, ok in zip(known, local, strict=True)),
            tuple(s.jump or None for s in known),
            tuple((s.left + s.right) / 2 if ok else None for s, ok in zip(known, local, strict=True)),
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = tensors_in({**dict(enumerate(args)), **(kwargs or {})})
        known = [spans for spans in map(self.spans.get, read) if spans is not None]
        if not known:
            return result
        near = torch.Tag.pointwise in func.tags or func.overloadpacket in _SAME_CELLS
        # a value that Python reads leads nowhere: a condition on it is not followed
        for out in tensors_in({"result": result}):
            if not out.numel():
                continue  # statistics that a norm does not take
            if near and out.dim() >= len(known[0]):
                alike = len(known) == 1 and out.dim() == len(known[0])
                spans = known[0] if alike else _meet(known, out.dim())
            else:
                source = next(t for t in read if t in self.spans)
                spans = self._after(func, source, len(known), out, named_arguments(func, args, kwargs or {}))
            if func._schema.is_mutable and out._is_view() and spans != self.spans.get(out):
                self.lost = True
            self.spans[out] = spans
        return result

    def _after(self, func: Any, source: Tensor, sources: int, out: Tensor, given: dict[str, Any]) -> Spans:
        """The spans of `out`, computed by `func` with the arguments `given`, of which `sources` are followed tensors,
        the first of them `source`.
        """
        op, old = func.overloadpacket, list(self.spans[source])
        everything = [EVERYTHING] * out.dim()
        if op == aten.convolution and not given["transposed"] and sources == 1:
            kernel = given["weight"].shape[2:]
            return (None, None, *_windows(old[2:], kernel, given["stride"], given["padding"], given["dilation"]))
        if op in _POOLS:
            kernel, dilation = given["kernel_size"], given.get("dilation", [1])
            windows = _windows(old[-len(kernel) :], kernel, given["stride"] or kernel, given["padding"], dilation)
            return (*old[: -len(kernel)], *windows)
        if op == aten.slice:
            span = old[given["dim"]]
            start = given["start"] or 0
            if span and start >= 0:
                old[given["dim"]] = span.window(1, given["step"], -start, 1)
            return tuple(old if start >= 0 or not span else everything)
        if op == aten.constant_pad_nd:
            before = given["pad"][::2]
            for axis, cells in enumerate(before):
                span = old[-1 - axis]
                old[-1 - axis] = span and span.window(1, 1, cells, 1)
            return tuple(old)
        if op == aten.mean and given.get("dim"):
            for axis in given["dim"]:
                old[axis] = old[axis] and EVERYTHING
            return tuple(old if given["keepdim"] else everything)
        if all(span == EVERYTHING for span in old) and op in (aten.view, aten._unsafe_view, aten.unsqueeze):
            return tuple(everything)  # an axis of one cell that a mean is given again, to multiply cells by it
        if op in (aten.view, aten._unsafe_view):
            return tuple(_regroup(old, source.shape, out.shape) or everything)
        if op == aten.permute:
            return tuple(old[axis] for axis in given["dims"])
        if op == aten.transpose:
            first, second = given["dim0"], given["dim1"]
            old[first], old[second] = old[second], old[first]
            return tuple(old)
        if op == aten.unsqueeze:
            old.insert(given["dim"] % out.dim(), None)
            return tuple(old)
        if op == aten.squeeze and isinstance(given.get("dim"), int) and old[given["dim"]] is None:
            del old[given["dim"]]
            return tuple(old)
        if op == aten.native_layer_norm and not any(old[-len(given["normalized_shape"]) :]):
            return tuple(old) if out.dim() == len(old) else tuple(everything)
        return tuple(everything)


def named_arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of one call of the operation `func` by name, those that were not given with their defaults."""
    schema = func._schema.arguments
    given = {a.name: a.default_value for a in schema if a.has_default_value()}
    return given | {a.name: value for a, value in zip(schema, args, strict=False)} | dict(kwargs)


def tensors_in(given: Mapping[Any, Any]) -> list[Tensor]:
    """The tensors among arguments and in lists that are arguments."""
    values = [v for value in given.values() for v in (value if isinstance(value, list | tuple) else [value])]
    return [value for value in values if isinstance(value, Tensor)]


_SAME_CELLS = {
    aten.native_batch_norm,
    aten._native_batch_norm_legit_no_training,
    aten.cat,
    aten.clone,
    aten.detach,
    aten._to_copy,
    aten.alias,
    aten.hardswish,
}
_POOLS = {
    aten.max_pool2d_with_indices,
    aten.max_pool3d_with_indices,
    aten.avg_pool1d,
    aten.avg_pool2d,
    aten.avg_pool3d,
}


def _windows(spans: Sequence[Span | None], kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[Span | None]:
    each = (list(value) * (len(spans) if len(value) == 1 else 1) for value in (kernel, stride, padding, dilation))
    return [span and span.window(*window) for span, *window in zip(spans, *each, strict=True)]


def _meet(paths: Sequence[Spans], rank: int) -> Spans:
    """Union of the spans of tensors that are broadcast against each other."""
    met: list[Span | None] = [None] * rank
    for spans in paths:
        for axis, span in enumerate(spans, rank - len(spans)):
            here = met[axis]
            met[axis] = span.union(here) if span and here else span or here
    return tuple(met)


def _regroup(spans: list[Span | None], old: Sequence[int], new: Sequence[int]) -> list[Span | None] | None:
    """Spans after a view that only splits or merges axes that are not spatial (groups of channels); else None."""
    back = 0
    while back < min(len(old), len(new)) and old[-1 - back] == new[-1 - back]:
        back += 1
    front = 0
    while front < min(len(old), len(new)) - back and old[front] == new[front]:
        front += 1
    if any(spans[front : len(old) - back]):
        return None
    return spans[:front] + [None] * (len(new) - front - back) + spans[len(old) - back :]


def meta_copy(net: nn.Module) -> Any:
    """The same module without values (meta device), in eval mode; its memory is not copied."""
    memo: dict[int, Any] = {}
    for tensor in (*net.parameters(), *net.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(net, memo).eval()


def stage_shapes(net: Net, in_channels: int, spatial: Sequence[int]) -> list[tuple[int, ...]]:
    """(C, *spatial) of every stage of one input (in_channels, *spatial)."""
    with torch.no_grad():
        x = torch.empty(1, in_channels, *spatial, device="meta")
        net = meta_copy(net).float()
        return [tuple(net.to_grid(stage).shape[1:]) for stage in net.forward_stages(x)]


def stage_fields(net: Net, in_channels: int, spatial: Sequence[int]) -> list[Field]:
    """The field of every stage, exact and without the limits of an input: `spatial` need only be large enough to run.

    >>> from gridsight.models import create
    >>> stage_fields(create("resnet18"), 3, (64, 64))[-1].size
    (435, 435)
    """
    with torch.no_grad(), Tracer() as tracer:
        x = tracer.watch(torch.empty(1, in_channels, *spatial, device="meta"))
        net = meta_copy(net).float()
        return [tracer.field(net.to_grid(stage)) for stage in net.forward_stages(x)]


def measured_fields(net: Net, in_channels: int, spatial: Sequence[int]) -> list[Field]:
    """The field of every stage by gradients: which input cells move the middle cell and the one before it.

    None on an axis where these see an end of the input, or which has one cell. Slow; the oracle of `stage_fields`.
    """
    net = _positive(net)
    x = torch.ones(1, in_channels, *spatial, dtype=torch.float64, requires_grad=True)
    return [_measured(net.to_grid(stage), x) for stage in net.forward_stages(x)]


def _measured(stage: Tensor, x: Tensor) -> Field:
    middle = [cells // 2 for cells in stage.shape[2:]]
    size: list[int | None] = []
    jump: list[int | None] = []
    start: list[float | None] = []
    for axis, (left, right) in enumerate(_edges(stage, middle, x)):
        before = [cell - (a == axis) for a, cell in enumerate(middle)]
        first = _edges(stage, before, x)[axis][0] if middle[axis] else 0
        clear = first > 0 and right < x.shape[2 + axis] - 1
        step = left - first
        size.append(right - left + 1 if clear else None)
        jump.append(step if clear else None)
        start.append((left + right) / 2 - middle[axis] * step if clear else None)
    return Field(tuple(size), tuple(jump), tuple(start))


def _positive(net: Net) -> Net:
    """A copy in which nothing cancels or saturates: averages for convolutions and pools, norms that do nothing."""
    net = copy.deepcopy(net).double().eval()
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if tensor.dim() > 1:
            tensor.data.fill_(1 / tensor[0].numel())
        else:
            tensor.data.fill_(0 if name.endswith(("bias", "running_mean")) else 1)
    for name, module in list(net.named_modules()):
        # a maximum passes its gradient to one cell of its window; the average passes it to all
        if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
            nd = Nd(int(type(module).__name__[-2]))
            other: nn.Module = average_pool(nd, module.kernel_size, module.stride, module.padding, module.ceil_mode)
        elif isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
            other = nn.Identity()  # the norm of each cell by itself: of equal channels it would say 0
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, other)
    return net


def _edges(stage: Tensor, cell: Sequence[int], x: Tensor) -> list[tuple[int, int]]:
    """First and last input cell, an axis each, that move `cell` of `stage`."""
    place: Any = (0, slice(None), *cell)
    (gradient,) = torch.autograd.grad(stage[place].sum(), x, retain_graph=True)
    moved = gradient.abs().amax((0, 1)).nonzero()
    return [(int(axis.min()), int(axis.max())) for axis in moved.T]
