"""Swin Transformer: Liu et al., arXiv:2103.14030. Keys by renames; 2-D outputs equal torchvision's.

Attention within windows that lie side by side, and in every second block half a window further on, so that what is far
apart meets after a few blocks and the work grows with the cells, not with their square. Between stages 2 cells an axis
become one token of twice the width.

What differs: works for any number of axes (after Video Swin, arXiv:2106.13230, a window has one size an axis), and a
size that is no multiple of the patch is filled up with zeros at the end.

Shapes in 2-D: (N, 3, 224, 224) -> stages (N, 96 * 2^i, 56 / 2^i, 56 / 2^i) -> (N, 1000).
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn import masked
from gridsight.nn.attention import Block, WindowAttention, narrow_init, pad_to_multiple
from gridsight.nn.dropout import path_rates
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:2103.14030",
    "publisher": "torchvision",
    "spatial": (224, 224),
    "masked": False,
    "unmasked": "where windows lie, and the zeros that fill them up, depend on the size of the whole batch",
    "not_inflated": "tables of offsets and the merging of cells have other sizes with another number of axes",
    "field_bounded": "windows lie still: what a cell sees depends on its place in its window, all is the upper bound",
}


class Merge(nn.Module):
    """2 cells an axis side by side, norm, linear: (N, *spatial, C) -> (N, *ceil(spatial / 2), 2 C)."""

    def __init__(self, ndim: int, width: int) -> None:
        super().__init__()
        self.ndim = ndim
        self.norm = nn.LayerNorm(width << ndim)
        self.reduction = nn.Linear(width << ndim, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, (2,) * self.ndim, 1)
        # the authors' order: the first axis varies fastest
        corners = [corner[::-1] for corner in product((0, 1), repeat=self.ndim)]
        parts = [x[(slice(None), *(slice(first, None, 2) for first in corner))] for corner in corners]
        return self.reduction(self.norm(torch.cat(parts, -1)))


@MODELS.register(
    {"swin_t": {"depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24), "drop_path": 0.2}},
    **TAGS,
    published=on_imagenet(81.47),
    parameters_published=28_288_354,
)
@MODELS.register(
    {"swin_s": {"depths": (2, 2, 18, 2), "heads": (3, 6, 12, 24), "drop_path": 0.3}},
    **TAGS,
    published=on_imagenet(83.20),
    parameters_published=49_606_258,
)
@MODELS.register(
    {"swin_b": {"depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "width": 128, "drop_path": 0.5}},
    **TAGS,
    published=on_imagenet(83.58),
    parameters_published=87_768_224,
)
class Swin(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 4, 8, 16, 32 (`patch` 4).

    `depths` and `heads` have one entry a stage, whose channels are `width` * 2^i. `patch` is the cells of a token and
    `window` the tokens of a window, one int or one an axis; `drop_path` is the rate of the last block.
    """

    small: ClassVar[dict[str, object]] = {
        "width": 8,
        "depths": (2, 1),
        "heads": (1, 2),
        "patch": 2,
        "window": 3,
        "drop_path": 0.0,
    }
    others: ClassVar[dict[str, object]] = {"heads": (2, 4)}
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^features\.0\.0\.", "embed."),
        (r"^features\.0\.2\.", "embed_norm."),
        (r"^features\.1\.", "stages.0."),
        (r"^features\.3\.", "stages.1."),
        (r"^features\.5\.", "stages.2."),
        (r"^features\.7\.", "stages.3."),
        (r"^features\.2\.", "merges.0."),
        (r"^features\.4\.", "merges.1."),
        (r"^features\.6\.", "merges.2."),
        (r"\.attn\.relative_position_bias_table$", ".attention.bias"),
        (r"\.attn\.relative_position_index$", ".attention.index"),
        (r"\.attn\.proj\.", ".attention.out."),
        (r"\.attn\.", ".attention."),
        (r"^head\.", "fc."),
    )

    def __init__(
        self,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: int = 96,
        patch: OneOrEach = 4,
        window: OneOrEach = 7,
        expansion: int = 4,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        self.patch = nd.each(patch)
        self.embed = nd.Conv(in_channels, width, self.patch, self.patch)
        self.embed_norm = nn.LayerNorm(width)
        self.stages = nn.ModuleList()
        for i, rates in enumerate(path_rates(drop_path, depths)):
            stage = nn.Sequential()
            for j, rate in enumerate(rates):
                attention = WindowAttention(nd, width << i, heads[i], window, shifted=j % 2 == 1)
                stage.append(Block(width << i, attention, expansion, path=rate))
            self.stages.append(stage)
        self.merges = nn.ModuleList(Merge(ndim, width << i) for i in range(len(depths) - 1))
        self.norm = nn.LayerNorm(width << len(depths) - 1)
        self.fc = nn.Linear(width << len(depths) - 1, num_classes)
        narrow_init(self)

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        self.refuse_mask(mask)
        x = self.embed_norm(self.embed(pad_to_multiple(x, self.patch)).movedim(1, -1))
        for i, stage in enumerate(self.stages):
            if i:
                x = self.merges[i - 1](x.movedim(1, -1))
            yield (x := stage(x).movedim(-1, 1))

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc(masked.mean(self.norm(x.movedim(1, -1)).movedim(-1, 1), None))
