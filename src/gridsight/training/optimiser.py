"""Optimisers with decay where it belongs: on convolution and linear weights, not on norms, biases and scalars.

SGD with Nesterov momentum adds decay * w to the gradient (equal to an L2 penalty); AdamW subtracts lr * decay * w
(Loshchilov and Hutter, arXiv:1711.05101). Vectors and scalars (ndim < 2) are left out of the decay.
"""

import torch
from torch import nn

from gridsight.core.errors import UsageError, nearest

OPTIMISERS = ("sgd", "adamw")


def make_optimiser(
    name: str, net: nn.Module, *, lr: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """`name` over the trainable parameters in two groups: decayed (ndim >= 2), not decayed."""
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # the fused kernels update all parameters in one call; they exist for the CPU and for CUDA
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=True)
    raise UsageError(f"there is no optimiser {name!r}; {nearest(name, OPTIMISERS)}")
