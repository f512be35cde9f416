"""Sliding windows: a network of a fixed input size on a larger input; the mean of its logits over overlapping windows.

For flatten heads, and for whatever looks at the whole item (where tiles fit, `nn.tiled` is exact instead). Each
window is an item of its own: what lies across its border is not seen, so the answer is no whole-input answer, except
for a network that is linear in its cells, with windows that do not overlap. Windows are spread evenly, the first and
the last flush with the input's ends, and count equally; cells in the middle lie in more windows than those at the ends.

Shapes: `read(box)` gives (1, C, *box) of any type; logits are (1, K). The mean of logits is, after softmax, the
geometric mean of the windows' probabilities.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.nn.blocks import times
from gridsight.nn.reach import Box, Read


@torch.no_grad()
def windowed_logits(
    net: nn.Module,
    read: Read,
    spatial: Sequence[int],
    window: Sequence[int],
    *,
    overlap: float = 0.5,
    front: Callable[[Tensor], Tensor] | None = None,
    batch: int = 16,
) -> Tensor:
    """Mean logits (1, K) over windows of `window` cells; `overlap` is the least share of an axis that neighbours share.

    `front` is applied to each batch of windows: statistics of an item are those of a window.
    """
    if net.training:
        raise UsageError("windows need a network in eval mode: each is answered by itself")
    weight = next(net.parameters())
    places = windows(spatial, window, overlap)
    total, count = torch.zeros((), dtype=torch.float64), 0
    while group := list(islice(places, batch)):
        x = torch.cat([read(box) for box in group]).to(weight.device)
        logits = net(x.to(weight.dtype) if front is None else front(x))
        total, count = total + logits.double().sum(0, keepdim=True).cpu(), count + len(group)
    return (total / count).to(weight)


def windows(spatial: Sequence[int], window: Sequence[int], overlap: float) -> Iterator[Box]:
    """Boxes of `window` cells that cover `spatial`, in row-major order.

    >>> [box[0].start for box in windows((10,), (4,), 0.5)]
    [0, 2, 4, 6]
    """
    if not 0 <= overlap < 1:
        raise UsageError(f"the overlap of windows is a share from 0 to below 1, not {overlap}")
    if len(window) != len(spatial) or any(w > n for w, n in zip(window, spatial, strict=True)):
        raise UsageError(f"an input of {times(spatial)} cells is smaller than one window of {times(window)}")
    axes = []
    for size, cells in zip(spatial, window, strict=True):
        step = max(1, math.floor(cells * (1 - overlap)))
        gaps = -(-(size - cells) // step)
        starts = [i * (size - cells) // gaps for i in range(gaps + 1)] if gaps else [0]
        axes.append([slice(start, start + cells) for start in starts])
    yield from product(*axes)
