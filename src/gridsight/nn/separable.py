"""Separable kernels: one kernel an axis in place of one over all axes, k + k operations a cell in place of k x k.

A kernel separates exactly when it is an outer product of one vector an axis. In 2-D that is a matrix of rank 1, and
its singular value decomposition gives the nearest one (Eckart and Young, Psychometrika 1, 1936). In 3-D each axis
starts from the first singular vector of the kernel unfolded along it, which is exact where the kernel separates; else
alternating least squares goes on from there (De Lathauwer, De Moor and Vandewalle, SIAM J. Matrix Anal. Appl. 21, 2000,
section 3), and what it finds is the nearest product near that start: an upper bound of the least error.

Shapes: a kernel is (*taps), one to three axes; a depthwise convolution is (N, C, *spatial) -> (N, C_out, *spatial).
"""

from functools import reduce

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.nn.blocks import times
from gridsight.nn.nd import Nd

TOLERANCE = 1e-6
"""Largest error of what counts as separable, relative to the norm of the kernel."""

_ROUNDS = 100


def rank_one(kernel: Tensor) -> tuple[list[Tensor], float]:
    """One vector an axis whose outer product is nearest to `kernel`, float64, and the error relative to its norm.

    The vectors have equal norms; all but the first have their largest entry positive.

    >>> vectors, error = rank_one(torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]))
    >>> error < 1e-12, (vectors[0] / vectors[0][0]).round(decimals=9).tolist()
    (True, [1.0, 2.0, 1.0])
    """
    kernel = kernel.detach().double()
    norm = float(kernel.norm())
    if norm == 0:
        return [torch.zeros(taps, dtype=kernel.dtype) for taps in kernel.shape], 0.0
    unfolded = [kernel.movedim(axis, 0).reshape(taps, -1) for axis, taps in enumerate(kernel.shape)]
    vectors = [torch.linalg.svd(matrix).U[:, 0] for matrix in unfolded]
    for _ in range(_ROUNDS if kernel.dim() > 2 else 1):
        before = vectors[0]
        for axis in range(kernel.dim()):
            along = _project(kernel, vectors, axis)
            vectors[axis] = along / along.norm()
        if torch.allclose(before, vectors[0], rtol=0, atol=1e-14):
            break
    size = float(_project(kernel, vectors, 0) @ vectors[0])
    for axis in range(1, kernel.dim()):
        sign = vectors[axis][vectors[axis].abs().argmax()].sign()
        vectors[axis], size = vectors[axis] * sign, size * float(sign)
    vectors[0] = vectors[0] * (1 if size > 0 else -1)
    vectors = [vector * abs(size) ** (1 / kernel.dim()) for vector in vectors]
    return vectors, float((kernel - outer(vectors)).norm()) / norm


def outer(vectors: list[Tensor]) -> Tensor:
    """The outer product: vectors of a, b, ... entries -> (a, b, ...)."""
    return reduce(lambda product, vector: product[..., None] * vector, vectors)


def separated(conv: nn.Module, tolerance: float = TOLERANCE) -> nn.Sequential:
    """One convolution an axis that together are `conv`, a depthwise convolution each kernel of which separates.

    Depthwise, because a full convolution has a kernel for every pair of channels, each with factors of its own. One
    that does not separate is a `UsageError` with the best error that rank 1 has.
    """
    if not isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d) or conv.groups != conv.in_channels:
        raise UsageError(f"only a depthwise convolution (groups = in_channels) is separated, not {conv}")
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise UsageError("only a convolution whose padding is zeros, given as numbers, is separated")
    found = [rank_one(kernel) for kernel in conv.weight[:, 0]]
    error, worst = max((error, channel) for channel, (_, error) in enumerate(found))
    if error > tolerance:
        raise UsageError(
            f"the kernel of channel {worst} ({times(conv.kernel_size)} taps) is no product of one kernel an axis: "
            f"the best is {error:.2g} of its norm away (allowed: {tolerance:.2g})"
        )
    ndim, c = len(conv.kernel_size), conv.in_channels
    parts = nn.Sequential()
    for axis in range(ndim):
        only = [tuple(n if a == axis else other for a, n in enumerate(values)) for values, other in _geometry(conv)]
        last = axis == ndim - 1
        bias = last and conv.bias is not None
        part = Nd(ndim).Conv(c, conv.out_channels, *only, groups=c, bias=bias).to(conv.weight)
        weights = torch.stack([vectors[axis] for vectors, _ in found]).to(conv.weight)
        part.weight.data = weights.view(part.weight.shape)
        if bias and conv.bias is not None:
            part.bias.data = conv.bias.detach().clone()
        parts.append(part)
        c = conv.out_channels
    return parts


def _geometry(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[tuple[tuple[int, ...], int]]:
    """Kernel, stride, padding and dilation, each with what the other axes of a part have instead."""
    padding = tuple(int(cells) for cells in conv.padding)
    return [(conv.kernel_size, 1), (conv.stride, 1), (padding, 0), (conv.dilation, 1)]


def _project(kernel: Tensor, vectors: list[Tensor], axis: int) -> Tensor:
    """(taps of `axis`,): the kernel times the vectors of all other axes."""
    for other in reversed(range(kernel.dim())):
        if other != axis:
            kernel = torch.tensordot(kernel, vectors[other], ([other], [0]))
    return kernel
