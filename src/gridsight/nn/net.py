"""The contract of every network: stages, then a head.

`forward_stages` is a generator that yields the working tensor of each stage, so that segmentation heads, explainers
and the studio take what they need and plain inference keeps only the last one alive. Method names are verbs because
publishers' keys (`features`, `stages`, `head`) occupy the nouns.
"""

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn


class Net(nn.Module):
    """(N, in_channels, *spatial) -> logits (N, num_classes), stage by stage.

    A subclass takes `ndim`, `in_channels` and `num_classes` as keyword arguments; one that fixes the input size
    (a flatten head) takes `spatial` as well. `small` holds arguments that build it in under 200,000 parameters for
    the contract test; `renames` maps a publisher's keys to its own by (pattern, replacement) in order.
    """

    small: ClassVar[dict[str, object]] = {}
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the output of each stage, from the first to the last; `mask` (N, *spatial) marks the real cells."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward_stages")

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn the last stage into logits (N, num_classes)."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward_head")

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for stage in self.forward_stages(x, mask):
            x = stage
        return self.forward_head(x, mask)

    def forward_train(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """The logits, then any auxiliary outputs that only training uses."""
        return (self.forward(x, mask),)

    def to_grid(self, x: Tensor) -> Tensor:
        """A stage as (N, C, *spatial): the identity unless the network works on tokens."""
        return x
