"""ResNet and its descendants: He, Zhang, Ren and Sun, arXiv:1512.03385; the blocks lie in `nn/residual.py`.

Two forms, both of the paper. For large inputs (section 4.1): a 7-tap stem with stride 2, a max pool, four stages;
keys and 2-D outputs equal torchvision's. For small ones (section 4.2): a 3-tap stem, three stages of widths 16, 32
and 64, shortcuts without parameters (option A); keys and outputs equal akamaster/pytorch_resnet_cifar10's, whose
`module.` prefix `renames` takes off. Descendants are arguments of the same body:
- `pre`, pre-activation (arXiv:1603.05027);
- `groups` and `widen`, of the k-tap convolutions: ResNeXt (arXiv:1611.05431) and Wide ResNet (arXiv:1605.07146);
- `gate` on each residual: SE-ResNet (arXiv:1709.01507) and CBAM (arXiv:1807.06521);
- `blur` in place of each stride but the stem's: antialiased (arXiv:1904.11486).

What differs from the papers:
- a bottleneck strides on its k-tap convolution, as torchvision's, not on its first 1-tap convolution.
- the stride of a projection is the block's, per axis; kernels, strides and dilations may be given a stage and an axis.
- pre-activation follows the appendix of 1603.05027: the first activation stands right after the stem's convolution,
  before the two paths part, and one more follows the last sum; a projecting shortcut reads the activated tensor.
- Wide ResNets have no dropout between the convolutions of a block, as in one of the two rows of their paper's table 5.
- the antialiased stem keeps its max pool of 3 cells, at stride 1; the authors' code takes 2 (see `nn/blurpool.py`).

Shapes, large form in 2-D: (N, 3, 224, 224) -> stem (N, 64, 112, 112) -> 56, 28, 14, 7 cells -> (N, 1000).
Over 150 lines because it holds the table of the whole family with the published numbers.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn import masked
from gridsight.nn.blocks import PerStage, per_stage, same_conv
from gridsight.nn.blurpool import BlurPool
from gridsight.nn.nd import Nd, OneOrEach, he_init
from gridsight.nn.net import Net
from gridsight.nn.residual import GATES, Block, PreBlock

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "masked": True,
}
LARGE = TAGS | {"paper": "arXiv:1512.03385", "spatial": (224, 224), "publisher": "torchvision"}
SMALL = TAGS | {"paper": "arXiv:1512.03385", "spatial": (32, 32)}
PRE: dict[str, Any] = {"paper": "arXiv:1603.05027", "parameters_published": None, "publisher": None}
NEXT = {"paper": "arXiv:1611.05431"}
WIDE = {"paper": "arXiv:1605.07146"}
SE: dict[str, Any] = {"paper": "arXiv:1709.01507", "publisher": None}
CBAM: dict[str, Any] = {"paper": "arXiv:1807.06521", "publisher": None}
BLUR: dict[str, Any] = {"paper": "arXiv:1904.11486", "publisher": None}
CIFAR: dict[str, Any] = {
    "width": 16,
    "stem_kernel": 3,
    "stem_stride": 1,
    "stem_pool": 1,
    "shortcut": "pad",
    "head": "linear",
    "num_classes": 10,
}
WRN: dict[str, Any] = CIFAR | {"pre": True, "shortcut": "project"}
DEEP: dict[str, Any] = {"depths": (3, 4, 6, 3), "bottleneck": True}
DEEPER: dict[str, Any] = {"depths": (3, 4, 23, 3), "bottleneck": True}


def on_cifar10(top1: float, where: str = "arXiv:1512.03385, table 6") -> str:
    """The published accuracy in words, of a CIFAR-10 network."""
    return f"{top1:.2f} % on CIFAR-10 ({where})"


@MODELS.register(
    {"resnet18": {"depths": (2, 2, 2, 2)}}, **LARGE, published=on_imagenet(69.76), parameters_published=11_689_512
)
@MODELS.register(
    {"resnet34": {"depths": (3, 4, 6, 3)}}, **LARGE, published=on_imagenet(73.31), parameters_published=21_797_672
)
@MODELS.register({"resnet50": DEEP}, **LARGE, published=on_imagenet(76.13), parameters_published=25_557_032)
@MODELS.register({"resnet101": DEEPER}, **LARGE, published=on_imagenet(77.37), parameters_published=44_549_160)
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
@MODELS.register({"preact_resnet50": DEEP | {"pre": True}}, **(LARGE | PRE), published=None)
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
@MODELS.register(
    {"resnext50_32x4d": DEEP | {"groups": 32, "widen": 2}},
    **(LARGE | NEXT),
    published=on_imagenet(77.62),
    parameters_published=25_028_904,
)
@MODELS.register(
    {"resnext101_32x8d": DEEPER | {"groups": 32, "widen": 4}},
    **(LARGE | NEXT),
    published=on_imagenet(79.31),
    parameters_published=88_791_336,
)
@MODELS.register(
    {"resnext101_64x4d": DEEPER | {"groups": 64, "widen": 4}},
    **(LARGE | NEXT),
    published=on_imagenet(83.25),
    parameters_published=83_455_272,
)
@MODELS.register(
    {"wide_resnet50_2": DEEP | {"widen": 2}},
    **(LARGE | WIDE),
    published=on_imagenet(78.47),
    parameters_published=68_883_240,
)
@MODELS.register(
    {"wide_resnet101_2": DEEPER | {"widen": 2}},
    **(LARGE | WIDE),
    published=on_imagenet(78.85),
    parameters_published=126_886_696,
)
@MODELS.register(
    {"wrn_16_4": WRN | {"depths": (2, 2, 2), "widen": 4}},
    **(SMALL | WIDE),
    published=None,
    parameters_published=None,
)
@MODELS.register(
    {"wrn_28_10": WRN | {"depths": (4, 4, 4), "widen": 10}},
    **(SMALL | WIDE),
    published=on_cifar10(96.0, "arXiv:1605.07146, table 5, without dropout"),
    parameters_published=36_479_194,
)
@MODELS.register(
    {"se_resnet50": DEEP | {"gate": "se"}},
    **(LARGE | SE),
    published=on_imagenet(76.71, "arXiv:1709.01507, table 2"),
    parameters_published=28_088_024,
)
@MODELS.register(
    {"se_resnet101": DEEPER | {"gate": "se"}},
    **(LARGE | SE),
    published=on_imagenet(77.62, "arXiv:1709.01507, table 2"),
    parameters_published=49_326_872,
)
@MODELS.register(
    {"cbam_resnet18": {"depths": (2, 2, 2, 2), "gate": "cbam"}},
    **(LARGE | CBAM),
    published=on_imagenet(70.73, "arXiv:1807.06521, table 4"),
    parameters_published=11_779_392,
)
@MODELS.register(
    {"cbam_resnet50": DEEP | {"gate": "cbam"}},
    **(LARGE | CBAM),
    published=on_imagenet(77.34, "arXiv:1807.06521, table 4"),
    parameters_published=28_089_624,
)
@MODELS.register(
    {"resnet18_antialiased": {"depths": (2, 2, 2, 2), "blur": 3}},
    **(LARGE | BLUR),
    published=on_imagenet(71.69, "adobe/antialiased-cnns, 3 taps, from scratch"),
    parameters_published=11_689_512,
)
@MODELS.register(
    {"resnet50_antialiased": DEEP | {"blur": 3}},
    **(LARGE | BLUR),
    published=on_imagenet(76.83, "adobe/antialiased-cnns, 3 taps, from scratch"),
    parameters_published=25_557_032,
)
class ResNet(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes).

    Stages: the stem (before its pool), then one a group of blocks, at strides 2, 4, 8, 16, 32 (large form) or
    1, 1, 2, 4 (small form). Stage i has `width` * 2^i channels, four times as many in a bottleneck.
    `kernels`, `strides` and `dilations` are one int for all stages or one entry a stage, each an int or one int an
    axis; padding keeps ceil(cells / stride) cells. `stem_pool` is the stride of the stem's 3-cell max pool, which an
    axis of stride 1 goes without. `shortcut` is "project" (option B) or "pad" (option A) where shape changes; "none"
    leaves all of them out: the plain network of section 4.1, to compare with.
    The k-tap convolutions have `groups`, and `widen` times the channels (where a block has no others, its output too).
    `gate` is None, "se" or "cbam"; `blur` is the taps of the blur in place of strides, 0 for none. `zero_init` makes
    every block start as its shortcut. `head` is the publisher's name of the last layer.
    """

    small: ClassVar[dict[str, object]] = {"depths": (1, 2), "width": 4, "strides": (1, 2), "groups": 2, "widen": 2}
    others: ClassVar[dict[str, object]] = {
        "shortcut": "pad",
        "head": "classifier",
        "groups": 4,
        "gate": "se",
        "blur": 3,
    }
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
        groups: int = 1,
        widen: int = 1,
        gate: str | None = None,
        blur: int = 0,
        shortcut: str = "project",
        zero_init: bool = False,
        head: str = "fc",
    ) -> None:
        super().__init__()
        if shortcut not in ("project", "pad", "none"):
            raise UsageError(f"shortcut must be 'project', 'pad' or 'none', not {shortcut!r}")
        if zero_init and shortcut == "none":
            raise UsageError("zero_init makes every block its shortcut, and with shortcut='none' a block has none")
        if gate is not None and gate not in GATES:
            raise UsageError(f"gate must be {' or '.join(map(repr, GATES))}, not {gate!r}")
        nd, block, c = Nd(ndim), PreBlock if pre else Block, width
        self.conv1, self.bn1 = same_conv(nd, in_channels, c, stem_kernel, stem_stride), nd.BatchNorm(c)
        pool = nd.each(stem_pool)
        windows = tuple(3 if s > 1 else 1 for s in pool)
        pools = max(pool) > 1
        padding = tuple(k // 2 for k in windows)
        self.maxpool = nd.MaxPool(windows, 1 if blur else pool, padding) if pools else nn.Identity()
        self.blur = BlurPool(nd, pool, blur) if blur and pools else None

        kernels = per_stage(kernels, len(depths), "kernels")
        strides = per_stage((1,) + (2,) * (len(depths) - 1) if strides is None else strides, len(depths), "strides")
        dilations = per_stage(dilations, len(depths), "dilations")
        for i, depth in enumerate(depths):
            layer = nn.Sequential()
            for j in range(depth):
                taps = kernels[i], 1 if j else strides[i], dilations[i]
                made = block(nd, c, width << i, bottleneck, *taps, shortcut, i == j == 0, groups, widen, gate, blur)
                layer.append(made)
                c = made.c_out
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
            x = masked.max_pool(self.maxpool, x, mask)
            x = x if self.blur is None else self.blur(x, mask)
            mask = masked.shrink(mask, self.stem_pool)
        for i in range(len(self.strides)):
            for block in self.get_submodule(f"layer{i + 1}").children():
                x, mask = block(x, mask), masked.shrink(mask, block.stride)  # type: ignore[arg-type]
            yield x

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        mask = masked.shrink(mask, self.stem_stride, self.stem_pool, *self.strides)
        x = x if self.norm is None else masked.norm(self.norm, x, mask).relu()
        return self.get_submodule(self.head)(masked.mean(x, mask))
