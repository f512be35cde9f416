"""Compound scaling: Tan and Le, arXiv:1905.11946, section 3: depth, width and resolution grow together.

Work grows with depth and with the square of width and of resolution; with alpha * beta^2 * gamma^2 close to 2 a step of
phi doubles it. What a step really costs depends on rounding (channels to eights, blocks upwards), so `predicted` counts
layer by layer what the rounded network will have, without building it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gridsight.core.errors import UsageError
from gridsight.nn.blocks import round_channels
from gridsight.nn.efficient import Row
from gridsight.nn.nd import Nd


@dataclass(frozen=True)
class Scale:
    """Factors of the channels and of the blocks of every stage, and the cells along an axis of the input."""

    width: float
    depth: float
    resolution: int


def compound_scale(
    phi: float, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15, resolution: int = 224
) -> Scale:
    """The scale after `phi` doublings of work: depth alpha^phi, width beta^phi, resolution times gamma^phi.

    >>> compound_scale(1)
    Scale(width=1.1, depth=1.2, resolution=258)
    """
    if min(alpha, beta, gamma) < 1:
        raise UsageError(f"alpha, beta and gamma must be at least 1, not {alpha}, {beta}, {gamma}")
    return Scale(beta**phi, alpha**phi, round(resolution * gamma**phi))


def scaled(rows: Sequence[Row], width: float, depth: float) -> tuple[Row, ...]:
    """`rows` with channels rounded to eights and blocks rounded upwards."""
    return tuple(
        (expansion, kernel, stride, round_channels(channels * width), math.ceil(blocks * depth))
        for expansion, kernel, stride, channels, blocks in rows
    )


def predicted(
    rows: Sequence[Row],
    scale: Scale,
    *,
    stem: int = 32,
    ndim: int = 2,
    in_channels: int = 3,
    num_classes: int = 1000,
) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the EfficientNet of these rows at this scale."""
    nd, c = Nd(ndim), round_channels(stem * scale.width)
    grid = _after((scale.resolution,) * ndim, nd.each(2))
    weights = in_channels * c * 3**ndim
    parameters, macs = weights + 2 * c, weights * math.prod(grid)

    def convolve(weights: int, c_out: int) -> None:
        """Count a convolution of so many weights, and its norm."""
        nonlocal parameters, macs
        parameters, macs = parameters + weights + 2 * c_out, macs + weights * math.prod(grid)

    for expansion, kernel, stride, channels, blocks in scaled(rows, scale.width, scale.depth):
        for i in range(blocks):
            wide, squeezed = c * expansion, max(1, c // 4)
            if expansion > 1:
                convolve(c * wide, wide)
            grid = grid if i else _after(grid, nd.each(stride))
            convolve(wide * math.prod(nd.each(kernel)), wide)
            parameters, macs = parameters + 2 * wide * squeezed + wide + squeezed, macs + 2 * wide * squeezed
            convolve(wide * channels, channels)
            c = channels
    convolve(c * 4 * c, 4 * c)
    return parameters + (4 * c + 1) * num_classes, macs + 4 * c * num_classes


def _after(grid: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-cells // s) for cells, s in zip(grid, stride, strict=True))
