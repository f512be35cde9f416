"""Start values by the data: weights scaled so that what every layer says has deviation 1.

Mishkin and Matas, "All you need is a good init", arXiv:1511.06422, algorithm 1 (LSUV: layer-sequential, unit variance):
orthonormal weights, then layer after layer divided by the deviation of its outputs on a batch. Differs from the paper:
a layer's outputs are linear in its weights, so one division is exact where the paper repeats it, and one pass through
the network scales all layers, each on what the scaled ones before it say.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LAYERS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


@torch.no_grad()
def lsuv(net: nn.Module, x: Tensor, *, seed: int = 0) -> dict[str, float]:
    """Draw the weights of all convolution and linear layers of `net` anew, by a batch `x` (N, C, *spatial).

    Every cell must be a real one, as padding would count too; biases stay. Returns the deviation of each layer's
    outputs, without bias, before its division; a layer that says the same everywhere keeps its orthonormal weights, one
    that is used twice fits its first use. Norms use the statistics of the batch, as in the first step of training, and
    nothing is dropped.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, float] = {}
    handles = []

    def scale(name: str, layer: Any, y: Tensor) -> Tensor | None:
        if name in found:
            return None
        axes = 0 if isinstance(layer, nn.Linear) else y.dim() - 2
        bias = 0.0 if layer.bias is None else layer.bias.view(-1, *[1] * axes)
        linear = y - bias
        found[name] = deviation = float(linear.std())
        if not deviation > 1e-8:
            return None
        _set_weight(layer, layer.weight / deviation)
        return linear / deviation + bias

    buffers = {name: value.clone() for name, value in net.named_buffers()}
    training = net.training
    for module in net.modules():
        module.training = not isinstance(module, nn.Dropout)
    try:
        for name, layer in net.named_modules():
            if isinstance(layer, LAYERS):
                _set_weight(layer, nn.init.orthogonal_(layer.weight.clone(), generator=generator))
                handles.append(layer.register_forward_hook(lambda m, _, y, name=name: scale(name, m, y)))
        net(x)
    finally:
        for handle in handles:
            handle.remove()
        net.train(training)
        for name, value in net.named_buffers():
            value.copy_(buffers[name])  # running statistics are those of training alone
    return found


def _set_weight(layer: Any, value: Tensor) -> None:
    if parametrize.is_parametrized(layer, "weight"):  # a normed weight finds its own direction and length
        layer.weight = value
    else:
        layer.weight.copy_(value)
