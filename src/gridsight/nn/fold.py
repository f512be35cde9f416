"""Fold batch norms into the convolutions before them, and constants into weights: the same answers in fewer passes.

In eval mode a batch norm is an affine map of each channel, `a x + b` with a = gamma / sqrt(variance + eps), so that
norm(conv(x)) is one convolution with the weights a W and the bias a c + b (Jacob et al., arXiv:1712.05877, section
3.2). Which norm follows which convolution is read from the tensors of one forward pass, never from names or from the
order of modules. A pair is folded only where this changes nothing else: both run once and alone read their parameters,
and the norm alone reads what the convolution writes; a stage that is shown counts as a reader. Between the two may be
what cuts cells off, and a max pool where no channel has a gamma below 0: the map is then increasing, and the largest
value stays the largest. Masks stay right: every cell is mapped by itself.

The pass is a real one, watched at the level of functions: what serves the meta device or sees the operations below them
takes PyTorch a second to import, as long as a command that answers about one file.

What is computed anew from weights alone in each pass (weight norm) is computed once.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from gridsight.core.errors import UsageError
from gridsight.nn import convolution
from gridsight.nn.blocks import Trim
from gridsight.nn.geometry import tensors_in
from gridsight.nn.net import Net

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, convolution.Conv1d, convolution.Conv2d, convolution.Conv3d)
"""Other subclasses may do anything with their weights."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, convolution.BatchNorm1d)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


@dataclass(frozen=True)
class Folded:
    """`net` answers as the network that was given. `pairs` are the names of convolutions and norms that became one,
    `constants` those of modules whose weights are computed no more, `left` the batch norms that stay, with the reason.
    """

    net: Any
    pairs: tuple[tuple[str, str], ...]
    constants: tuple[str, ...]
    left: dict[str, str]


@torch.no_grad()
def fold(net: nn.Module, x: Tensor) -> Folded:
    """A folded copy for inference; `x` (N, in_channels, *spatial) is an input that the network takes, of any values.

    Weights that folding does not change are shared with the network, which stays as it is. In training mode batch norms
    take the statistics of the batch, which no weights can hold: a `UsageError`.

    >>> net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU()).eval()
    >>> fold(net, torch.zeros(1, 2, 10)).pairs
    (('0', '1'),)
    """
    if any(module.training for module in net.modules() if isinstance(module, NORMS)):
        raise UsageError("a network in training mode cannot be folded: call its eval() first")
    result = _sharing_copy(net)
    constants = [name for name, module in result.named_modules() if parametrize.is_parametrized(module)]
    for name in constants:
        _replace(result, name, _plain(result.get_submodule(name)))
    pairs, left = _pairs(result, x)
    for conv, norm in pairs:
        _absorb(result.get_submodule(conv), result.get_submodule(norm))
        _replace(result, norm, nn.Identity())
    return Folded(result.requires_grad_(False), tuple(pairs), tuple(constants), left)


def _sharing_copy(net: nn.Module) -> Any:
    """The same modules on the same memory: new parameters, so that moving one network does not move the other."""
    memo: dict[int, Any] = {}
    for tensor in (*net.parameters(), *net.buffers()):
        alias = tensor.detach()
        memo[id(tensor)] = nn.Parameter(alias, requires_grad=False) if isinstance(tensor, nn.Parameter) else alias
    return copy.deepcopy(net, memo)


