"""What EfficientNet (Tan and Le, arXiv:1905.11946) and EfficientNetV2 (arXiv:2104.00298) share: a stem, stages of
inverted residuals with SiLU, a 1-tap convolution, and a linear layer on the mean over cells.

A block mixes with a depthwise convolution and has a gate of a quarter of its input's channels; or it is fused: one full
convolution widens and mixes (V2, section 3.2), without a gate. Differs from both papers, as torchvision does: a layer
that strides is padded alike on both sides, so that a cell of its output lies over the middle of what it reads.
"""

import math
from collections.abc import Sequence

from torch import nn

from gridsight.nn.blocks import conv_norm_act, keeps_shape
from gridsight.nn.chain import Chain
from gridsight.nn.dropout import Dropout, path_rates
from gridsight.nn.gates import SqueezeExcite
from gridsight.nn.inverted import InvertedResidual, Norm, Residual
from gridsight.nn.nd import Nd, OneOrEach, he_init

Row = tuple[int, OneOrEach, OneOrEach, int, int]
"""A stage of inverted residuals: expansion, kernel, stride of its first block, channels, blocks."""


class Fused(Residual):
    """(N, c_in, *spatial) -> (N, c_out, *spatial / stride); without widening (c_in = wide) it is one convolution."""

    def __init__(
        self,
        nd: Nd,
        c_in: int,
        wide: int,
        c_out: int,
        kernel: OneOrEach,
        stride: OneOrEach,
        drop: float,
        norm: Norm,
    ) -> None:
        widens = wide != c_in
        parts = [conv_norm_act(nd, c_in, wide if widens else c_out, kernel, stride, nn.SiLU, 1, *norm)]
        if widens:
            parts.append(conv_norm_act(nd, wide, c_out, 1, 1, None, 1, *norm))
        super().__init__(parts, keeps_shape(nd, c_in, c_out, stride), drop)


class Efficient(Chain):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages are the stem, one a row, the last convolution.

    The first `fused` rows are stages of fused blocks. `drop_path` is the rate at which a block after the last would
    drop its branch, from 0 at the first; `norm` is of every batch norm.
    """

    def __init__(
        self,
        nd: Nd,
        in_channels: int,
        num_classes: int,
        rows: Sequence[Row],
        fused: int,
        stem: int,
        last: int,
        stem_stride: OneOrEach,
        dropout: float,
        drop_path: float,
        norm: Norm,
    ) -> None:
        c = stem
        features: list[nn.Module] = [conv_norm_act(nd, in_channels, c, 3, stem_stride, nn.SiLU, 1, *norm)]
        blocks = [row[-1] for row in rows]
        rates = path_rates(drop_path * (1 - 1 / sum(blocks)), blocks)
        for number, (expansion, kernel, first_stride, channels, _) in enumerate(rows):
            stage = nn.Sequential()
            for i, drop in enumerate(rates[number]):
                wide, stride = expansion * c, 1 if i else first_stride
                if number < fused:
                    stage.append(Fused(nd, c, wide, channels, kernel, stride, drop, norm))
                else:
                    gate = SqueezeExcite(nd, wide, max(1, c // 4), nn.SiLU)
                    stage.append(InvertedResidual(nd, c, wide, channels, kernel, stride, nn.SiLU, gate, drop, norm))
                c = channels
            features.append(stage)
        features.append(conv_norm_act(nd, c, last, 1, 1, nn.SiLU, 1, *norm))
        head = nn.Linear(last, num_classes)
        super().__init__(features, range(len(features)), nn.Sequential(Dropout(dropout), head))
        he_init(self)
        bound = 1 / math.sqrt(num_classes)
        nn.init.uniform_(head.weight, -bound, bound)
        nn.init.zeros_(head.bias)
