"""ConvNeXt: Liu, Mao, Wu, Feichtenhofer, Darrell and Xie, arXiv:2201.03545. torchvision's weights load and its 2-D
logits are ours.

A residual network brought step by step to the shape of a transformer (section 2): patches as stem, convolutions apart
between stages, depthwise 7-tap convolutions, one norm and one GELU a block, layer norm over channels. A branch is
multiplied by a small learned factor a channel (layer scale) and dropped at random in training (drop path).
Differs from torchvision in words alone: its linear layers over channels are 1-tap convolutions here.
Shapes, tiny in 2-D: (N, 3, 224, 224) -> (N, 96, 56, 56) -> 28, 14, 7 cells -> (N, 768, 7, 7) -> (N, 1000).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn.blocks import ChannelNorm, PerStage, per_stage, same_conv
from gridsight.nn.chain import Chain
from gridsight.nn.dropout import DropPath, path_rates
from gridsight.nn.nd import Nd, OneOrEach

EPS = 1e-6  # of every norm
TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:2201.03545",
    "spatial": (224, 224),
    "publisher": "torchvision",
    "masked": False,
    "unmasked": "a patch at the end of an item would hold cells from beyond a mask",
}


class Block(nn.Module):
    """x + drop(scale * narrow(gelu(widen(norm(conv(x)))))): (N, width, *spatial) to the same shape."""

    def __init__(self, nd: Nd, width: int, kernel: OneOrEach, layer_scale: float, drop: float) -> None:
        super().__init__()
        self.conv = same_conv(nd, width, width, kernel, groups=width, bias=True)
        self.norm = ChannelNorm(width, EPS)
        self.widen, self.narrow = nd.Conv(width, 4 * width, 1), nd.Conv(4 * width, width, 1)
        self.gelu, self.drop = nn.GELU(), DropPath(drop)
        self.layer_scale = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(self.gelu(self.widen(self.norm(self.conv(x)))))
        return x + self.drop(self.layer_scale.view(-1, *[1] * (x.dim() - 2)) * y)


@MODELS.register(
    {"convnext_tiny": {"widths": (96, 192, 384, 768), "depths": (3, 3, 9, 3), "drop_path": 0.1}},
    **TAGS,
    published=on_imagenet(82.52),
    parameters_published=28_589_128,
)
@MODELS.register(
    {"convnext_small": {"widths": (96, 192, 384, 768), "depths": (3, 3, 27, 3), "drop_path": 0.4}},
    **TAGS,
    published=on_imagenet(83.62),
    parameters_published=50_223_688,
)
@MODELS.register(
    {"convnext_base": {"widths": (128, 256, 512, 1024), "depths": (3, 3, 27, 3), "drop_path": 0.5}},
    **TAGS,
    published=on_imagenet(84.06),
    parameters_published=88_591_464,
)
@MODELS.register(
    {"convnext_large": {"widths": (192, 384, 768, 1536), "depths": (3, 3, 27, 3), "drop_path": 0.5}},
    **TAGS,
    published=on_imagenet(84.41),
    parameters_published=197_767_336,
)
class ConvNeXt(Chain):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 4, 8, 16, 32.

    `patch` is the kernel and stride of the stem, `strides` those of the convolutions between stages (one int, or one
    entry each), as ints or one int an axis; `kernel` is of the depthwise convolutions.
    `drop_path` is the rate at which the last block drops its branch, from 0 at the first.
    """

    # a layer scale of 1e-6 would hide the blocks from a test in 32 bits
    small: ClassVar[dict[str, object]] = {
        "widths": (8, 12),
        "depths": (1, 2),
        "kernel": 3,
        "drop_path": 0.1,
        "layer_scale": 0.5,
    }
    others: ClassVar[dict[str, object]] = {"strides": 1}
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"\.block\.0\.", ".conv."),
        (r"\.block\.2\.", ".norm."),
        (r"\.block\.3\.", ".widen."),
        (r"\.block\.5\.", ".narrow."),
        (r"^classifier\.2\.", "classifier.1."),
    )

    def __init__(
        self,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        patch: OneOrEach = 4,
        strides: PerStage = 2,
        kernel: OneOrEach = 7,
        drop_path: float = 0.0,
        layer_scale: float = 1e-6,
    ) -> None:
        nd = Nd(ndim)
        stem = nn.Sequential(nd.Conv(in_channels, widths[0], patch, patch), ChannelNorm(widths[0], EPS))
        strides = per_stage(strides, len(widths) - 1, "strides")
        between = [
            nn.Sequential(ChannelNorm(a, EPS), nd.Conv(a, b, stride, stride))
            for (a, b), stride in zip(pairwise(widths), strides, strict=True)
        ]
        stages = [
            nn.Sequential(*(Block(nd, width, kernel, layer_scale, drop) for drop in rates))
            for width, rates in zip(widths, path_rates(drop_path, depths), strict=True)
        ]
        features = [part for pair in zip([stem, *between], stages, strict=True) for part in pair]
        classifier = nn.Sequential(nn.LayerNorm(widths[-1], EPS), nn.Linear(widths[-1], num_classes))
        steps = [(stride, stride, 0) for stride in (patch, *strides)]
        super().__init__(features, range(1, len(features), 2), classifier, steps)
        for module in self.modules():
            if isinstance(module, nd.Conv | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def fit_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's matrices over channels as 1-tap kernels, its layer scales (C, 1, 1) as (C,)."""
        own = self.state_dict()
        alike = {key for key in state.keys() & own.keys() if state[key].squeeze().shape == own[key].squeeze().shape}
        return {key: value.reshape(own[key].shape) if key in alike else value for key, value in state.items()}
