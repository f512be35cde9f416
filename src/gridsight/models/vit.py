"""ViT, the Vision Transformer: Dosovitskiy et al., arXiv:2010.11929; the small ones: Touvron et al. (DeiT), 2012.12877.

Patches become tokens by one convolution of the patch's kernel and stride, a class token joins them, learned positions
are added, and every block lets all tokens ask each other. The head reads the class token. Keys by renames: those of
torchvision and, for DeiT, the authors'; 2-D outputs equal torchvision's.

What differs:
- a size that is no multiple of the patch is filled up with zeros at the end; any size works.
- positions are a table for the size `spatial`; other sizes read it through the project's own resize (a triangle filter
  for any number of axes) where the publishers' code refuses them or uses bicubic interpolation.
- weights start as DeiT's; the paper's head starts at zero, which hides all other weights from the first step.
- the class token is carried in one more row before the first row of the grid of tokens, repeated along it, so that a
  stage says by itself which tokens lie where.
- under a mask padding is no token, and each item reads the positions of its own size.

Shapes in 2-D: (N, 3, 224, 224) -> (N, 768, 1 + 14, 14) after every block -> (N, 1000).
Over 150 lines because positions must fit three things: a checkpoint, an input, and each item under a mask.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn import masked
from gridsight.nn.attention import Block, SelfAttention, grid, narrow_init, pad_to_multiple, tokens
from gridsight.nn.dropout import Dropout, path_rates
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net
from gridsight.nn.resample import resize

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "spatial": (224, 224),
    "masked": True,
    "not_inflated": "more tokens leave the class token another share of every weighted mean",
}
PAPER = TAGS | {"paper": "arXiv:2010.11929", "publisher": "torchvision", "fingerprint_spatial": (224, 224)}
DEIT = TAGS | {"paper": "arXiv:2012.12877", "publisher": None}
BASE, LARGE = {"width": 768, "depth": 12, "heads": 12}, {"width": 1024, "depth": 24, "heads": 16}


@MODELS.register({"vit_b_16": BASE}, **PAPER, published=on_imagenet(81.07), parameters_published=86_567_656)
@MODELS.register(
    {"vit_b_32": BASE | {"patch": 32}}, **PAPER, published=on_imagenet(75.91), parameters_published=88_224_232
)
@MODELS.register({"vit_l_16": LARGE}, **PAPER, published=on_imagenet(79.66), parameters_published=304_326_632)
@MODELS.register(
    {"vit_l_32": LARGE | {"patch": 32}}, **PAPER, published=on_imagenet(76.97), parameters_published=306_535_400
)
@MODELS.register(
    {"deit_tiny": {"width": 192, "depth": 12, "heads": 3, "drop_path": 0.1}},
    **DEIT,
    published_name="deit_tiny_patch16_224",
    published=on_imagenet(72.2, "arXiv:2012.12877, table 5"),
    parameters_published=5_717_416,
)
@MODELS.register(
    {"deit_small": {"width": 384, "depth": 12, "heads": 6, "drop_path": 0.1}},
    **DEIT,
    published_name="deit_small_patch16_224",
    published=on_imagenet(79.8, "arXiv:2012.12877, table 5"),
    parameters_published=22_050_664,
)
class ViT(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); a stage is a block's tokens, see the file's head.

    `spatial` is the size that the table of positions is made for; `patch` the cells of a token on each axis, `width`
    its channels; `expansion` times as many are in the middle of each block's MLP. `dropout` follows the positions and
    every linear map but that of queries, keys and values; `drop_path` is the rate of the last block.
    """

    small: ClassVar[dict[str, object]] = {
        "width": 16,
        "depth": 2,
        "heads": 2,
        "patch": 4,
        "spatial": 18,
        "drop_path": 0.0,
    }
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^encoder\.layers\.encoder_layer_", "blocks."),
        (r"^encoder\.pos_embedding$|^pos_embed$", "positions"),
        (r"^cls_token$", "class_token"),
        (r"^conv_proj\.|^patch_embed\.proj\.", "embed."),
        (r"^encoder\.ln\.", "norm."),
        (r"^heads\.head\.|^head\.", "fc."),
        (r"\.ln_(\d)\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attention.qkv."),
        (r"\.self_attention\.out_proj\.|\.attn\.proj\.", ".attention.out."),
        (r"\.attn\.", ".attention."),
        (r"\.mlp\.(linear_1|fc1)\.", ".mlp.0."),
        (r"\.mlp\.(linear_2|fc2)\.", ".mlp.3."),
    )

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        spatial: OneOrEach = 224,
        patch: OneOrEach = 16,
        expansion: int = 4,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        self.patch = nd.each(patch)
        self.cells = tuple(-(-n // p) for n, p in zip(nd.each(spatial), self.patch, strict=True))
        self.embed = nd.Conv(in_channels, width, self.patch, self.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + prod(self.cells), width))
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, SelfAttention(width, heads), expansion, dropout, rate, eps=1e-6)
            for (rate,) in path_rates(drop_path, [1] * depth)
        )
        self.norm = nn.LayerNorm(width, 1e-6)
        self.fc = nn.Linear(width, num_classes)
        narrow_init(self)
        nn.init.trunc_normal_(self.embed.weight, std=(in_channels * prod(self.patch)) ** -0.5)
        nn.init.zeros_(self.embed.bias)
        for parameter in (self.class_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward_stages(self, x: Tensor, mask: masked.Mask = None) -> Iterator[Tensor]:
        x = self.embed(pad_to_multiple(masked.fill(x, mask), self.patch))
        mask = masked.shrink(mask, self.patch)
        cells = tuple(x.shape[2:])
        x = torch.cat([self.class_token.expand(len(x), -1, -1), tokens(x)], 1)
        x = self.dropout(x + self._positions(cells, mask))
        real = None if mask is None else pad(mask.flatten(1), (1, 0), value=True)  # the class token is
        for block in self.blocks:
            yield (stage := self._stage(block(x, real), cells))
            # from the stage itself, so that what is asked of its gradient is answered
            x = torch.cat([self._class(stage)[:, None], tokens(self.to_grid(stage))], 1)

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        return self.fc(self.norm(self._class(x)))

    def to_grid(self, x: Tensor) -> Tensor:
        return x[:, :, 1:]

    def fit_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Positions of a square (1, 1 + n^ndim, width) of another size are resized to the table of this network."""
        table = state.get("positions")
        if table is None or table.shape[1] == self.positions.shape[1]:
            return dict(state)
        side = round((table.shape[1] - 1) ** (1 / len(self.cells)))
        square = (side,) * len(self.cells)
        if prod(square) != table.shape[1] - 1:
            return dict(state)  # no square: the difference in shape is for the reader to see
        return {**state, "positions": resized(table, square, self.cells)}

    def _positions(self, cells: tuple[int, ...], mask: masked.Mask) -> Tensor:
        """The table (1 or N, 1 + T, width) for a grid of `cells`, of which each item uses those of the mask."""
        if mask is None:
            return resized(self.positions, self.cells, cells)
        tables = []
        for own in masked.lengths(mask).tolist():
            table = resized(self.positions, self.cells, own)
            missing = [side for have, n in zip(reversed(own), reversed(cells), strict=True) for side in (0, n - have)]
            around = pad(grid(table[:, 1:], own), missing)
            tables.append(torch.cat([table[:, :1], tokens(around)], 1))
        return torch.cat(tables)

    @staticmethod
    def _stage(x: Tensor, cells: tuple[int, ...]) -> Tensor:
        """(N, 1 + T, width) -> (N, width, 1 + cells[0], *cells[1:])."""
        row = x[:, 0].view(len(x), -1, *[1] * len(cells)).expand(-1, -1, 1, *cells[1:])
        return torch.cat([row, grid(x[:, 1:], cells)], 2)

    @staticmethod
    def _class(stage: Tensor) -> Tensor:
        """The class token (N, width) of a stage."""
        return stage.flatten(2)[:, :, 0]


def resized(table: Tensor, old: tuple[int, ...], new: tuple[int, ...] | list[int]) -> Tensor:
    """Positions (1, 1 + T, width) of a grid of `old` cells for one of `new` cells; the class token's stays."""
    if tuple(new) == tuple(old):
        return table
    return torch.cat([table[:, :1], tokens(resize(grid(table[:, 1:], old), new))], 1)
