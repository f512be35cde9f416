"""ResNet: He, Zhang, Ren and Sun, arXiv:1512.03385; with pre-activation: arXiv:1603.05027.

Two forms, both of the paper. For large inputs (section 4.1): a 7-tap stem with stride 2, a max pool, four stages;
keys and 2-D outputs equal torchvision's. For small ones (section 4.2): a 3-tap stem, three stages of widths 16, 32
and 64, shortcuts without parameters (option A); keys and outputs equal akamaster/pytorch_resnet_cifar10's, whose
`module.` prefix `renames` takes off.

What differs from the papers:
- a bottleneck strides on its k-tap convolution, as torchvision's, not on its first 1-tap convolution.
- the stride of a projection is the block's, per axis; kernels, strides and dilations may be given a stage and an axis.
- pre-activation follows the appendix of 1603.05027: the first activation stands right after the stem's convolution,
  before the two paths part, and one more follows the last sum; a projecting shortcut reads the activated tensor.

Shapes, large form in 2-D: (N, 3, 224, 224) -> stem (N, 64, 112, 112) -> 56, 28, 14, 7 cells -> (N, 1000).
Over 150 lines because it holds the table of the whole family with the published numbers.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import pad

from gridsight.core.errors import UsageError
from gridsight.models import MODELS
from gridsight.nn import masked
from gridsight.nn.blocks import PerStage, per_stage, same_conv
from gridsight.nn.nd import Nd, OneOrEach, he_init
from gridsight.nn.net import Net

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "masked": True,
}
LARGE = TAGS | {"paper": "arXiv:1512.03385", "spatial": (224, 224), "publisher": "torchvision"}
SMALL = TAGS | {"paper": "arXiv:1512.03385", "spatial": (32, 32)}
PRE: dict[str, Any] = {"paper": "arXiv:1603.05027", "parameters_published": None, "publisher": None}
CIFAR: dict[str, Any] = {
    "width": 16,
    "stem_kernel": 3,
    "stem_stride": 1,
    "stem_pool": 1,
    "shortcut": "pad",
    "head": "linear",
    "num_classes": 10,
}


class Pad(nn.Module):
    """Option A, a shortcut without parameters: every `stride`-th cell, the new channels zero, half on either side."""

    def __init__(self, stride: tuple[int, ...], new_channels: int) -> None:
        super().__init__()
        self.cells = (slice(None), slice(None), *(slice(None, None, s) for s in stride))
        self.padding = (0, 0) * len(stride) + (new_channels // 2, new_channels - new_channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        return pad(x[self.cells], self.padding)


class Block(nn.Module):
    """relu(shortcut(x) + residual(x)); the residual is k-k convolutions, or 1-k-1 in a bottleneck, each with a norm."""

    pre: ClassVar[bool] = False

    def __init__(
        self,
        nd: Nd,
        c_in: int,
        width: int,
        bottleneck: bool,
        kernel: OneOrEach,
        stride: OneOrEach,
        dilation: OneOrEach,
        shortcut: str,
        activated: bool,
    ) -> None:
        super().__init__()
        c_out = 4 * width if bottleneck else width
        norms = (c_in, width, width) if self.pre else (width, width, c_out)
        taps = kernel, stride, dilation
        convs: list[tuple[Any, ...]] = [(c_in, width, *taps), (width, c_out, kernel, 1, dilation)]
        if bottleneck:
            convs = [(c_in, width, 1), (width, width, *taps), (width, c_out, 1)]
        # a block after the stem gets an activated tensor: with pre-activation its first norm would be a second one
        self.bn1 = nn.Identity() if self.pre and activated else nd.BatchNorm(norms[0])
        self.conv1 = same_conv(nd, *convs[0])
        self.conv2, self.bn2 = same_conv(nd, *convs[1]), nd.BatchNorm(norms[1])
        self.conv3 = same_conv(nd, *convs[2]) if bottleneck else None
        self.bn3 = nd.BatchNorm(norms[2]) if bottleneck else None

        self.stride = nd.each(stride)
        self.projects = c_in != c_out or any(s != 1 for s in self.stride)
        self.downsample: nn.Module = nn.Identity()
        if not self.projects:
            return
        if shortcut == "pad":
            self.downsample = Pad(nd.each(stride), c_out - c_in)
        elif self.pre:
            self.downsample = same_conv(nd, c_in, c_out, 1, stride)
        else:
            self.downsample = nn.Sequential(same_conv(nd, c_in, c_out, 1, stride), nd.BatchNorm(c_out))

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        after = masked.shrink(mask, self.stride)
        inner = mask if self.conv3 is not None else after  # a bottleneck strides on its second convolution
        y = masked.norm(self.bn1, self.conv1(masked.fill(x, mask)), inner).relu()
        y = masked.norm(self.bn2, self.conv2(masked.fill(y, inner)), after)
        if self.conv3 is not None and self.bn3 is not None:
            y = masked.norm(self.bn3, self.conv3(y.relu()), after)
        return (y + self.shortcut(x, after)).relu()

    def shortcut(self, x: Tensor, after: masked.Mask) -> Tensor:
        """x in the shape of the residual; 1-tap convolutions read no cell's neighbours."""
        if not isinstance(self.downsample, nn.Sequential):
            return self.downsample(x)
        return masked.norm(self.downsample[1], self.downsample[0](x), after)

    def make_identity(self) -> None:
        """Start with residual 0."""
        nn.init.zeros_((self.bn3 or self.bn2).get_parameter("weight"))


