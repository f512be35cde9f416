"""Which input cells a block of a network's last stage needs, and proof that it needs no others.

Cell i of the last stage reads the input cells left + i * jump to right + i * jump (`nn.geometry`), cut at the input's
borders. A block is computed by running the network on the input cells that it reads, from a multiple of the jump on, so
that strides and pools fall as in the whole; the cells around the block, which saw padding where the whole has data, are
thrown away. Where a block reaches a border of the input it sees the same zero padding as the whole.

This holds for networks whose stages are local in eval mode. Whatever looks at the whole item (its statistics, gates,
attention, recurrence) is found by `reach_of`, which traces the operations that run. A use of position or size (a table
of positions, say) it cannot see: `require_equal` finds that, by comparing blocks with the whole in float64.

Shapes: the input is (1, C, *spatial), the last stage (1, width, *cells).
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.nn.blocks import times
from gridsight.nn.geometry import Tracer, meta_copy, stage_fields, stage_shapes
from gridsight.nn.net import Net

SAME = 1e-11
"""Largest difference between blocks and whole, relative to the largest value, that is put down to float64 rounding."""

Box = tuple[slice, ...]
"""A block of cells: one slice an axis, both ends given."""
Read = Callable[[Box], Tensor]
"""Gives (1, C, *box) of the input."""


@dataclass(frozen=True)
class Reach:
    """Cell i of the last stage reads the input cells left + i * jump ... right + i * jump, on each axis."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    jump: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Input cells that one cell reads."""
        return tuple(right - left + 1 for left, right in zip(self.left, self.right, strict=True))

    def halo(self, block: Box, spatial: Sequence[int]) -> tuple[Box, Box]:
        """The input cells to run on for the last-stage cells `block`, and where these lie in what comes out."""
        around, within = [], []
        for axis, cells in enumerate(block):
            jump = self.jump[axis]
            first = max(0, min(0, self.left[axis]) + cells.start * jump) // jump
            stop = min(spatial[axis], self.right[axis] + (cells.stop - 1) * jump + 1)
            around.append(slice(first * jump, stop))
            within.append(slice(cells.start - first, cells.stop - first))
        return tuple(around), tuple(within)


def reach_of(net: Net, channels: int, spatial: Sequence[int]) -> Reach:
    """The reach of the last stage's cells; a network that is not local is a `UsageError` that names the layer."""
    if net.spatial is not None:
        raise UsageError(
            f"this {type(net).__name__} takes {times(net.spatial)} cells and no other size: use windows of that size"
        )
    field = stage_fields(net, channels, spatial)[-1]
    left, right, jumps = [], [], []
    for size, jump, start in zip(field.size, field.jump, field.start, strict=True):
        if size is None or jump is None or start is None:
            raise UsageError(
                f"{type(net).__name__} cannot be tiled: {_culprit(net, channels, spatial)} looks at the whole item; "
                "use windows of the size that it was trained on"
            )
        left.append(round(start - (size - 1) / 2))
        right.append(round(start + (size - 1) / 2))
        jumps.append(jump)
    return Reach(tuple(left), tuple(right), tuple(jumps))


def run_blocks(
    net: Net, read: Read, spatial: Sequence[int], reach: Reach, wanted: Iterable[Box]
) -> Iterator[tuple[Box, Tensor]]:
    """Each block of the last stage with its values (1, width, *block); `read` gives what the network takes."""
    for block in wanted:
        around, within = reach.halo(block, spatial)
        part = last_stage(net, read(around))[(slice(None), slice(None), *within)]
        if any(have != own.stop - own.start for have, own in zip(part.shape[2:], block, strict=True)):
            raise UsageError(f"{type(net).__name__} cannot be tiled: which cells it has depends on the input's size")
        yield block, part


