"""What stands for "nothing here" where a method takes cells away: never hidden, for evidence is relative to it.

In normalised inputs "zero" is the mean of the training data. An own baseline is a tensor.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from gridsight.core.errors import UsageError, nearest

BASELINES = ("zero", "mean", "blur")

BLUR = 0.125
"""Width of a box filter, as a share of the axis; the three of "blur" are together nearly a Gaussian."""


def baseline_of(x: Tensor, kind: str | Tensor) -> Tensor:
    """What replaces the cells of x (N, C, *spatial), of its shape: "zero"; "mean", of each channel of the item; "blur",
    the item without its details; or a tensor that is broadcast to x.
    """
    if isinstance(kind, Tensor):
        try:
            base = kind.to(x).expand_as(x)
        except RuntimeError:
            raise UsageError(f"a baseline {tuple(kind.shape)} does not fit inputs {tuple(x.shape)}") from None
        if not bool(base.isfinite().all()):
            raise UsageError("the baseline is not finite (NaN or infinite)")
        return base
    if kind == "zero":
        return torch.zeros_like(x)
    if kind == "mean":
        return x.mean(tuple(range(2, x.dim())), keepdim=True).expand_as(x)
    if kind == "blur":
        return blurred(x, 3)
    raise UsageError(f"there is no baseline {kind!r}; {nearest(str(kind), BASELINES)}")


def blurred(x: Tensor, times: int, share: float = BLUR) -> Tensor:
    """x (N, C, *spatial) after a box filter of a `share` of each axis, `times` times."""
    for axis in range(2, x.dim()):
        side = 2 * max(1, round(share * x.shape[axis] / 2)) + 1
        moved = x.movedim(axis, -1)
        rows = moved.reshape(-1, 1, moved.shape[-1])
        for _ in range(times):
            rows = avg_pool1d(rows, side, 1, side // 2, count_include_pad=False)
        x = rows.view(moved.shape).movedim(-1, axis)
    return x