class PreBlock(Block):
    """shortcut(x) + residual(x) with a norm and a relu before each convolution; a projection reads relu(norm(x))."""

    pre = True

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        after = masked.shrink(mask, self.stride)
        inner = mask if self.conv3 is not None else after
        activated = masked.norm(self.bn1, x, mask).relu()
        y = masked.norm(self.bn2, self.conv1(masked.fill(activated, mask)), inner).relu()
        y = self.conv2(masked.fill(y, inner))
        if self.conv3 is not None and self.bn3 is not None:
            y = self.conv3(masked.norm(self.bn3, y, after).relu())
        return y + self.shortcut(activated if self.projects else x, after)

    def make_identity(self) -> None:
        """Start with residual 0: no norm follows the last convolution, so its own weights are zero."""
        nn.init.zeros_((self.conv3 or self.conv2).get_parameter("weight"))


def on_imagenet(top1: float) -> str:
    """The published accuracy in words, of torchvision's first weights."""
    return f"{top1:.2f} % top-1 on ImageNet, torchvision V1 weights"


def on_cifar10(top1: float, where: str = "arXiv:1512.03385, table 6") -> str:
    """The published accuracy in words, of a CIFAR-10 network."""
    return f"{top1:.2f} % on CIFAR-10 ({where})"