@torch.no_grad()
def require_equal(net: Net, channels: int, reach: Reach) -> None:
    """Refuse a network of which some block differs from the whole on a random input, long on one axis after the other.

    Thin inputs keep it cheap: the first, a middle and the last block of an input that is a little longer than what one
    cell reads, on the CPU in float64. In a deep network the outermost cells that one reads count for less than
    rounding: what this finds there is a gross error, and the exact reach rests on the trace alone.
    """
    exact = exact_copy(net)
    noise = torch.Generator().manual_seed(0)
    for axis in range(len(reach.jump)):
        spatial = _thin(net, channels, reach, axis)
        x = torch.randn(1, channels, *spatial, dtype=torch.float64, generator=noise)
        whole = last_stage(exact, x)
        size = [2 if a == axis else cells for a, cells in enumerate(whole.shape[2:])]
        every = list(blocks(whole.shape[2:], size))
        some = [every[0], every[len(every) // 2], every[-1]]
        try:
            parts = list(run_blocks(exact, reader(x[0]), spatial, reach, some))
        except RuntimeError as error:  # a table of positions, say, that has the size of one input
            reason = str(error).splitlines()[0]
            raise UsageError(f"{type(net).__name__} cannot be tiled: it does not take every size ({reason})") from None
        worst = max(float((part - whole[(slice(None), slice(None), *block)]).abs().max()) for block, part in parts)
        if not worst <= SAME * max(1.0, float(whole.abs().max())):
            raise UsageError(
                f"{type(net).__name__} cannot be tiled: on random input of {times(spatial)} cells its tiles differ "
                f"from the whole by {worst:.2g}; it reads its own position, or the size of its input"
            )


def blocks(cells: Sequence[int], size: Sequence[int]) -> Iterator[Box]:
    """Blocks of at most `size` that cover `cells`, as equal as can be, in row-major order.

    >>> [block[0] for block in blocks((7,), (3,))]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    axes = []
    for have, most in zip(cells, size, strict=True):
        count = -(-have // most)
        axes.append([slice(i * have // count, (i + 1) * have // count) for i in range(count)])
    yield from product(*axes)


def reader(array: Any) -> Read:
    """`read` of an array (C, *spatial): a tensor, an array in memory or a memory map; what is read is copied."""
    if isinstance(array, Tensor):
        return lambda box: array[(slice(None), *box)][None]
    # a copy, because torch warns of arrays that it may not write to
    return lambda box: torch.from_numpy(array[(slice(None), *box)].copy())[None]


def last_stage(net: Net, x: Tensor) -> Tensor:
    """(N, C, *spatial) -> the last stage (N, width, *cells)."""
    for stage in net.forward_stages(x):
        x = stage
    return x


def exact_copy(net: Net) -> Net:
    """The network on the CPU in float64."""
    return copy.deepcopy(net).to("cpu", torch.float64)


def _thin(net: Net, channels: int, reach: Reach, axis: int) -> tuple[int, ...]:
    """A size with inner borders of blocks on `axis` and as few cells on the others as the network takes."""
    long = reach.size[axis] + 4 * reach.jump[axis]
    for others in ((1,) * len(reach.jump), reach.jump, reach.size):
        spatial = tuple(long if a == axis else cells for a, cells in enumerate(others))
        try:
            stage_shapes(net, channels, spatial)
        except (RuntimeError, UsageError):
            continue
        return spatial
    raise UsageError(f"{type(net).__name__} cannot be tiled: it does not take an input of {times(spatial)} cells")


def _culprit(net: Net, channels: int, spatial: Sequence[int]) -> str:
    """The first layer of which some cell sees the whole item, in words."""
    net = meta_copy(net).float()
    found: list[str] = []
    with torch.no_grad(), Tracer() as tracer:

        def look(name: str, module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            if found or not given or next(module.children(), None) is not None:
                return
            what = f"{name} ({type(module).__name__})"
            if _sees_all(tracer, given[0]):
                found.append(f"what comes before {what}")
            elif _sees_all(tracer, out):
                found.append(what)

        for name, module in net.named_modules():
            module.register_forward_hook(lambda module, given, out, name=name: look(name, module, given, out))
        last_stage(net, tracer.watch(torch.empty(1, channels, *spatial, device="meta")))
    return found[0] if found else "what comes after its layers"


def _sees_all(tracer: Tracer, x: Any) -> bool:
    return not isinstance(x, Tensor) or x.dim() < 3 or None in tracer.field(x).size
