"""GoogLeNet (Inception v1): Szegedy et al., arXiv:1409.4842, with batch norm as torchvision's.

torchvision's 2-D logits. An inception module has four branches side by side: a 1-tap convolution; a 1-tap reduction and
a 3-tap convolution; a 1-tap reduction and a convolution of `large_kernel`; a max pool and a 1-tap convolution. Two
auxiliary heads give the middle of the network a gradient of its own; they exist in training only.
What differs from the paper, as in torchvision: batch norm after each convolution and no local response normalisation;
the branch of 5 taps has 3 (`large_kernel=5` is the paper's); the auxiliary heads read the mean over 4 cells an axis at
any size. Weights start as PyTorch's layers do (torchvision's `init_weights=False`): the 0.01 that it has otherwise lets
the signal of narrow networks vanish.
torchvision's file was trained on values from -1 to 1: mean 0.5 and deviation 0.5 a channel.
Shapes in 2-D: (N, 3, 224, 224) -> 112, 56, 28, 14, 7 cells -> (N, 1024, 7, 7) -> (N, 1000). 13,004,888 parameters, of
which inference uses 6,624,904. Over 150 lines because it holds the paper's table 1.
"""

from typing import ClassVar

from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn.blocks import Branches, FlatLinear, conv_norm_act
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.staged import Staged

EPS = 1e-3

Row = tuple[int, int, int, int, int, int]
"""Channels of one module: 1-tap; 3-tap reduction and 3-tap; large reduction and large; after the pool."""

# table 1
ROWS: tuple[tuple[Row, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


def inception(nd: Nd, c_in: int, row: Row, large_kernel: OneOrEach) -> Branches:
    """(N, c_in, *spatial) -> (N, row[0] + row[2] + row[4] + row[5], *spatial)."""
    one, reduce3, three, reduce5, five, pooled = row

    def conv(a: int, b: int, kernel: OneOrEach = 1) -> nn.Module:
        return conv_norm_act(nd, a, b, kernel, eps=EPS)

    return Branches(
        {
            "branch1": conv(c_in, one),
            "branch2": nn.Sequential(conv(c_in, reduce3), conv(reduce3, three, 3)),
            "branch3": nn.Sequential(conv(c_in, reduce5), conv(reduce5, five, large_kernel)),
            "branch4": nn.Sequential(nd.MaxPool(3, 1, 1), conv(c_in, pooled)),
        }
    )


class AuxiliaryHead(nn.Module):
    """(N, c_in, *spatial) -> logits (N, num_classes): mean over 4 cells an axis, 1-tap convolution, two linear maps."""

    def __init__(self, nd: Nd, c_in: int, widths: tuple[int, int], num_classes: int, dropout: float) -> None:
        super().__init__()
        self.cells = nd.AdaptiveAvgPool(4)
        self.conv = conv_norm_act(nd, c_in, widths[0], 1, eps=EPS)
        self.fc1, self.fc2 = FlatLinear(widths[0], nd.each(4), widths[1]), nn.Linear(widths[1], num_classes)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.dropout(self.fc1(self.conv(self.cells(x))).relu()))


@MODELS.register(
    "googlenet",
    ndims=(1, 2, 3),
    paper="arXiv:1409.4842",
    published=on_imagenet(69.78),
    parameters_published=13_004_888,
    spatial=(224, 224),
    publisher="torchvision",
    masked=False,
    unmasked="its pools are not centred: an incomplete last window would read what lies beyond a mask",
)
class GoogLeNet(Staged):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2, 4, 8, 16, 32.

    `stem` are the channels of its two parts, `stem_pool` the stride of the 3-cell pool between them, which an axis of
    stride 1 goes without; `rows` are the inception modules of the three stages after it. `auxiliary` are the widths of
    the heads after the first and before the last module of the middle stage; None builds none.
    """

    small: ClassVar[dict[str, object]] = {
        "stem": (4, 8),
        "rows": (((4, 3, 5, 2, 3, 2),), ((4, 3, 5, 2, 3, 2),) * 3, ((5, 3, 5, 2, 3, 3),)),
        "stem_stride": 1,
        "stem_pool": 1,
        "auxiliary": (3, 8),
    }
    others: ClassVar[dict[str, object]] = {"stem_stride": 2, "stem_pool": 2}
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"\.conv\.(weight|bias)$", r".0.\1"),
        (r"\.bn\.", ".1."),
    )

    def __init__(
        self,
        stem: tuple[int, int] = (64, 192),
        rows: tuple[tuple[Row, ...], ...] = ROWS,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        stem_stride: OneOrEach = 2,
        stem_pool: OneOrEach = 2,
        large_kernel: OneOrEach = 3,
        auxiliary: tuple[int, int] | None = (128, 1024),
        dropout: float = 0.2,
        dropout_auxiliary: float = 0.7,
    ) -> None:
        super().__init__()
        if len(rows) != 3 or len(rows[1]) < 3:
            raise UsageError("googlenet takes rows of three stages, the middle one with at least three modules")
        nd, (c, wide) = Nd(ndim), stem
        self.conv1 = conv_norm_act(nd, in_channels, c, 7, stem_stride, eps=EPS)
        self.conv2, self.conv3 = conv_norm_act(nd, c, c, 1, eps=EPS), conv_norm_act(nd, c, wide, 3, eps=EPS)
        pool = nd.each(stem_pool)
        window = tuple(3 if stride > 1 else 1 for stride in pool)
        self.maxpool1 = nd.MaxPool(window, pool, ceil_mode=True)
        self.maxpool2, self.maxpool3 = nd.MaxPool(3, 2, ceil_mode=True), nd.MaxPool(3, 2, ceil_mode=True)
        self.maxpool4 = nd.MaxPool(2, 2, ceil_mode=True)
        c = wide
        parts = [["conv1"], ["maxpool1", "conv2", "conv3"]]
        outputs = {}
        for i, stage in enumerate(rows):
            parts.append([f"maxpool{i + 2}"])
            for j, row in enumerate(stage):
                name = f"inception{i + 3}{chr(ord('a') + j)}"
                self.add_module(name, inception(nd, c, row, large_kernel))
                outputs[name] = c = row[0] + row[2] + row[4] + row[5]
                parts[-1].append(name)
        self.parts, self.heads = parts, {}
        if auxiliary is not None:
            for number, name in enumerate((parts[3][1], parts[3][-2]), 1):
                self.heads[name] = f"aux{number}"
                head = AuxiliaryHead(nd, outputs[name], auxiliary, num_classes, dropout_auxiliary)
                self.add_module(self.heads[name], head)
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(c, num_classes)
        self.nd = nd
        # convolutions are centred; of a window that may be incomplete, all but the last stride - 1 cells are needed
        least = tuple(max(1, cells - stride + 1) for cells, stride in zip(window, pool, strict=True))
        self.steps = [(1, stem_stride, 0), (least, pool, 0), (2, 2, 0), (2, 2, 0), (1, 2, 0)]
