"""Optimisers with decay where it belongs: on convolution and linear weights, not on norms, biases and scalars.

SGD with Nesterov momentum adds decay * w to the gradient (equal to an L2 penalty); AdamW subtracts lr * decay * w
(Loshchilov and Hutter, arXiv:1711.05101). Vectors and scalars (ndim < 2) are left out of the decay. Muon is in
`training.muon`.
"""

from collections.abc import Callable

import torch
from torch import nn

from gridsight.core.errors import UsageError, nearest
from gridsight.training.muon import ADAMW, Muon, convolution_groups

OPTIMISERS = ("sgd", "adamw", "muon")


def make_optimiser(
    name: str,
    net: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    scale: Callable[[str], float] = lambda name: 1.0,
) -> torch.optim.Optimizer:
    """`name` over the parameters in groups: decayed (ndim >= 2) or not, by `scale` of the parameter's name.

    Each group's rate is `lr` times its "scale"; whoever changes rates later multiplies by it.
    """
    convolutions = convolution_groups(net) if name == "muon" else {}
    found: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for key, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        turns = parameter in convolutions
        factor = scale(key) * (ADAMW if name == "muon" and not turns else 1.0)
        decay = weight_decay if parameter.ndim >= 2 and not turns else 0.0
        found.setdefault((factor, decay, turns), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "scale": factor, "lr": lr * factor, "orthogonal": turns}
        for (factor, decay, turns), parameters in sorted(found.items(), reverse=True)
    ]
    # the fused kernels update all parameters in one call; they exist for the CPU and for CUDA
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=True)
    if name == "muon":
        return Muon(groups, lr=lr, momentum=momentum, groups=convolutions)
    raise UsageError(f"there is no optimiser {name!r}; {nearest(name, OPTIMISERS)}")
