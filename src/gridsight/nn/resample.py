"""The project's only resize: an antialiased triangle filter on grids of one, two or three axes.

Training, prediction, explanation and serving must see the same cells, so nothing else in Gridsight resizes. In 2-D it
is PyTorch's `interpolate(mode="bilinear", antialias=True, align_corners=False)`, which is Pillow's BILINEAR: where an
axis shrinks, the triangle widens with it; where it grows, neighbours are mixed linearly. PyTorch has that filter in
2-D only, but it is separable: 1-D and 3-D are made of 2-D calls in which other axes stand as channels or columns.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import interpolate

from gridsight.core.errors import UsageError


def resize(x: Tensor, spatial: Sequence[int]) -> Tensor:
    """(N, C, *cells) float -> (N, C, *spatial); `x` itself when the sizes agree.

    >>> import torch
    >>> resize(torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]), (2,))
    tensor([[[0.7143, 2.2857]]])
    """
    spatial, ndim = tuple(spatial), x.dim() - 2
    if len(spatial) != ndim or ndim not in (1, 2, 3) or min(spatial) < 1:
        raise UsageError(f"cannot resize {tuple(x.shape[2:])} to {spatial}: one size an axis, 1 to 3 axes")
    if tuple(x.shape[2:]) == spatial:
        return x
    if ndim == 1:
        return _resize2d(x.unsqueeze(2), (1, *spatial)).squeeze(2)
    if ndim == 2:
        return _resize2d(x, spatial)
    depth = x.shape[2]
    x = _resize2d(x.flatten(1, 2), spatial[1:]).unflatten(1, (-1, depth))
    return _resize2d(x.flatten(3), (spatial[0], spatial[1] * spatial[2])).unflatten(3, spatial[1:])


def _resize2d(x: Tensor, spatial: tuple[int, ...]) -> Tensor:
    return interpolate(x, list(spatial), mode="bilinear", antialias=True, align_corners=False)
