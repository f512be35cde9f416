"""Networks of named parts, one after the other, some of which an auxiliary head reads in training."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from gridsight.nn import masked
from gridsight.nn.blocks import Step, grid_after
from gridsight.nn.nd import Nd
from gridsight.nn.net import Net


class Staged(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); a linear head on the mean over cells, after dropout.

    A subclass sets: `parts`, the names of its modules, one list a stage; `heads`, the names of auxiliary heads by the
    part they read; `steps`, all kernels, strides and paddings that can use up the cells; `nd`, `dropout` and `fc`.
    """

    parts: list[list[str]]
    heads: Mapping[str, str]
    steps: Sequence[Step]
    nd: Nd
    dropout: nn.Module
    fc: nn.Module

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        ends = {stage[-1] for stage in self.parts}
        for name, out in self._walk(x, mask):
            if name in ends:
                yield out

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc(self.dropout(masked.mean(x, mask)))

    def forward_train(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """The logits; in training those of the auxiliary heads too."""
        others, out = [], x
        for name, out in self._walk(x, mask):
            if self.training and name in self.heads:
                others.append(self.get_submodule(self.heads[name])(out))
        return (self.forward_head(out, mask), *others)

    def _walk(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """Each part's name and what it puts out."""
        self.refuse_mask(mask)
        grid_after(self.nd, x.shape[2:], self.steps)
        for stage in self.parts:
            for name in stage:
                x = self.get_submodule(name)(x)
                yield name, x
