"""What a network computes, as a graph: each operation of one forward pass, what it read and the module that called it.

Followed through the tensors that really pass (on the meta device: no memory, no arithmetic), so shortcuts, branches and
functional calls are there, and nothing is that does not run. What only looks at a tensor in another way (views, slices,
permutations, copies) is no step: it hands on the step that wrote the tensor. Two are steps, as they say where channels
go: `split`, channels dealt to several readers, and `channel_shuffle`. A parameter belongs to what reads it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gridsight.measure.cost import macs_of
from gridsight.nn.geometry import Field, Tracer, meta_copy, named_arguments, tensors_in
from gridsight.nn.net import Net

aten = torch.ops.aten


@dataclass(eq=False)
class Call:
    """One call of the module `name`, made by `outer`; a `leaf` has no modules of its own."""

    name: str
    kind: str
    outer: "Call | None"
    leaf: bool
    container: bool
    """A list of modules, which says nothing but their order."""


@dataclass(eq=False)
class Step:
    """One operation, in the order of time.

    `reads` has each step that wrote what it read (None: the input of the network) with the shape, without N, in which
    it was read. `given` are the arguments by name, tensors as their shapes; `parameters` the size of each that is read,
    by its id. `stage` counts from 0; what follows the last stage is the head.
    """

    op: str
    call: Call
    stage: int
    reads: tuple[tuple["Step | None", tuple[int, ...]], ...]
    shape: tuple[int, ...]
    given: dict[str, Any]
    parameters: dict[int, int]
    macs: int


@dataclass(frozen=True)
class Graph:
    """The steps that the answer depends on, and the (C, *spatial) and field of each stage of a `Net`."""

    steps: tuple[Step, ...]
    stages: tuple[tuple[tuple[int, ...], Field], ...]


@dataclass
class _Origin:
    """What a tensor was made of: the input, by `step` or as it is; else (`known` False) of parameters alone."""

    known: bool
    step: Step | None = None
    parameters: dict[int, int] = field(default_factory=dict)
    macs: int = 0
    mixed: bool = False
    """Whether a copy has put its numbers in another order, with more axes than before."""


def graph(net: nn.Module, shape: Sequence[int]) -> Graph:
    """The graph of one forward pass in eval mode on one item of `shape` (in_channels, *spatial).

    >>> [step.op for step in graph(nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()), (2, 10)).steps]
    ['convolution', 'relu']
    """
    net = meta_copy(net).float()
    recorder = _Recorder(net)
    stages: list[tuple[tuple[int, ...], Field]] = []
    with torch.no_grad(), Tracer() as tracer, recorder:
        x = tracer.watch(torch.empty(1, *shape, device="meta"))
        if isinstance(net, Net):
            run = net.forward_stages

            def forward_stages(x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
                for stage in run(x, mask):
                    grid = net.to_grid(stage)
                    stages.append((tuple(grid.shape[1:]), tracer.field(grid)))
                    recorder.stage += 1
                    yield stage

            net.forward_stages = forward_stages  # type: ignore[method-assign]
        for name, module in net.named_modules():
            module.register_forward_pre_hook(lambda module, _, name=name: recorder.enter(name, module))
            module.register_forward_hook(lambda *_: recorder.leave())
        recorder.origins[id(x)] = _Origin(True)
        answer = net(x)
    return Graph(_needed(recorder.steps, recorder.origins[id(answer)].step), tuple(stages))


def _needed(steps: Sequence[Step], answer: Step | None) -> tuple[Step, ...]:
    """The steps that `answer` depends on, without splits of which one step reads all that is read."""
    whole: dict[int, Step | None] = {}
    for split in steps:
        readers = [step for step in steps if any(source is split for source, _ in step.reads)]
        if split.op == "split" and len(readers) < 2 and split is not answer:
            whole[id(split)] = split.reads[0][0]
    for step in steps:
        step.reads = tuple((whole.get(id(source), source), shape) for source, shape in step.reads)
    needed = {id(answer)}
    for step in reversed(steps):
        if id(step) in needed:
            needed.update(id(source) for source, _ in step.reads)
    return tuple(step for step in steps if id(step) in needed)


def _item(x: Tensor) -> tuple[int, ...]:
    """The shape without N, which is 1, or all of it where N and another axis are one: tokens, heads, windows."""
    return tuple(x.shape[1:] if len(x) == 1 else x.shape)


_COPIES = {aten.clone, aten._to_copy, aten._unsafe_view, aten.copy}
_SLICES = {aten.slice, aten.split, aten.split_with_sizes}


def _is_mixed(x: Tensor) -> bool:
    """Whether a copy of `x`, axis after axis, has another order than its memory."""
    strides = [stride for n, stride in zip(x.shape, x.stride(), strict=True) if n > 1]
    return strides != sorted(strides, reverse=True)


class _Recorder(TorchDispatchMode):
    """Writes a step for each operation on what comes from the input."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.stage = 0
        self.calls: list[Call] = []
        self.splits: dict[tuple[Step, Call], Step] = {}
        self.origins = {id(p): _Origin(False, parameters={id(p): p.numel()}) for p in net.parameters()}
        self.kept: list[Any] = []  # ids of tensors that are gone would be given again

    def enter(self, name: str, module: nn.Module) -> None:
        # PyTorch's own layers are one thing to a reader, whatever is in them
        container = type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        own = type(module).__module__.startswith("torch.nn") and not container
        leaf = own or not any(True for _ in module.children())
        outer = self.calls[-1] if self.calls else None
        self.calls.append(Call(name, type(module).__name__, outer, leaf, container))

    def leave(self) -> None:
        self.calls.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outs = [out for out in (result if isinstance(result, list | tuple) else [result]) if isinstance(out, Tensor)]
        self.kept.append((outs, args, kwargs))
        given = named_arguments(func, args, kwargs)
        sources = [(t, self.origins[id(t)]) for t in tensors_in(given) if id(t) in self.origins]
        known = [(t, origin) for t, origin in sources if origin.known]
        parameters = {key: size for _, origin in sources for key, size in origin.parameters.items()}
        looks = func.overloadpacket in _COPIES or any(out.alias_info for out in func._schema.returns)
        macs = (macs_of(func, args, kwargs, result) or 0) + sum(origin.macs for _, origin in sources)
        for _, constant in sources:
            constant.macs = 0  # what made a constant counts in the first step that reads it
        origin = _Origin(False, parameters=parameters, macs=macs)
        if known and looks and not func._schema.is_mutable:
            origin = self._seen(func.overloadpacket, known[0][0], outs[0], known[0][1])
        elif known:
            reads = {(id(o.step), _item(t)): (o.step, _item(t)) for t, o in known}
            shown = {key: tuple(v.shape) if isinstance(v, Tensor) else v for key, v in given.items()}
            shape = _item(outs[0]) if outs else ()
            op = func.overloadpacket.__name__
            step = Step(op, self.calls[-1], self.stage, tuple(reads.values()), shape, shown, parameters, macs)
            self.steps.append(step)
            origin = _Origin(True, step)
        for out in outs:
            self.origins[id(out)] = origin
        return result

    def _seen(self, op: Any, x: Tensor, out: Tensor, origin: _Origin) -> _Origin:
        """The origin of `out`, a view or copy of `x`: that of `x`, unless channels are split or shuffled."""
        source, call = origin.step, self.calls[-1]
        if source is None or call.leaf:
            return origin
        before, after = _item(x), _item(out)
        if op is aten.clone and x.dim() > len(source.shape) + 1 and _is_mixed(x):
            return _Origin(True, source, mixed=True)
        if origin.mixed and after == source.shape:
            step = Step("channel_shuffle", call, self.stage, ((source, after),), after, {}, {}, 0)
            self.steps.append(step)
            return _Origin(True, step)
        fewer = after and before == source.shape and after[0] < before[0] and after[1:] == before[1:]
        if op in _SLICES and fewer and len(before) == out.dim() - 1:
            if (source, call) not in self.splits:
                step = Step("split", call, self.stage, ((source, before),), after, {}, {}, 0)
                self.splits[source, call] = step
                self.steps.append(step)
            return _Origin(True, self.splits[source, call])
        return origin
