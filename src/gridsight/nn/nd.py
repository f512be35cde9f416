"""The map from a number of dimensions to PyTorch's layers: `Nd(3).MaxPool` is `nn.MaxPool3d`.

Convolutions and the 1-D batch norm are subclasses that compute the same faster on the CPU (`nn/convolution.py`).

Only layers whose mathematics is the same in 1-D, 2-D and 3-D are offered; the rest (InstanceNorm's affine default,
Dropout's element-wise or channel-wise meaning) must be named in full, so that a name never changes its meaning.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gridsight.core.errors import UsageError
from gridsight.nn import convolution

OneOrEach = int | tuple[int, ...]
"""A kernel, stride, dilation or padding: one int for all axes, or one int an axis."""

_LAYERS = (
    "Conv",
    "ConvTranspose",
    "BatchNorm",
    "MaxPool",
    "AvgPool",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
)


@dataclass(frozen=True)
class Nd:
    """PyTorch's layers for `ndim` spatial axes: 1 (time), 2 (height, width) or 3 (depth, height, width)."""

    ndim: int

    def __post_init__(self) -> None:
        if self.ndim not in (1, 2, 3):
            raise UsageError(f"ndim must be 1, 2 or 3, not {self.ndim!r}")

    def __getattr__(self, name: str) -> Any:
        if name not in _LAYERS:
            raise AttributeError(f"Nd has no layer {name!r}; it maps {', '.join(_LAYERS)}")
        name = f"{name}{self.ndim}d"
        return getattr(convolution, name, None) or getattr(nn, name)

    def each(self, value: OneOrEach) -> tuple[int, ...]:
        """`value` as one int an axis."""
        if isinstance(value, int):
            return (value,) * self.ndim
        if len(value) != self.ndim:
            raise UsageError(f"{value} has {len(value)} numbers where {self.ndim} axes need {self.ndim}")
        return tuple(value)


def he_init(module: nn.Module, linear_std: float | None = None) -> None:
    """He's initialisation (arXiv:1502.01852, fan out) of every convolution; norms start at 1 and 0.

    Linear layers keep PyTorch's, or are drawn from a normal distribution of `linear_std`, biases zero.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif linear_std is not None and isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, linear_std)
            nn.init.zeros_(layer.bias)


def glorot_init(module: nn.Module) -> None:
    """Glorot's uniform initialisation (Glorot and Bengio, AISTATS 2010), Keras's default; biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def channels_last(net: nn.Module) -> nn.Module:
    """Convolution weights in channels-last memory, which is what the CPU's and the GPU's fast kernels read.

    A weight with one input channel lies the same in both orders, and PyTorch would go on in the slower one; its strides
    are what tells them apart.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            weight = module.weight.data
            lying = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
            strides = torch.empty_like(weight, memory_format=lying, device="meta").stride()
            module.weight.data = weight.contiguous(memory_format=lying).as_strided(weight.shape, strides)
    return net
