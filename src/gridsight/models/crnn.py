"""CRNN: convolutions find what is there, a recurrent layer reads in which order: for signals and sequences.

After DanQ (Quang and Xie, Nucleic Acids Research 44, 2016, doi:10.1093/nar/gkw226): one convolution, a max pool, a
bidirectional recurrent layer. What differs: several convolution stages with norms; a GRU (Cho et al., arXiv:1406.1078)
in place of the LSTM; and the head reads the last state of each direction and the mean, not every step, so that any
length works. Under a mask the recurrent layer reads packed sequences: padding never enters its state.

Shapes: (N, C, T) -> stages (N, widths[i], T / stride / pools) -> (N, 4 * hidden) -> (N, num_classes).
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gridsight.models import MODELS
from gridsight.nn import masked
from gridsight.nn.blocks import make_norm, same_conv
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, he_init
from gridsight.nn.net import Net


class Stage(nn.Module):
    """Convolution, norm, ReLU, max pool: (N, c_in, T) -> (N, width, ceil(T / pool))."""

    def __init__(self, nd: Nd, c_in: int, width: int, kernel: int, pool: int, norm: str) -> None:
        super().__init__()
        self.conv, self.norm = same_conv(nd, c_in, width, kernel), make_norm(nd, norm, width)
        self.pool = nd.MaxPool((pool,), ceil_mode=True)

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        x = masked.norm(self.norm, self.conv(masked.fill(x, mask)), mask).relu()
        return masked.max_pool(self.pool, x, mask)


@MODELS.register(
    "crnn",
    ndims=(1,),
    ndims_reason="a recurrent layer runs along one axis",
    paper="after DanQ, doi:10.1093/nar/gkw226",
    published=None,
    parameters_published=None,
    spatial=(32, 32),
    masked=True,
)
class CRNN(Net):
    """(N, in_channels, T) -> logits (N, num_classes); stages are the convolutions, then the recurrent layer."""

    small: ClassVar[dict[str, object]] = {"widths": (8, 8), "hidden": 6}
    others: ClassVar[dict[str, object]] = {"norm": "layer"}

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 64),
        *,
        ndim: int = 1,
        in_channels: int = 4,
        num_classes: int = 10,
        kernel: int = 9,
        pool: int = 2,
        hidden: int = 64,
        dropout: float = 0.2,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        self.pool = pool
        self.stages = nn.ModuleList(
            Stage(nd, c_in, width, kernel, pool, norm) for c_in, width in pairwise((in_channels, *widths))
        )
        self.rnn = nn.GRU(widths[-1], hidden, batch_first=True, bidirectional=True)
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(4 * hidden, num_classes)
        he_init(self)

    def forward_stages(self, x: Tensor, mask: masked.Mask = None) -> Iterator[Tensor]:
        for stage in self.stages:
            yield (x := stage(x, mask))
            mask = masked.shrink(mask, self.pool)
        steps = x.transpose(1, 2)
        if mask is None:
            yield self.rnn(steps)[0].transpose(1, 2)
            return
        packed = pack_padded_sequence(steps, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=steps.shape[1])
        yield states.transpose(1, 2)

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        mask = masked.shrink(mask, *[self.pool] * len(self.stages))
        forwards, backwards = x.chunk(2, 1)
        if mask is None:
            last = forwards[..., -1]
        else:
            end = (mask.sum(1) - 1).view(-1, 1, 1).expand(-1, forwards.shape[1], 1)
            last = forwards.gather(2, end)[..., 0]
        # each direction's last state has read all steps: the last forwards, the first backwards
        return self.fc(self.dropout(torch.cat([last, backwards[..., 0], masked.mean(x, mask)], 1)))
