"""What is done to each item of a batch by its own statistics: its deviation, and a box hidden behind its mean."""

from collections.abc import Mapping

import torch
from torch import Tensor


def hide(x: Tensor, spans: Mapping[int, tuple[Tensor, Tensor]]) -> Tensor:
    """x (N, C, *spatial) with one box an item set to the channel's mean over the item; same shape.

    `spans[axis] = (share, place)`, both (N,) in [0, 1]: the box takes round(share * size) cells of the spatial axis
    and lies wholly inside, at its start for place 0 and at its end for place 1; axes not named are hidden in full.
    """
    inside = None
    for axis, (share, place) in spans.items():
        size = x.shape[2 + axis]
        length = (share * size).round()
        start = (place * (size - length + 1)).floor().minimum(size - length)
        cells = torch.arange(size, device=x.device)
        span = (cells >= start[:, None]) & (cells < (start + length)[:, None])
        shape = [1] * x.dim()
        shape[0], shape[2 + axis] = len(x), size
        inside = span.view(shape) if inside is None else inside & span.view(shape)
    assert inside is not None, "no axis to hide along"
    mean = x.flatten(2).mean(2).view(*x.shape[:2], *[1] * (x.dim() - 2))
    return torch.where(inside, mean, x)


def deviation(x: Tensor) -> Tensor:
    """Standard deviation (population) of each item over all its cells: (N, C, *spatial) -> (N, 1, ..., 1).

    Two plain passes: several times faster than `Tensor.std`, which updates mean and deviation cell by cell.
    """
    last = x.movedim(1, -1)  # channels-last memory is taken as it lies: in another order all would be copied
    flat = (last if last.is_contiguous() else x).flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    return (torch.linalg.vector_norm(centred, dim=1) / flat.shape[1] ** 0.5).view(len(x), *[1] * (x.dim() - 1))
