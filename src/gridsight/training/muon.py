"""Muon: every direction of a weight's update is made equally long; norms, biases and linear layers learn by AdamW.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024, kellerjordan.github.io/posts/muon): the
gradient's momentum of a convolution, as a matrix (C_out, C_in k), is brought near its closest orthogonal matrix by a
Newton-Schulz iteration. As in that author's CIFAR-10 record the length of a weight stays what it was at first and the
rate is relative to it (0.1 turns a weight by a tenth of its length a step): where a norm follows, length says nothing,
and elsewhere the start values were chosen for it. Decay would pull at that length, so these weights have none.

Differs: one rate, of which AdamW's is the share `ADAMW`; grouped convolutions are one matrix a group.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

ADAMW = 0.05
"""AdamW's rate over Muon's."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a x + b x^3 + c x^5, by the source."""
STEPS = 4
"""They bring singular values from 0.01 of the Frobenius norm on to between 0.68 and 1.21."""


def orthogonalised(matrices: Tensor) -> Tensor:
    """(G, rows, columns) with all singular values brought near 1; of a zero matrix zero."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    # every iterate is a polynomial of x x^T times x: kept apart, all products but two are of the shorter side alone
    square = x @ x.mT
    unit = a * torch.eye(square.shape[-1], dtype=x.dtype, device=x.device)
    product = unit.new_zeros(())
    for step in range(STEPS):
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c) + unit
        product = factor @ product if step else factor
        square = factor @ square @ factor
    x = product @ x
    return x.mT if tall else x


def convolution_groups(net: nn.Module) -> dict[nn.Parameter, int]:
    """The weights of the convolutions of `net`, each with its number of groups."""
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d
    found = [(module.weight, module.groups) for module in net.modules() if isinstance(module, kinds)]
    return {weight: groups for weight, groups in found if isinstance(weight, nn.Parameter)}


class Muon(torch.optim.AdamW):
    """Groups with a true "orthogonal" hold weights (C_out, C_in / groups, *kernel), all others are AdamW's.

    `groups` says how many groups a weight's convolution has, 1 where it is not named. Momentum is Nesterov's.
    """

    def __init__(
        self,
        parameter_groups: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        groups: Mapping[nn.Parameter, int],
    ) -> None:
        super().__init__(parameter_groups, lr=lr, betas=(0.9, 0.999), fused=True)
        self.momentum, self.groups = momentum, dict(groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        every = self.param_groups
        for group in every:
            if group["orthogonal"]:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._turn(weight, weight.grad, group["lr"])
        try:
            self.param_groups = [group for group in every if not group["orthogonal"]]
            super().step(closure)
        finally:
            self.param_groups = every

    def _turn(self, weight: nn.Parameter, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # AdamW looks for it when a state is loaded
            state["momentum"] = torch.zeros_like(weight)
            length = weight.norm()
            # a layer that begins at zero gets the length of one whose outputs deviate as its inputs do
            state["length"] = torch.where(length > 0, length, math.sqrt(len(weight)))
        state["momentum"].lerp_(gradient, 1 - self.momentum)
        moving = gradient.lerp(state["momentum"], self.momentum)
        # a view where memory is channels-last, and the order of columns does not matter
        last = moving.movedim(1, -1)
        update = orthogonalised(last.reshape(self.groups.get(weight, 1), -1, last[0].numel()))
        update = update.reshape(last.shape).movedim(-1, 1)
        weight.add_(update * (state["length"] / (update.norm() + 1e-12)), alpha=-rate)
        weight.mul_(state["length"] / weight.norm())
