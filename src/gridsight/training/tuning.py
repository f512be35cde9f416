"""Fine-tuning: which parameters of a network that starts from trained weights learn, and how fast, in each epoch.

In the first epochs only the head learns: its random gradients would spoil the rest (gradual unfreezing: Howard and
Ruder, arXiv:1801.06146, section 3.2, here in one step). Afterwards every stage learns, the earlier the slower
(discriminative rates, the same section): stage i of S at spread^((S - i) / S) of the rate, the head at all of it.
While a stage is frozen its batch norms are too: they normalise by the statistics that they came with, and keep them.

A layer belongs to the first stage that uses it; what no stage uses is the head's (auxiliary heads too).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gridsight.nn.geometry import meta_copy
from gridsight.nn.net import Net
from gridsight.training.recipe import Tuning


class Tuned:
    """The layers of `net` by stage, and what `tuning` does to them."""

    def __init__(self, net: Net, tuning: Tuning, in_channels: int, spatial: Sequence[int]) -> None:
        self.tuning = tuning
        self.stages, self.count = stage_of_layers(net, in_channels, spatial)
        body = [module for name, module in net.named_modules() if self.stages[name] < self.count]
        self._parameters = [p for module in body for p in module.parameters(recurse=False)]
        self._norms = [module for module in body if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def scale(self, parameter: str) -> float:
        """What the rate is multiplied by for the parameter of that name."""
        stage = self.stages[parameter.rpartition(".")[0]]
        return self.tuning.spread ** ((self.count - stage) / self.count)

    def begin(self, epoch: int) -> None:
        """Freeze or free the stages for `epoch` (0 first); to be called after every `net.train()`."""
        frozen = epoch < self.tuning.frozen
        for parameter in self._parameters:
            parameter.requires_grad_(not frozen)
        for norm in self._norms:
            norm.train(not frozen)


def stage_of_layers(net: Net, in_channels: int, spatial: Sequence[int]) -> tuple[dict[str, int], int]:
    """The stage (0 first) that uses each module first, by its name, and how many stages there are: the head's number.

    The network itself, to which a class token belongs, is of stage 0.
    """
    ghost = meta_copy(net).float()
    first: dict[nn.Module, int] = {ghost: 0}
    stage = 0

    def note(module: nn.Module, inputs: Any) -> None:
        first.setdefault(module, stage)

    for module in ghost.modules():
        module.register_forward_pre_hook(note)
    with torch.no_grad():
        for _ in ghost.forward_stages(torch.empty(1, in_channels, *spatial, device="meta")):
            stage += 1
    return {name: first.get(module, stage) for name, module in ghost.named_modules()}, stage
