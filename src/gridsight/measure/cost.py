"""What a network costs: parameters, multiply-accumulates (MACs) and activation memory, a layer each and in total.

Counted on the meta device from the tensor operations that really run (no memory, no arithmetic), so it holds for any
module, functional calls included. MACs are those of convolutions, matrix products and attention by PyTorch's own
formulas, without biases; every other operation that computes is named in `uncounted`. Activation bytes are the
floating-point results that one forward pass writes (views are free): about what training keeps for its backward pass;
inference frees most of it at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gridsight.nn.geometry import Field, Tracer, meta_copy
from gridsight.nn.net import Net

aten = torch.ops.aten


@dataclass(eq=False)
class Layer:
    """What one module does itself, its children apart; `shape` (without N) and `field` are those of its output."""

    name: str
    kind: str
    parameters: int
    shape: tuple[int, ...] = ()
    macs: int = 0
    activation_bytes: int = 0
    field: Field | None = None
    ran: bool = False


@dataclass(frozen=True)
class Cost:
    """Layers that computed something, in the order in which they end (the network itself last, named ""), and totals.

    A parameter that modules share counts once, in the first of them; so does a module that runs twice, with the work
    of both times.
    """

    layers: tuple[Layer, ...]
    parameters: int
    macs: int
    activation_bytes: int
    uncounted: tuple[str, ...]
    stages: tuple[Field, ...]
    """The field of every stage of a `Net`; () of other modules."""

    def rows(self) -> list[dict[str, Any]]:
        """The table of layers, a row each, ready for JSON.

        `receptive_field`, `jump` and `start` have one entry an axis, None where the layer sees everything; they are
        None where its output has no axes left. `nn/geometry.py` says what they mean.
        """
        return [
            {
                "name": layer.name,
                "kind": layer.kind,
                "shape": list(layer.shape),
                "parameters": layer.parameters,
                "macs": layer.macs,
                "activation_bytes": layer.activation_bytes,
                "receptive_field": layer.field and list(layer.field.size),
                "jump": layer.field and list(layer.field.jump),
                "start": layer.field and list(layer.field.start),
            }
            for layer in self.layers
        ]


def cost(net: nn.Module, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Cost:
    """The cost of one forward pass in eval mode on one item of `shape` (in_channels, *spatial) and `dtype`.

    >>> total = cost(nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()), (2, 10))
    >>> total.parameters, total.macs, total.activation_bytes, total.uncounted
    (28, 192, 256, ('relu',))
    """
    net = meta_copy(net)
    counter = _Counter(net)
    x = torch.empty(1, *shape, dtype=dtype, device="meta")
    with torch.no_grad(), Tracer() as tracer, counter:
        stages = _record_stages(net, tracer) if isinstance(net, Net) else []
        for name, module in net.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: counter.enter(name))
            module.register_forward_hook(lambda _module, _inputs, out: counter.leave(out, tracer))
        net(tracer.watch(x))
    layers = tuple(layer for layer in counter.ended if layer.ran)
    return Cost(
        layers,
        sum(p.numel() for p in net.parameters()),
        sum(layer.macs for layer in layers),
        sum(layer.activation_bytes for layer in layers),
        tuple(sorted(counter.uncounted)),
        tuple(stages),
    )


def describe(net: nn.Module, in_channels: int, spatial: Sequence[int]) -> list[dict[str, Any]]:
    """The table of layers for one item (in_channels, *spatial): `Cost.rows`."""
    return cost(net, (in_channels, *spatial)).rows()


def macs_of(func: Any, args: Any, kwargs: Any, result: Any) -> int | None:
    """The multiply-accumulates of one call of the operation `func`; None of one that PyTorch has no formula for."""
    formula = flop_registry.get(func.overloadpacket)
    return formula and formula(*args, **kwargs, out_val=result) // 2


def _record_stages(net: Net, tracer: Tracer) -> list[Field]:
    """A list that the next forward pass of `net`, a throw-away copy, fills with the field of every stage."""
    fields: list[Field] = []
    run = net.forward_stages

    def forward_stages(x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        for stage in run(x, mask):
            fields.append(tracer.field(net.to_grid(stage)))
            yield stage

    net.forward_stages = forward_stages  # type: ignore[method-assign]
    return fields


# a view in all but name, and memory that the next operation fills
_FREE = {aten._unsafe_view, aten.empty, aten.new_empty, aten.empty_like}


class _Counter(TorchDispatchMode):
    """Adds each operation to the module that calls it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.layers: dict[str, Layer] = {}
        self.stack: list[Layer] = []
        self.ended: list[Layer] = []
        self.uncounted: set[str] = set()
        seen: set[int] = set()
        for name, module in net.named_modules():
            own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
            seen.update(map(id, own))
            self.layers[name] = Layer(name, type(module).__name__, sum(p.numel() for p in own))

    def enter(self, name: str) -> None:
        self.stack.append(self.layers[name])

    def leave(self, out: Any, tracer: Tracer) -> None:
        layer = self.stack.pop()
        tensor = out if isinstance(out, Tensor) else next((t for t in out if isinstance(t, Tensor)), None)
        if tensor is not None:
            layer.shape = tuple(tensor.shape[1:])
            layer.field = tracer.field(tensor) if tensor.dim() > 2 else None
        if layer not in self.ended:
            self.ended.append(layer)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        layer, op = self.stack[-1], func.overloadpacket
        layer.ran = True
        if op in _FREE or any(out.alias_info for out in func._schema.returns):
            return result  # the aliases are views and results written into their own input
        macs = macs_of(func, args, kwargs, result)
        if macs is None:
            self.uncounted.add(op.__name__)
        layer.macs += macs or 0
        for out in result if isinstance(result, list | tuple) else [result]:
            if isinstance(out, Tensor) and out.is_floating_point():
                layer.activation_bytes += out.numel() * out.element_size()
        return result