@MODELS.register(
    {"resnet18": {"depths": (2, 2, 2, 2)}}, **LARGE, published=on_imagenet(69.76), parameters_published=11_689_512
)
@MODELS.register(
    {"resnet34": {"depths": (3, 4, 6, 3)}}, **LARGE, published=on_imagenet(73.31), parameters_published=21_797_672
)
@MODELS.register(
    {"resnet50": {"depths": (3, 4, 6, 3), "bottleneck": True}},
    **LARGE,
    published=on_imagenet(76.13),
    parameters_published=25_557_032,
)
@MODELS.register(
    {"resnet101": {"depths": (3, 4, 23, 3), "bottleneck": True}},
    **LARGE,
    published=on_imagenet(77.37),
    parameters_published=44_549_160,
)
@MODELS.register(
    {"resnet152": {"depths": (3, 8, 36, 3), "bottleneck": True}},
    **LARGE,
    published=on_imagenet(78.31),
    parameters_published=60_192_808,
)
@MODELS.register(
    {"resnet20": CIFAR | {"depths": (3, 3, 3)}}, **SMALL, published=on_cifar10(91.25), parameters_published=269_722
)
@MODELS.register(
    {"resnet32": CIFAR | {"depths": (5, 5, 5)}}, **SMALL, published=on_cifar10(92.49), parameters_published=464_154
)
@MODELS.register(
    {"resnet44": CIFAR | {"depths": (7, 7, 7)}}, **SMALL, published=on_cifar10(92.83), parameters_published=658_586
)
@MODELS.register(
    {"resnet56": CIFAR | {"depths": (9, 9, 9)}}, **SMALL, published=on_cifar10(93.03), parameters_published=853_018
)
@MODELS.register(
    {"resnet110": CIFAR | {"depths": (18, 18, 18)}},
    **SMALL,
    published=on_cifar10(93.57),
    parameters_published=1_727_962,
)
@MODELS.register({"preact_resnet18": {"depths": (2, 2, 2, 2), "pre": True}}, **(LARGE | PRE), published=None)
@MODELS.register(
    {"preact_resnet50": {"depths": (3, 4, 6, 3), "bottleneck": True, "pre": True}}, **(LARGE | PRE), published=None
)
@MODELS.register({"preact_resnet20": CIFAR | {"depths": (3, 3, 3), "pre": True}}, **(SMALL | PRE), published=None)
@MODELS.register(
    {"preact_resnet110": CIFAR | {"depths": (18, 18, 18), "pre": True}},
    **(SMALL | PRE),
    published=on_cifar10(93.63, "arXiv:1603.05027, table 2"),
)
@MODELS.register(
    {"preact_resnet164": CIFAR | {"depths": (18, 18, 18), "bottleneck": True, "pre": True}},
    **(SMALL | PRE),
    published=on_cifar10(94.54, "arXiv:1603.05027, table 2"),
)
class ResNet(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes).

    Stages: the stem (before its pool), then one a group of blocks, at strides 2, 4, 8, 16, 32 (large form) or
    1, 1, 2, 4 (small form). Stage i has `width` * 2^i channels, four times as many in a bottleneck.
    `kernels`, `strides` and `dilations` are one int for all stages or one entry a stage, each an int or one int an
    axis; padding keeps ceil(cells / stride) cells. `stem_pool` is the stride of the stem's 3-cell max pool, which an
    axis of stride 1 goes without. `shortcut` is "project" (option B) or "pad" (option A) where shape
    changes. `zero_init` makes every block start as its shortcut. `head` is the publisher's name of the last layer.
    """

    small: ClassVar[dict[str, object]] = {"depths": (1, 2), "width": 4, "strides": (1, 2)}
    others: ClassVar[dict[str, object]] = {"shortcut": "pad", "head": "classifier"}
    renames: ClassVar[tuple[tuple[str, str], ...]] = ((r"^module\.", ""),)

    def __init__(
        self,
        depths: Sequence[int],
        bottleneck: bool = False,
        pre: bool = False,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: int = 64,
        stem_kernel: OneOrEach = 7,
        stem_stride: OneOrEach = 2,
        stem_pool: OneOrEach = 2,
        kernels: PerStage = 3,
        strides: PerStage | None = None,
        dilations: PerStage = 1,
        shortcut: str = "project",
        zero_init: bool = False,
        head: str = "fc",
    ) -> None:
        super().__init__()
        if shortcut not in ("project", "pad"):
            raise UsageError(f"shortcut must be 'project' or 'pad', not {shortcut!r}")
        nd, block, c = Nd(ndim), PreBlock if pre else Block, width
        self.conv1, self.bn1 = same_conv(nd, in_channels, c, stem_kernel, stem_stride), nd.BatchNorm(c)
        pool = nd.each(stem_pool)
        windows = tuple(3 if s > 1 else 1 for s in pool)
        self.maxpool = nd.MaxPool(windows, pool, tuple(k // 2 for k in windows)) if max(pool) > 1 else nn.Identity()

        kernels = per_stage(kernels, len(depths), "kernels")
        strides = per_stage((1,) + (2,) * (len(depths) - 1) if strides is None else strides, len(depths), "strides")
        dilations = per_stage(dilations, len(depths), "dilations")
        for i, depth in enumerate(depths):
            layer = nn.Sequential()
            for j in range(depth):
                taps = kernels[i], 1 if j else strides[i], dilations[i]
                layer.append(block(nd, c, width << i, bottleneck, *taps, shortcut, activated=i == j == 0))
                c = (width << i) * (4 if bottleneck else 1)
            self.add_module(f"layer{i + 1}", layer)
        self.norm = nd.BatchNorm(c) if pre else None
        self.head = head
        self.stem_stride, self.stem_pool, self.strides = nd.each(stem_stride), pool, [nd.each(s) for s in strides]
        self.add_module(head, nn.Linear(c, num_classes))
        he_init(self)
        if zero_init:
            for module in self.modules():
                if isinstance(module, Block):
                    module.make_identity()

    def forward_stages(self, x: Tensor, mask: masked.Mask = None) -> Iterator[Tensor]:
        x, mask = self.conv1(masked.fill(x, mask)), masked.shrink(mask, self.stem_stride)
        yield (x := masked.norm(self.bn1, x, mask).relu())
        if max(self.stem_pool) > 1:
            x, mask = masked.max_pool(self.maxpool, x, mask), masked.shrink(mask, self.stem_pool)
        for i in range(len(self.strides)):
            for block in self.get_submodule(f"layer{i + 1}").children():
                x, mask = block(x, mask), masked.shrink(mask, block.stride)  # type: ignore[arg-type]
            yield x

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        mask = masked.shrink(mask, self.stem_stride, self.stem_pool, *self.strides)
        x = x if self.norm is None else masked.norm(self.norm, x, mask).relu()
        return self.get_submodule(self.head)(masked.mean(x, mask))
