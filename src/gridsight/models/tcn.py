"""TCN: Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence
modeling", arXiv:1803.01271, section 3: no cell sees what comes after it.

Residual blocks of two convolutions with weight norm (Salimans and Kingma, arXiv:1602.07868), ReLU and dropout of whole
channels; block i is dilated by 2^i, so that after n blocks of k taps a cell sees 1 + 2 (k - 1) (2^n - 1). The head
reads the last step, as for the paper's sequential MNIST. What differs:
- with more axes the last one is time (as in a spectrogram), which the convolutions read backwards only; along the
  others they are centred, and the head reads the mean over them. A video, whose first axis is time, must be turned.
- the convolutions keep PyTorch's initialisation. The authors' code draws N(0, 0.01) for them, but for a weight that its
  weight norm computes anew at the first step; only the projections of shortcuts start there, as here.
- dropout takes whole channels, as the paper says; the authors' code takes single cells.

Shapes: (N, C, *spatial) -> (N, widths[i], *spatial) -> (N, num_classes).
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from gridsight.models import MODELS
from gridsight.nn import masked
from gridsight.nn.blocks import Trim
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net


class ChannelDropout(Dropout):
    """(N, C, *spatial) to the same; in training a whole channel of an item is zero with probability `p`."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        return input * super().forward(input.new_ones(*input.shape[:2], *[1] * (input.dim() - 2)))


def causal_conv(nd: Nd, c_in: int, c_out: int, kernel: OneOrEach, dilation: int) -> nn.Sequential:
    """Keeps the number of cells; on the last axis a cell reads itself and what is before it."""
    taps = nd.each(kernel)
    *others, past = (dilation * (k - 1) for k in taps)
    padding = (*(-(-span // 2) for span in others), past)
    conv = nd.Conv(c_in, c_out, taps, padding=padding, dilation=dilation)
    # what is padded but not read: of an odd span one cell before, of the future all
    before = [2 * pad - span for pad, span in zip(padding, others, strict=False)]
    return nn.Sequential(weight_norm(conv), Trim([*before, 0], [0] * len(others) + [past]))


class Block(nn.Module):
    """relu(shortcut(x) + residual(x)): (N, c_in, *spatial) -> (N, width, *spatial)."""

    def __init__(self, nd: Nd, c_in: int, width: int, kernel: OneOrEach, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = causal_conv(nd, c_in, width, kernel, dilation)
        self.conv2 = causal_conv(nd, width, width, kernel, dilation)
        self.dropout1, self.dropout2 = ChannelDropout(dropout), ChannelDropout(dropout)
        self.downsample: nn.Module = nn.Identity()
        if c_in != width:
            self.downsample = nd.Conv(c_in, width, 1)
            nn.init.normal_(self.downsample.get_parameter("weight"), 0, 0.01)

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        layers = self.conv1, nn.ReLU(), self.dropout1, self.conv2, nn.ReLU(), self.dropout2
        residual, _ = masked.run(layers, x, mask)
        return (residual + self.downsample(x)).relu()


@MODELS.register(
    "tcn",
    ndims=(1, 2, 3),
    paper="arXiv:1803.01271",
    published="99.0 % on sequential MNIST, 97.2 % on permuted MNIST (arXiv:1803.01271, table 1)",
    parameters_published=None,
    spatial=(784,),
    masked=True,
    not_inflated={1: "summing a kernel over an axis changes its length, which weight norm divides by"},
)
class TCN(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); a stage a block, one for each of `widths`."""

    small: ClassVar[dict[str, object]] = {"widths": (6, 6, 8), "kernel": 3}

    def __init__(
        self,
        widths: tuple[int, ...] = (25,) * 8,
        *,
        ndim: int = 1,
        in_channels: int = 1,
        num_classes: int = 10,
        kernel: OneOrEach = 7,
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        self.stages = nn.ModuleList(
            Block(nd, c_in, width, kernel, 2**i, dropout)
            for i, (c_in, width) in enumerate(pairwise((in_channels, *widths)))
        )
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward_stages(self, x: Tensor, mask: masked.Mask = None) -> Iterator[Tensor]:
        for stage in self.stages:
            yield (x := stage(x, mask))

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        if mask is None:
            return self.fc(masked.mean(x[..., -1:], None))
        last = (masked.lengths(mask)[:, -1] - 1).view(-1, *[1] * (x.dim() - 1))
        x = x.gather(-1, last.expand(*x.shape[:-1], 1))
        return self.fc(masked.mean(x, mask.gather(-1, last[:, 0].expand(*mask.shape[:-1], 1))))
