"""Feature maps: what a layer says of one item, number for number what a forward hook sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.inside._reading import one_item, read
from gridsight.nn.undisturbed import undisturbed


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """`values` (C, *cells) of a layer for one item; `scale` is the largest absolute value, for all maps together."""

    layer: str
    values: Tensor

    @property
    def scale(self) -> float:
        return float(self.values.abs().max())


def feature_maps(net: nn.Module, item: Tensor, names: Sequence[str]) -> list[FeatureMaps]:
    """Of an item (C, *spatial) the maps of each layer, in one pass.

    >>> net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU())
    >>> feature_maps(net, torch.ones(1, 8), ["0"])[0].values.shape
    torch.Size([4, 6])
    """
    x = one_item(net, item)
    with undisturbed(net), torch.no_grad():
        _, written = read(net, x, names)
    for name in names:
        if written[name].dim() != x.dim():
            raise UsageError(f"layer {name!r} gives {tuple(written[name].shape)}: it has no grid of {x.dim() - 2} axes")
    return [FeatureMaps(name, written[name][0]) for name in names]
