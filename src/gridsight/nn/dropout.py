"""Dropout whose zeros belong to the items: a pure function of (seed, epoch, item, layer), not of a generator's state.

A generator deals its numbers to the cells of a batch in order, so an item that another process computes, or that moves
to another part of the batch, would meet other zeros. Here `numbered` says which items a forward pass is about, and
each of them meets the same zeros in any batch, part or process. Without it the layer is `torch.nn.Dropout` (Srivastava
et al., JMLR 15, 2014; what is kept is divided by the share that is kept). It is also the faster of the two: one hash
serves four cells.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from torch import Tensor, nn

from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError

_RANGE = 1 << 16


class Dropout(nn.Dropout):
    """Any (N, ...) to the same shape; in training each cell is zero with probability `p`, rounded to a 65,536th."""

    draw: Callable[[int], Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self.draw is None or not self.training or not 0 < self.p < 1:
            return super().forward(input)
        dropped = min(_RANGE - 1, round(self.p * _RANGE))
        keep = self.draw(input[0].numel()) >= dropped - _RANGE // 2
        return input * keep.view(input.shape).to(input.dtype).mul_(_RANGE / (_RANGE - dropped))


class DropPath(Dropout):
    """Any (N, ...) to the same shape; in training an item's whole branch is zero with probability `p`, as the rest is
    divided by the share that is kept (stochastic depth: Huang et al., arXiv:1603.09382)."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        ones = input.new_ones(len(input), *[1] * (input.dim() - 1))
        return input * super().forward(ones)


def path_rates(most: float, depths: Sequence[int]) -> list[list[float]]:
    """A rate of `DropPath` for each block of each stage: from 0 at the first block to `most` at the last, linearly.

    >>> path_rates(0.3, (1, 3))
    [[0.0], [0.1, 0.2, 0.3]]
    """
    rates = iter(np.linspace(0, most, sum(depths)).round(12).tolist())
    return [[next(rates) for _ in range(depth)] for depth in depths]


@contextmanager
def sampling(net: nn.Module) -> Iterator[None]:
    """Within it, a network that answers (`net.eval()`) drops as in training, while its norms stay as they are.

    Each pass is then one draw of the network's weights (Monte-Carlo dropout: Gal and Ghahramani, arXiv:1506.02142): the
    mean of the probabilities of many passes is the answer, their spread how far the network is from knowing. A network
    without dropout is a `UsageError`, as all its passes are the same.
    """
    layers = [module for module in net.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    if not layers:
        raise UsageError(f"{type(net).__name__} drops nothing, so all passes are the same; build it with dropout=0.1")
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.train(training)


@contextmanager
def numbered(net: nn.Module, seed: int, epoch: int, items: Tensor) -> Iterator[None]:
    """Within it, what `net` drops follows from the numbers `items` (N,) int64 of the items that it is given."""
    layers = [module for module in net.modules() if isinstance(module, Dropout)]
    for number, layer in enumerate(layers):
        layer.draw = partial(hashing.shorts, seed, epoch, items, f"dropout {number}")
    try:
        yield
    finally:
        for layer in layers:
            layer.draw = None
