"""DenseNet-BC: Huang, Liu, van der Maaten and Weinberger, arXiv:1608.06993. torchvision's 2-D logits.

Every layer reads all that came before it in its block and adds `growth` channels; between blocks a transition halves
the channels and the cells. `memory_efficient` keeps no concatenated and normalised copies for the backward pass but
makes them again (Pleiss et al., arXiv:1707.06990): equal gradients and running statistics, less memory, more time.
(torchvision's option of that name counts each batch twice in the running statistics; here it does not.)
Shapes in 2-D: (N, 3, 224, 224) -> stem (N, 64, 112, 112) -> blocks at 56, 28, 14, 7 cells -> (N, 1024, 7, 7) ->
(N, 1000) for DenseNet-121. Over 150 lines because it holds the table of the family.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn import masked
from gridsight.nn.blocks import Step, grid_after, same_conv
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:1608.06993",
    "spatial": (224, 224),
    "publisher": "torchvision",
    "masked": False,
    "unmasked": "its average pools drop the last cell of an odd size",
    "cost_only": {"memory_efficient": "recomputes in the backward pass what it does not keep: the same gradients"},
}


@contextmanager
def frozen(norm: Any) -> Iterator[None]:
    """Within it, a batch norm in training takes the batch's statistics and leaves the running ones as they are."""
    momentum, counted = norm.momentum, norm.num_batches_tracked
    norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        norm.momentum, norm.num_batches_tracked = momentum, counted


class DenseLayer(nn.Module):
    """Norm, ReLU, 1-tap convolution, norm, ReLU, k-tap convolution: all maps so far -> (N, growth, *spatial)."""

    def __init__(
        self, nd: Nd, c_in: int, width: int, growth: int, kernel: OneOrEach, dropout: float, memory_efficient: bool
    ) -> None:
        super().__init__()
        self.norm1, self.conv1 = nd.BatchNorm(c_in), same_conv(nd, c_in, width, 1)
        self.norm2, self.conv2 = nd.BatchNorm(width), same_conv(nd, width, growth, kernel)
        self.dropout = Dropout(dropout)
        self.memory_efficient = memory_efficient

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        if self.memory_efficient and torch.is_grad_enabled():
            x = checkpoint(
                self._squeeze, *maps, use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts
            )
        else:
            x = self._squeeze(*maps)
        return self.dropout(self.conv2(self.norm2(x).relu()))

    def _squeeze(self, *maps: Tensor) -> Tensor:
        return self.conv1(self.norm1(torch.cat(maps, 1)).relu())

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Around the first computation, and around the second: each batch counts once."""
        return nullcontext(), frozen(self.norm1)


class DenseBlock(nn.Module):
    """(N, c_in, *spatial) -> (N, c_in + depth growth, *spatial)."""

    def __init__(self, nd: Nd, c_in: int, depth: int, growth: int, bottleneck: int, *options: Any) -> None:
        super().__init__()
        for i in range(depth):
            layer = DenseLayer(nd, c_in + i * growth, bottleneck * growth, growth, *options)
            self.add_module(f"layer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.children():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


@MODELS.register(
    {"densenet121": {"depths": (6, 12, 24, 16)}},
    **TAGS,
    published=on_imagenet(74.43),
    parameters_published=7_978_856,
)
@MODELS.register(
    {"densenet169": {"depths": (6, 12, 32, 32)}},
    **TAGS,
    published=on_imagenet(75.60),
    parameters_published=14_149_480,
)
@MODELS.register(
    {"densenet201": {"depths": (6, 12, 48, 32)}},
    **TAGS,
    published=on_imagenet(76.90),
    parameters_published=20_013_928,
)
@MODELS.register(
    {"densenet161": {"depths": (6, 12, 36, 24), "growth": 48, "width": 96}},
    **TAGS,
    published=on_imagenet(77.14),
    parameters_published=28_681_000,
)
class DenseNet(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2, 4, 8, 16, 32.

    Stages: the stem (before its pool), then one a dense block. `width` are the stem's channels; a layer squeezes to
    `bottleneck` times `growth` channels first.
    """

    small: ClassVar[dict[str, object]] = {"depths": (1, 2), "growth": 4, "width": 6, "bottleneck": 2}
    # the published files have `norm.1`, torchvision's own networks `norm1`
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^features\.norm5\.", "norm."),
        (r"^features\.", ""),
        (r"^denseblock(\d+)\.denselayer(\d+)\.", r"block\1.layer\2."),
        (r"(layer\d+\.(?:norm|conv))\.", r"\1"),
    )

    def __init__(
        self,
        depths: tuple[int, ...],
        growth: int = 32,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: int = 64,
        bottleneck: int = 4,
        kernel: OneOrEach = 3,
        stem_kernel: OneOrEach = 7,
        stem_stride: OneOrEach = 2,
        dropout: float = 0.0,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        nd, c = Nd(ndim), width
        self.conv0, self.norm0 = same_conv(nd, in_channels, c, stem_kernel, stem_stride), nd.BatchNorm(c)
        self.pool0 = nd.MaxPool(3, 2, 1)
        self.depth = len(depths)
        for i, depth in enumerate(depths):
            if i:
                parts = {"norm": nd.BatchNorm(c), "relu": nn.ReLU(), "conv": same_conv(nd, c, c // 2, 1)}
                self.add_module(f"transition{i}", nn.Sequential(OrderedDict(parts, pool=nd.AvgPool(2))))
                c //= 2
            block = DenseBlock(nd, c, depth, growth, bottleneck, kernel, dropout, memory_efficient)
            self.add_module(f"block{i + 1}", block)
            c += depth * growth
        self.norm = nd.BatchNorm(c)
        self.classifier = nn.Linear(c, num_classes)
        self.nd = nd
        # the stem is centred: it keeps a cell of any size
        self.steps: list[Step] = [(1, stem_stride, 0), (1, 2, 0), *[(2, 2, 0)] * (len(depths) - 1)]
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        self.refuse_mask(mask)
        grid_after(self.nd, x.shape[2:], self.steps)
        yield (x := self.norm0(self.conv0(x)).relu())
        x = self.pool0(x)
        for i in range(self.depth):
            if i:
                x = self.get_submodule(f"transition{i}")(x)
            yield (x := self.get_submodule(f"block{i + 1}")(x))

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classifier(masked.mean(self.norm(x).relu(), None))
