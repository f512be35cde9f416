"""Networks that are one list of blocks, `features`, then a linear head on the mean over cells, `classifier`.

That is how many publishers keep theirs, from MobileNet to ConvNeXt; the names are those of their state dicts.
"""

from collections.abc import Collection, Iterator, Sequence

from torch import Tensor, nn

from gridsight.nn import masked
from gridsight.nn.blocks import Step, grid_after
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net


class Chain(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); a stage ends after each block numbered in `ends`.

    `steps` are the kernels, strides and paddings that can use up the cells.
    """

    def __init__(
        self,
        features: Sequence[nn.Module],
        ends: Collection[int],
        classifier: nn.Sequential,
        steps: Sequence[Step] = (),
    ) -> None:
        super().__init__()
        self.features, self.classifier = nn.Sequential(*features), classifier
        self.ends, self.steps = frozenset(ends), steps

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        self.refuse_mask(mask)
        grid_after(Nd(x.dim() - 2), x.shape[2:], self.steps)
        for i, block in enumerate(self.features):
            x = block(x)
            if i in self.ends:
                yield x

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classifier(masked.mean(x, mask))


def ends_of(strides: Sequence[OneOrEach]) -> list[int]:
    """Numbers of the blocks that are the last of their size: the next one strides, or there is none.

    >>> ends_of([2, 1, (1, 2), 1, 1])
    [1, 4]
    """
    shrinks = [stride != 1 and set(stride if isinstance(stride, tuple) else (stride,)) != {1} for stride in strides]
    return [i for i, shrink in enumerate([*shrinks[1:], True]) if shrink]
