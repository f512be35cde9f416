"""What a network that was trained on patches says of a whole item, whatever its size.

In tiles with exact halos where the network is local (`nn.tiled`): the answer is that of one pass over the item. Else,
and for a head of fixed size, the mean over windows of the patch's size (`nn.windows`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gridsight.core.errors import UsageError
from gridsight.nn.frontend import FrontEnd
from gridsight.nn.reach import reach_of, reader, require_equal
from gridsight.nn.tiled import tiled_logits
from gridsight.nn.windows import windowed_logits

OVERLAP = 0.5
"""Share of an axis that neighbouring windows have in common."""


class WholeItems:
    """Answers of one network, in eval mode, about items larger than the patches of `patch` cells it was trained on."""

    def __init__(self, net: Any, front: FrontEnd, channels: int, patch: Sequence[int]) -> None:
        self.net, self.front, self.patch = net, front, tuple(patch)
        try:
            reach = reach_of(net, channels, self.patch)
            require_equal(net, channels, reach)
            self.local = True
        except UsageError:
            self.local = False

    def logits(self, item: np.ndarray) -> Tensor:
        """Logits (1, K) of one item (C, *spatial); an axis shorter than the patch gets zeros, as in training."""
        spatial = tuple(max(have, least) for have, least in zip(item.shape[1:], self.patch, strict=True))
        if item.shape[1:] != spatial:
            item = np.pad(item, [(0, 0), *((0, w - h) for h, w in zip(item.shape[1:], spatial, strict=True))])
        if self.local:
            return tiled_logits(self.net, reader(item), spatial, front=self.front, check=False)
        return windowed_logits(self.net, reader(item), spatial, self.patch, overlap=OVERLAP, front=self.front)