def _replace(net: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` in the place of the module `name`, wherever the network keeps it."""
    old = net.get_submodule(name)
    for place in [place for place, module in net.named_modules(remove_duplicate=False) if module is old]:
        net.set_submodule(place, new)


def _plain(module: Any) -> nn.Module:
    """The layer with its weights as they are now. PyTorch's own way would take them from the original as well: the
    copy of a parametrised layer has the class of the original, from which it removes them.
    """
    kind: Any = parametrize.type_before_parametrizations(module)
    plain: nn.Module = kind.__new__(kind)
    plain.__dict__.update(module.__dict__)
    plain._modules = {name: child for name, child in module._modules.items() if name != "parametrizations"}
    plain._parameters = dict(module._parameters)
    for name in module.parametrizations:
        plain.register_parameter(name, nn.Parameter(getattr(module, name).detach()))
    return plain


@torch.no_grad()
def _absorb(conv: Any, norm: Any) -> None:
    """Give `conv` the weights and the bias with which it answers as the norm after it would; in float64."""
    dtype = conv.weight.dtype
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    weight = conv.weight.double() * scale.view(-1, *[1] * (conv.weight.dim() - 1))
    conv.weight, conv.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))


def _pairs(net: nn.Module, x: Tensor) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """(convolution, norm) by name, in order; and of every other batch norm why it stays."""
    norms = [name for name, module in net.named_modules() if type(module) in NORMS]
    seen = _Pass()
    if norms:
        handles = [handle for name, module in net.named_modules() for handle in seen.watch(name, module)]
        if isinstance(net, Net):
            net.forward_stages = seen.counting(net.forward_stages)  # type: ignore[method-assign]
        try:
            with seen.reads:
                answer = net(x)
            for tensor in tensors_in({"answer": answer}):
                seen.reads.of(tensor).times += 1
        finally:
            vars(net).pop("forward_stages", None)
            for handle in handles:
                handle.remove()
    pairs, left = [], {}
    for name in norms:
        source = seen.asked.get(name)
        if name not in seen.asked:
            left[name] = "does not run in eval mode"
        elif source is None:
            left[name] = "follows no convolution"
        elif reason := _reason(net, name, source, seen):
            left[name] = reason
        else:
            pairs.append((source.conv, name))
    return pairs, left


def _reason(net: nn.Module, name: str, source: "_Written", seen: "_Pass") -> str:
    """Why the batch norm `name` behind a convolution is not folded, "" where it is."""
    conv: Any = net.get_submodule(source.conv)
    norm: Any = net.get_submodule(name)
    if norm.running_mean is None:
        return "keeps no running statistics"
    for module in (source.conv, name):
        if seen.calls[module] > 1:
            return f"{module} runs {seen.calls[module]} times"
    if any(count.times > 1 for count in source.reads):
        return f"what {' and '.join((source.conv, *source.between))} writes is read elsewhere too"
    tensors = [*conv.parameters(), *norm.parameters(), *norm.buffers()]
    if any(seen.reads.of(tensor).times > 1 for tensor in tensors):
        return f"parameters of {source.conv} or its own are read elsewhere too"
    if source.pooled and norm.weight is not None and bool((norm.weight < 0).any()):
        return "turns channels over after a max pool, which would then take their least value"
    return ""


@dataclass(eq=False)
class _Count:
    """How many operations have read one tensor; it outlives the tensor."""

    times: int = 0


@dataclass(frozen=True, eq=False)
class _Written:
    """What a convolution wrote, as it comes to a norm: `reads` of its own output and of that of each of `between`."""

    conv: str
    reads: tuple[_Count, ...]
    between: tuple[str, ...] = ()
    pooled: bool = False


class _Pass:
    """What was seen of one forward pass."""

    def __init__(self) -> None:
        self.reads = _Reads()
        self.calls: dict[str, int] = {}
        self.written: Any = WeakTensorKeyDictionary()
        self.asked: dict[str, _Written | None] = {}  # what each batch norm was given

    def watch(self, name: str, module: nn.Module) -> Iterator[Any]:
        """Hooks that write down what the module does; to be removed by the caller."""
        kind = type(module)
        if kind in CONVS:
            yield module.register_forward_hook(lambda _, args, out: self._conv(name, out))
        elif kind in POOLS or kind is Trim:
            yield module.register_forward_hook(lambda _, args, out: self._between(name, kind in POOLS, args[0], out))
        elif kind in NORMS:
            yield module.register_forward_pre_hook(lambda _, args: self._norm(name, args[0]))

    def counting(self, run: Any) -> Any:
        """`forward_stages` with each stage that it shows counted as read."""

        def forward_stages(x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
            for stage in run(x, mask):
                self.reads.of(stage).times += 1
                yield stage

        return forward_stages

    def _conv(self, name: str, out: Tensor) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        self.written[out] = _Written(name, (self.reads.of(out),))

    def _between(self, name: str, pooled: bool, x: Tensor, out: Tensor) -> None:
        before = self.written.get(x)
        if before is not None and out is not x:
            reads, between = (*before.reads, self.reads.of(out)), (*before.between, name)
            self.written[out] = _Written(before.conv, reads, between, before.pooled or pooled)

    def _norm(self, name: str, x: Tensor) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        self.asked[name] = self.written.get(x)


class _Reads(TorchFunctionMode):
    """Counts how many operations read each tensor, without keeping any; to look at its shape or type is no reading."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Any = WeakTensorKeyDictionary()

    def of(self, tensor: Tensor) -> _Count:
        return self.counts.setdefault(tensor, _Count())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, bool | int | str | torch.Size | torch.dtype | torch.device | torch.layout):
            for tensor in tensors_in({"args": args, **(kwargs or {})}):
                self.of(tensor).times += 1
        return result
