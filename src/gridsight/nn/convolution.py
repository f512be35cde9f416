"""Convolutions and batch norms whose results are PyTorch's and whose formulation is the CPU's fastest.

`benchmarks/bench_conv.py` measured every formulation that we could think of; what wins is chosen here by `formulation`,
a function of the shapes of layer and input alone, so that a run never depends on a timing:

- "row": a 1-D convolution is a 2-D one of height one in channels-last memory. PyTorch brings a 1-D input into
  channels-first memory, which its kernels reorder on the way in and on the way out. Here cells stay the outer axis from
  one layer to the next: (N, C, L) with strides (L C, 1, C), which activations, sums and pools keep. `BatchNorm1d` reads
  the same memory as (N L, C).
- "taps": depthwise, with another backward pass. The gradient of weights is fast up to three taps on the last axis; more
  of them are taken three at a time. A 3-D one is the sum over its first axis of 2-D ones, and the gradient of a 3-D
  input is the convolution of the output's gradient with the mirrored kernel.
- "plain": PyTorch's own, everywhere else: other devices and types, autocast, tracing, export, compilation.

State dicts, shapes, types and values are those of `nn.Conv1d`, `nn.Conv2d`, `nn.Conv3d` and `nn.BatchNorm1d`, to
rounding. Shapes: (N, C, *spatial).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NARROW = {True: 3, False: 14}
"""Depthwise or not: the taps on the last axis up to which PyTorch's gradient of weights is fast (3: 9 ms, 5: 58 ms)."""

FEW = 1000
"""Cells of a batch below which a row costs more than it saves: 1.0 ms instead of 0.8 for 240, 2.3 and 2.5 for 3,840."""

Formulation = Literal["plain", "row", "taps"]


@lru_cache(1024)
def formulation(
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    spatial: tuple[int, ...],
) -> Formulation:
    """What computes a convolution of (in, out) `channels` on the CPU best; kernel to `spatial` an axis.

    >>> [formulation((8, 16), 1, (k,), (1,), (1,), (500,)) for k in (9, 39)]
    ['row', 'taps']
    >>> [formulation((8, 8), 8, (5, 5), (s, s), (1, 1), (14, 14)) for s in (1, 2)]
    ['taps', 'plain']
    """
    depthwise = groups == channels[0] == channels[1] > 1
    # kernels larger than their input are slower in parts: 12.8 ms become 19.7 with five taps on four cells
    larger = kernel[-1] > NARROW[True] and any(k > n for k, n in zip(kernel, spatial, strict=True))
    if len(kernel) == 1:
        # below 15 taps the copies cost what they save
        by_taps = kernel[0] > NARROW[False] and dilation[0] == 1 and (depthwise or groups == 1)
        return "taps" if by_taps and not larger else "row"
    if not depthwise or larger or {*stride, *dilation} != {1}:
        return "plain"
    return "taps" if kernel[-1] > NARROW[True] - (len(kernel) == 3) else "plain"


def _free(x: Tensor, weight: Tensor) -> bool:
    """Whether values are computed here and now, on the CPU and in float32: else PyTorch's own convolution is asked."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu" == weight.device.type
        and x.dtype is weight.dtype is torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
    )


class _Convolution(nn.modules.conv._ConvNd):
    """What the three have in common: which formulation, from the layer's shape."""

    def chosen(self, x: Tensor, weight: Tensor) -> Formulation:
        """The formulation for this input."""
        if not _free(x, weight) or x.dim() != weight.dim():
            return "plain"
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return "plain"
        channels, spatial = (self.in_channels, self.out_channels), tuple(x.shape[2:])
        found = formulation(channels, self.groups, self.kernel_size, self.stride, self.dilation, spatial)
        return "plain" if found == "row" and len(x) * spatial[0] < FEW else found


