"""The contract of every network: stages, then a head.

`forward_stages` is a generator that yields the working tensor of each stage, so that segmentation heads, explainers
and the studio take what they need and plain inference keeps only the last one alive. Method names are verbs because
publishers' keys (`features`, `stages`, `head`) occupy the nouns.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from torch import Tensor, nn

from gridsight.core.errors import UsageError


class Net(nn.Module):
    """(N, in_channels, *spatial) -> logits (N, num_classes), stage by stage.

    A subclass takes `ndim`, `in_channels` and `num_classes` as keyword arguments, with the publisher's defaults; one
    that fixes the input size (a flatten head) takes `spatial` as well and keeps it as `self.spatial`. `small` holds
    arguments that, put over those of each variant, build it in under 200,000 parameters for the contract test;
    `others` holds a second value of each argument for which that test cannot guess one. `renames` maps a publisher's
    keys to its own by (pattern, replacement) in order.
    """

    small: ClassVar[dict[str, object]] = {}
    others: ClassVar[dict[str, object]] = {}
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()
    spatial: tuple[int, ...] | None = None

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

    def fit_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state under our keys as this network takes it: as it is, unless it comes in other shapes.

        A publisher's matrix over channels becomes a 1-tap kernel, a table for another input size is resized.
        """
        return dict(state)

    def refuse_mask(self, mask: Tensor | None) -> None:
        """Networks tagged `masked=False` say so instead of dropping a mask in silence."""
        if mask is not None:
            raise UsageError(f"{type(self).__name__} takes no mask: put items of equal size in a batch")

    def require_spatial(self, x: Tensor) -> None:
        """Refuse an input of another size than the flatten head was built for."""
        if tuple(x.shape[2:]) != self.spatial:
            raise UsageError(
                f"this {type(self).__name__} was built for spatial={self.spatial}, not {tuple(x.shape[2:])}: resize"
            )
