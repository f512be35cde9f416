"""The rescale rule for any network: a backward pass whose multipliers are differences over differences, not slopes.

Inputs and their baselines run as one batch, the inputs as its first half. Each function call that is not linear, not
each module, is given a linear stand-in whose change from baseline to input is the true one, so shared and in-place
activations, functional calls and branches are as right as any (Shrikumar et al., arXiv:1704.02685, section 3.5.1):

- a function of each cell: y' = (y - y0) / (a - a0), its slope where a is a0;
- a maximum over a window: what it gains goes to the cell that wins for the input, what it loses to the baseline's;
- a product of two things that both depend on the input (gates, attention): each is multiplied by the mean of the other
  for input and baseline, since ab - a0 b0 = (a - a0) (b + b0) / 2 + (b - b0) (a + a0) / 2;
- softmax, quotients and norms over an item are made of these.

What is known to none of these (recurrent layers, sorting, maxima over axes) keeps its slope; the residual then shows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SAME = 1e-6
"""Differences below it are none: the quotient would be rounding."""
CELLWISE = {
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus",
    "softsign", "hardswish", "hardsigmoid", "hardtanh", "logsigmoid", "tanhshrink", "softshrink", "hardshrink",
    "threshold", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "reciprocal", "erf", "clamp", "clip",
    "sin", "cos",
}  # fmt: skip
PRODUCTS = {"mul": torch.mul, "multiply": torch.mul, "matmul": torch.matmul, "bmm": torch.matmul}
POOLS = frozenset(f"{kind}max_pool{ndim}d" for kind in ("", "adaptive_") for ndim in (1, 2, 3))


class Rescaled(TorchFunctionMode):
    """Within it, batches of 2 N whose first half are inputs and whose second half are their baselines."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        written = getattr(func, "__name__", "")
        name = written.removeprefix("__r").removeprefix("__i").strip("_")
        given = args[0] if args else kwargs.get("input")
        if not isinstance(given, Tensor):
            return func(*args, **kwargs)
        both = len(args) > 1 and all(isinstance(a, Tensor) and a.requires_grad for a in args[:2])
        if name in PRODUCTS and both:
            result = _product(PRODUCTS[name], args[0], args[1])
        elif name in ("div", "divide", "truediv", "true_divide") and len(args) > 1 and _depends(args[1]):
            with self:
                result = args[0] * torch.reciprocal(args[1])
        elif name == "pow" and _depends(given) and len(args) > 1 and not isinstance(args[1], Tensor):
            result = _cellwise(lambda a: a ** args[1], given)
        elif name in CELLWISE and _depends(given):
            rest, named = args[1:], {key: value for key, value in kwargs.items() if key not in ("inplace", "input")}
            plain = getattr(F, name, None) or getattr(torch, name)
            result = _cellwise(lambda a: plain(a, *rest, **named), given)
        elif name.removesuffix("_with_indices") in POOLS and _depends(given):
            return self._pool(name.removesuffix("_with_indices"), args, kwargs)
        elif name in ("softmax", "layer_norm", "group_norm", "instance_norm", "scaled_dot_product_attention"):
            with self:
                return getattr(self, "_" + name)(func, *args, **kwargs)
        else:
            return func(*args, **kwargs)
        in_place = kwargs.get("inplace", False) or (written.endswith("_") and not written.endswith("__"))
        return given.copy_(result) if in_place or written.startswith("__i") else result

    def _pool(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        named = {key: value for key, value in kwargs.items() if key != "return_indices"}
        x = args[0] if args else named["input"]
        y, place = getattr(F, name + "_with_indices")(*args, **named)
        ndim = int(name[-2])
        half, flat = len(x) // 2, x.flatten(-ndim)
        own, other = place[:half].flatten(-ndim), place[half:].flatten(-ndim)
        now, before = flat[:half], flat[half:]
        with torch.no_grad():
            top, base = y[:half].flatten(-ndim), y[half:].flatten(-ndim)
            cross = torch.maximum(top, base)
            won = _quotient(cross - base, (now - before).gather(-1, own))
            lost = _quotient(top - cross, (now - before).gather(-1, other))
            # where nothing differs there, the gradient of the maximum
            won = torch.where((cross - base).abs() + (top - cross).abs() < SAME, torch.ones_like(won), won)
        line = (now.gather(-1, own) * won + now.gather(-1, other) * lost).view(y[:half].shape)
        result = _stand_in(y, torch.cat([line, torch.zeros_like(line)]))
        return (result, place) if kwargs.get("return_indices", False) else result

    def _softmax(self, func: Any, input: Tensor, dim: int | None = None, *rest: Any, **named: Any) -> Tensor:
        dim = named.get("dim", dim)
        if dim is None or not _depends(input):
            return func(input, *((dim,) if dim is not None else ()), *rest, **named)
        half = len(input) // 2
        with torch.no_grad():  # the same for input and baseline, so it takes nothing from the difference
            top = torch.maximum(input[:half], input[half:]).amax(dim, keepdim=True)
            top = torch.cat([top, top])
        raised = torch.exp(input - top)
        return raised * torch.reciprocal(raised.sum(dim, keepdim=True))

    def _layer_norm(
        self,
        func: Any,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *rest: Any,
    ) -> Tensor:
        axes = tuple(range(-len(normalized_shape), 0))
        found = self._standardised(input, axes, eps)
        found = found if weight is None else found * weight
        return found if bias is None else found + bias

    def _group_norm(
        self,
        func: Any,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *rest: Any,
    ) -> Tensor:
        found = self._standardised(input.unflatten(1, (num_groups, -1)).flatten(2), (2,), eps).view(input.shape)
        shape = (1, -1, *[1] * (input.dim() - 2))
        found = found if weight is None else found * weight.view(shape)
        return found if bias is None else found + bias.view(shape)

    def _instance_norm(self, func: Any, input: Tensor, *rest: Any, **named: Any) -> Tensor:
        known = dict(zip(("running_mean", "running_var", "weight", "bias"), rest, strict=False)) | named
        if not known.get("use_input_stats", True):
            return func(input, *rest, **named)
        return self._group_norm(
            func, input, input.shape[1], known.get("weight"), known.get("bias"), float(known.get("eps", 1e-5))
        )

    def _standardised(self, x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred * torch.rsqrt(torch.square(centred).mean(axes, keepdim=True) + eps)

    def _scaled_dot_product_attention(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        *rest: Any,
        **n: Any,
    ) -> Tensor:
        if rest or n.get("is_causal", False) or n.get("dropout_p", 0.0) or n.get("enable_gqa", False):
            return func(query, key, value, attn_mask, *rest, **n)
        scale = n.get("scale") or query.shape[-1] ** -0.5
        said = torch.matmul(query, key.mT) * scale
        if attn_mask is not None:
            said = said.masked_fill(~attn_mask, -1e9) if attn_mask.dtype == torch.bool else said + attn_mask
        return torch.matmul(torch.softmax(said, -1), value)


def _depends(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _stand_in(y: Tensor, line: Tensor) -> Tensor:
    """The values of y with the gradient of `line`."""
    return y.detach() + (line - line.detach())


def _quotient(change: Tensor, given: Tensor) -> Tensor:
    safe = given.abs() > SAME
    return torch.where(safe, change / torch.where(safe, given, torch.ones_like(given)), torch.zeros_like(change))


def _cellwise(f: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    with torch.enable_grad():
        own = a.detach().clone().requires_grad_()
        y = f(own)
        (slope,) = torch.autograd.grad(y.sum(), own)
    half = len(a) // 2
    with torch.no_grad():
        change = a[:half] - a[half:]
        many = torch.where(change.abs() > SAME, _quotient(y[:half] - y[half:], change), slope[:half])
        many = torch.cat([many, torch.zeros_like(many)])
    return _stand_in(y, a * many)


def _product(f: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    with torch.no_grad():
        y = f(a, b)
    return _stand_in(y, f(a, _mean(b)) + f(_mean(a), b))


def _mean(a: Tensor) -> Tensor:
    """Of input and baseline, for both."""
    half = len(a) // 2
    mean = (a[:half] + a[half:]).detach() / 2
    return torch.cat([mean, mean])
