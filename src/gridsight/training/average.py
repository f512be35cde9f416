"""Exponential moving average of weights and of norm statistics: a_t = d a_{t-1} + (1 - d) w_t.

Started at the initial weights and corrected by a growing decay, min(d, (1 + t) / (10 + t)), so that early steps do not
hold the average back (the rule of TensorFlow's ExponentialMovingAverage). Integer buffers are copied.
"""

import torch
from torch import Tensor, nn


class Average:
    """The running average of a network's state; `decay` 0 follows the weights exactly."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state: dict[str, Tensor] = {}
        self._pairs: list[tuple[Tensor, Tensor]] = []
        # in-place updates and `load_state_dict` keep these tensors, so they are looked up once, not every step
        for name, value in net.state_dict(keep_vars=False).items():
            self.state[name] = value.detach().clone()
            self._pairs.append((self.state[name], value.detach()))
        floats = [pair for pair in self._pairs if pair[0].is_floating_point()]
        self._averaged, self._current = [a for a, _ in floats], [w for _, w in floats]
        self._counters = [pair for pair in self._pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step` (0 first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        for average, value in self._counters:
            average.copy_(value)