class Conv1d(_Convolution, nn.Conv1d):
    """`nn.Conv1d`, (N, C, L) -> (N, C', L')."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found = self.chosen(input, weight)
        if found == "plain":
            return super()._conv_forward(input, weight, bias)
        return row(input, weight, bias, self.stride, self.padding, self.dilation, self.groups, found == "taps")  # type: ignore[arg-type]


class Conv2d(_Convolution, nn.Conv2d):
    """`nn.Conv2d`, (N, C, H, W) -> (N, C', H', W')."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.chosen(input, weight) == "plain":
            return super()._conv_forward(input, weight, bias)
        return taps(input, weight, bias, self.stride, self.padding, self.groups)  # type: ignore[arg-type]


class Conv3d(_Convolution, nn.Conv3d):
    """`nn.Conv3d`, (N, C, D, H, W) -> (N, C', D', H', W')."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.chosen(input, weight) == "plain":
            return super()._conv_forward(input, weight, bias)
        return taps(input, weight, bias, self.stride, self.padding, self.groups)  # type: ignore[arg-type]


class BatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d`; what comes from "row" stays in its memory."""

    def _check_input_dim(self, input: Tensor) -> None:
        if isinstance(input, Tensor):  # what traces has no size
            super()._check_input_dim(input)

    def forward(self, input: Tensor) -> Tensor:
        if not _free(input, input) or input.dim() != 3 or input.stride(1) != 1 or input.is_contiguous():
            return super().forward(input)
        items, channels, cells = input.shape
        flat = super().forward(input.transpose(1, 2).reshape(items * cells, channels))
        return flat.view(items, cells, channels).transpose(1, 2)


def row(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    by_taps: bool = False,
) -> Tensor:
    """A 1-D convolution as a 2-D one of height one, in channels-last memory."""
    x, weight = x.unsqueeze(2).contiguous(memory_format=torch.channels_last), weight.unsqueeze(2)
    if by_taps:
        return taps(x, weight, bias, (1, *stride), (0, *padding), groups).squeeze(2)
    return F.conv2d(x, weight, bias, (1, *stride), (0, *padding), (1, *dilation), groups).squeeze(2)


def taps(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], groups: int
) -> Tensor:
    """A 2-D or a depthwise 3-D convolution in channels-last memory whose backward pass is `_Taps`'s."""
    if torch.is_grad_enabled() and weight.requires_grad:
        found: Tensor = _Taps.apply(_last(x), weight, bias, tuple(stride), tuple(padding), groups)
        return found
    return _plain(x, weight, bias, stride, padding, groups)


class _Taps(torch.autograd.Function):
    """Backward passes are made of differentiable operations, so that gradients of gradients are right as well."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.biased = (stride, padding, groups), bias is not None
        return _plain(x, weight, bias, stride, padding, groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = _last(grads[0])
        of_x = _of_input(grad, x, weight, *ctx.how) if ctx.needs_input_grad[0] else None
        of_weight = _of_weights(grad, x, weight, *ctx.how) if ctx.needs_input_grad[1] else None
        of_bias = grad.sum((0, *range(2, grad.dim()))) if ctx.biased and ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None, None, None


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def _plain(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], groups: int
) -> Tensor:
    convolution = F.conv2d if weight.dim() == 4 else F.conv3d
    return convolution(x, weight, bias, tuple(stride), tuple(padding), groups=groups)


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int,
    of_weights: bool,
) -> Tensor:
    """PyTorch's gradient of a convolution in its weights or its input."""
    ones, zeros = [1] * len(stride), [0] * len(stride)
    wanted = [not of_weights, of_weights, False]
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, ones, False, zeros, groups, wanted
    )
    return found[int(of_weights)]


def _of_input(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int
) -> Tensor:
    """The gradient in the input (in 3-D 24 ms; by the mirrored kernel 3 ms, which strides rule out)."""
    rest = tuple(k - 1 - p for k, p in zip(weight.shape[2:], padding, strict=True))
    if weight.dim() < 5 or set(stride) != {1} or min(rest) < 0:
        return _backward(grad, x, weight, stride, padding, groups, of_weights=False)
    return F.conv3d(grad, weight.flip(2, 3, 4), None, 1, rest, groups=groups)


def _of_weights(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int
) -> Tensor:
    """The gradient in the weights, in parts that are fast."""
    found = []
    if weight.dim() == 5:
        planes = grad.transpose(1, 2).flatten(0, 1)
        for tap in range(weight.shape[2]):
            # the planes that this tap reads, one for each plane of the output
            end = stride[0] * (grad.shape[2] - 1) + 1 - (x.shape[2] + padding[0] - tap)
            read = _last(F.pad(x, (0, 0, 0, 0, padding[0] - tap, end))[:, :, :: stride[0]])
            read = read.transpose(1, 2).flatten(0, 1)
            found.append(_of_weights(planes, read, weight[:, :, tap], stride[1:], padding[1:], groups))
        return torch.stack(found, 2)
    wide, narrow = weight.shape[-1], NARROW[groups > 1]
    if wide <= narrow:
        return _backward(grad, x, weight, stride, padding, groups, of_weights=True)
    for start in range(0, wide, narrow):
        first = min(start, wide - narrow)  # the last ones may begin among those that are done
        end = stride[1] * (grad.shape[3] - 1) + narrow - (x.shape[3] + padding[1] - first)
        read, part = F.pad(x, (padding[1] - first, end)), weight[..., first : first + narrow]
        part = _backward(grad, read, part, stride, (padding[0], 0), groups, of_weights=True)
        found.append(part[..., start - first :])
    return torch.cat(found, -1)
