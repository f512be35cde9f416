"""The rescale rule for any network: a backward pass whose multipliers are mean slopes from baseline to input.

The network runs on the inputs, then on their baselines, and the calls of both runs are matched by their order. Each
function call, not each module, has multipliers of its own, so shared and in-place activations, functional calls and any
layout of axes are as right as any (Shrikumar et al., arXiv:1704.02685, section 3.5.1):

- a function of each cell: (y - y0) / (a - a0); where a is nearly a0, its slope half-way;
- a maximum: what it gains goes to the cell that wins for the input, what it loses to the one that won for the baseline;
- what is linear: as it is;
- any other call (a product of two things that both depend on the input, softmax, a norm over an item, attention, a
  recurrent layer): the mean of its slopes on the straight line between its own arguments, of as many nodes as account
  for y - y0. For a function of one cell that mean is the quotient above, for a product it takes half of each side: the
  rule's natural extension, as the source says nothing of such calls.

Names in `kept` are of calls that the rule could not make add up: branches that the input decides, gradients that end.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from gridsight.attribution._maxima import MAXIMA, POOLS, along_rows
from gridsight.attribution._slopes import Call, Cellwise, Largest, Linked, Smooth, storage_of

SMOOTH = {
    "gelu", "silu", "mish", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "tanhshrink", "exp", "expm1",
    "exp2", "erf", "sin", "cos", "square",
}  # fmt: skip
CELLWISE = {
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "prelu", "rrelu", "hardswish", "hardsigmoid", "hardtanh",
    "softshrink", "hardshrink", "threshold", "abs", "absolute", "log", "log2", "log10", "log1p", "sqrt", "rsqrt",
    "reciprocal", "clamp", "clamp_min", "clamp_max", "clip", "pow", "float_power", "rdiv", "rtruediv", "rpow",
}  # fmt: skip
LINEAR = {
    "add", "sub", "subtract", "rsub", "neg", "negative", "radd", "mean", "sum", "cumsum", "cat", "concat",
    "concatenate", "stack", "hstack", "vstack", "view", "reshape", "flatten", "unflatten", "ravel", "permute",
    "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "squeeze", "unsqueeze", "t", "expand", "expand_as",
    "broadcast_to", "repeat", "repeat_interleave", "tile", "roll", "flip", "narrow", "select", "chunk", "split",
    "tensor_split", "unbind", "getitem", "setitem", "get", "set", "pad", "dropout", "dropout1d", "dropout2d",
    "dropout3d", "alpha_dropout", "feature_alpha_dropout", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "interpolate", "upsample",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "unfold", "fold", "gather", "index_select", "diagonal",
    "contiguous", "clone", "to", "type", "type_as", "float", "double", "cpu", "cuda", "requires_grad",
    "register_hook", "retain_grad", "copy", "zero", "fill", "masked_fill", "size", "dim", "numel", "stride",
    "is_contiguous", "data_ptr", "zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones",
    "new_empty", "new_full", "new_tensor", "is_floating_point", "len", "iter", "set_grad_enabled",
}  # fmt: skip
"""Their slopes are right as they are; an operation that is missing here is only slower."""
LINEAR_IN_ONE = {
    "mul", "multiply", "rmul", "div", "divide", "truediv", "true_divide", "matmul", "rmatmul", "bmm", "mm", "mv",
    "linear", "bilinear", "baddbmm", "addmm", "einsum", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "batch_norm",
}  # fmt: skip
"""Linear where one argument alone depends on the input, and is not what is divided by."""
DIVIDES = {"div", "divide", "truediv", "true_divide"}
OPERATORS = {"truediv": "div", "floordiv": "floor_divide"}
NOT_IN_PLACE = {"__invert__", "__index__", "__int__", "__iter__"}


class Rescaled(TorchFunctionMode):
    """Within it the network runs on the inputs; after `turn`, within it again, on their baselines, and is `done`."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: set[str] = set()
        self._calls: dict[int, tuple[Call, list[int]]] = {}
        self._owners: dict[int, list[Call]] = {}
        self._number, self._learning = 0, False

    def turn(self) -> None:
        """From the inputs to their baselines."""
        self._number, self._learning = 0, True
        self._owners.clear()

    def done(self) -> None:
        """Let go of what only the two runs needed."""
        self._calls.clear()
        self._owners.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, in_place = _name(func, args, kwargs)
        if in_place:
            self._save(args[0])
        if name in LINEAR:
            return func(*args, **kwargs)
        self._number += 1
        if self._learning:
            return self._learn(name, in_place, func, args, kwargs)
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        leaves, spec = tree_flatten(_without_inplace(func, args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
        alone = name in LINEAR_IN_ONE and len(places) == 1 and not (name in DIVIDES and places[0] == 1)
        if not places or alone:
            return func(*args, **kwargs)
        plain = _plain(func, name)
        if plain is None:
            self.kept.add(name)
            return func(*args, **kwargs)
        if name in MAXIMA or name.removesuffix("_with_indices") in POOLS:
            result = self._largest(name, *tree_unflatten(leaves, spec))
        else:
            result = self._call(name, plain, leaves, spec, places)
            if result is None:
                return func(*args, **kwargs)
        return self._over(args[0], result) if in_place else result

    def _call(self, name: str, plain: Any, leaves: list[Any], spec: Any, places: list[int]) -> Any:
        """What the call makes, linked; None where it makes no new numbers."""
        given = [leaves[i] for i in places]
        fixed = [None if i in places else leaf for i, leaf in enumerate(leaves)]  # no cycle through the graph

        def run(tensors: list[Tensor]) -> tuple[list[Any], Any]:
            filled = list(fixed)
            for i, tensor in zip(places, tensors, strict=True):
                filled[i] = tensor
            args, kwargs = tree_unflatten(filled, spec)
            return tree_flatten(plain(*args, **kwargs))

        with torch.no_grad():
            outputs, outspec = run([a.detach() for a in given])
        where = [i for i, y in enumerate(outputs) if isinstance(y, Tensor) and y.is_floating_point()]
        made = [outputs[i] for i in where]
        if not made or {storage_of(y) for y in made} & {storage_of(a) for a in given}:
            if name == "detach" or any(
                isinstance(y, Tensor) and not y.dtype.is_floating_point and not y.is_complex() for y in outputs
            ):
                self.kept.add(name)
            return None
        kind: type[Call] = Call
        if (name in CELLWISE or name in SMOOTH) and len(places) == 1 and made[0].shape == given[0].shape:
            kind = Smooth if name in SMOOTH else Cellwise
        call = kind(name, lambda tensors: _numbers(run(tensors)[0]), given, made, self.kept)
        for i, y in zip(where, self._link(call, places, given, made), strict=True):
            outputs[i] = y
        return tree_unflatten(outputs, outspec)

    def _largest(self, name: str, args: Any, kwargs: Any) -> Any:
        rows, again, finish = along_rows(name, args, kwargs)
        with torch.no_grad():
            made = again([rows.detach()])
        call = Largest(name, again, [rows], made, self.kept)
        return finish(self._link(call, [], [rows], made[:1])[0], made[1])

    def _link(self, call: Call, places: list[int], given: list[Tensor], made: list[Tensor]) -> list[Tensor]:
        self._calls[self._number] = call, places
        self._own(call)
        return list(Linked.apply(call, [y.clone() if y._is_view() else y for y in made], *given))

    def _own(self, call: Call) -> None:
        for storage in {storage_of(each) for each in (*call.given, *call.made, *call.base)}:
            self._owners.setdefault(storage, []).append(call)

    def _learn(self, name: str, in_place: bool, func: Any, args: Any, kwargs: Any) -> Any:
        """The same call of the run on the baselines."""
        call, places = self._calls.get(self._number, (None, []))
        if call is None or call.name != name:
            return func(*args, **kwargs)
        leaves, spec = tree_flatten(_without_inplace(func, args, kwargs))
        plain_args, plain_kwargs = tree_unflatten(leaves, spec)
        if isinstance(call, Largest):
            rows, again, finish = along_rows(name, plain_args, plain_kwargs)
            given, made = [rows], again([rows])
            result = finish(*made)
        else:
            result = _plain(func, name)(*plain_args, **plain_kwargs)
            given, made = [leaves[i] for i in places], _numbers(tree_flatten(result)[0])
        if [a.shape for a in given] == [a.shape for a in call.given]:
            call.learn(given, made)
            self._own(call)
        return self._over(args[0], result) if in_place else result

    def _over(self, written: Tensor, result: Tensor) -> Tensor:
        self._save(written)
        return written.copy_(result)

    def _save(self, written: Any) -> None:
        """Calls that remember this tensor keep it as it is, before it is written over."""
        if isinstance(written, Tensor):
            storage = storage_of(written)
            for call in self._owners.pop(storage, []):
                call.save(storage)


def _name(func: Any, args: Any, kwargs: Any) -> tuple[str, bool]:
    """What is called, as in `torch.NAME`, and whether it writes over its first argument."""
    written = getattr(func, "__name__", "")
    name = written.strip("_")
    if written.startswith("__i") and written not in NOT_IN_PLACE:
        return name.removeprefix("i"), True
    place = _inplace_place(func)
    asked = kwargs.get("inplace", False) or (place is not None and len(args) > place and args[place])
    return name, bool(asked) or (written.endswith("_") and not written.endswith("__")) or written == "__setitem__"


def _inplace_place(func: Any) -> int | None:
    code = getattr(func, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code else ()
    return names.index("inplace") if "inplace" in names else None


def _without_inplace(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    place = _inplace_place(func)
    kept = tuple(args) if place is None else (*args[:place], *args[place + 1 :])
    return kept, {key: value for key, value in kwargs.items() if key != "inplace"}


def _plain(func: Any, name: str) -> Any:
    """The same, not in place; None where it is not known."""
    written = getattr(func, "__name__", "")
    if not (written.endswith("_") and not written.endswith("__")) and not written.startswith("__i"):
        return func
    name = OPERATORS.get(name, name)
    return getattr(torch, name, None) or getattr(F, name, None)


def _numbers(outputs: list[Any]) -> list[Tensor]:
    return [y for y in outputs if isinstance(y, Tensor) and y.is_floating_point()]
