"""Batched augmentation, one operation a file: functions of a batch and of uniform numbers, on the training device.

An operation is a function `(x, u, strength) -> x` with x (N, C, *spatial) float, u (N, count) uniform in [0, 1) and
`strength` in the unit that its docstring names; strength 0 is the identity. It draws nothing itself: the caller makes
`u` with `drawn`, a hash of (seed, epoch, item, operation): what is done to an item never depends on its batch.
Registered tags: `ndims`; `count(ndim) -> int` numbers an item; `default`, the strength
where none is given, and `most`, the largest that makes sense;
`domains` ("grid": before the network; "signal": on raw samples, before the front end; "spectrum": on (N, C, mel, time)
after it; a tag of the domain's name holds the arguments that it adds); `label_risk`: why it could change a label, ""
where it cannot. A geometric operation also has `matrix(u, strength, spatial) -> (N, ndim, ndim + 1)` (`nn/warp.py`)
and `exact`: true when it copies cells and never interpolates; `window`: true when it only chooses a box inside the
item, or mirrors it; `alternating`: true when what an epoch draws for an item is to be the opposite of the epoch before.
`alphabet` is that of the only sequences that it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from gridsight.core.errors import UsageError
from gridsight.core.registry import Registry
from gridsight.data.augment._guard import guard as guard
from gridsight.data.augment._guard import guarded as guarded

if TYPE_CHECKING:
    from torch import Tensor

Recipe = Sequence[tuple[str, float]]
"""Operations in the order in which they are applied, each with its strength."""

AUGMENTS = Registry("augmentation", "gridsight.data.augment")

LEAST = 64
"""Cells an axis from which on windows of bytes start and end at whole cells."""


def check(operations: Recipe, ndim: int, sound: bool = False, alphabet: str | None = None) -> None:
    """Refuse, as `UsageError`, a recipe with an unknown or repeated operation or with a strength out of range."""
    for name, strength in operations:
        tags = AUGMENTS.get(name).tags
        if not 0 <= strength <= tags["most"]:
            raise UsageError(f"augmentation {name} takes a strength from 0 to {tags['most']:g}, not {strength:g}")
        fits = ("signal", "spectrum") if sound else ("grid",)
        if not set(fits) & set(tags["domains"]):
            raise UsageError(f"augmentation {name} is not for {'sounds' if sound else 'data that are no sounds'}")
        if tags.get("alphabet", alphabet) != alphabet:
            wanted = {"dna": "DNA and RNA", "protein": "proteins"}[tags["alphabet"]]
            raise UsageError(f"augmentation {name} is for sequences of {wanted} alone")
        if ndim not in tags["ndims"] and tags["domains"] != ("spectrum",):
            raise UsageError(f"augmentation {name} works for ndim {', '.join(map(str, tags['ndims']))}, not {ndim}")
    names = [name for name, _ in operations]
    if len(set(names)) < len(names):
        raise UsageError(f"an augmentation is asked for twice in {', '.join(names)}; once each, in the order wanted")


def prepared(
    x: Tensor,
    items: Tensor,
    seed: int,
    epoch: int,
    operations: Recipe,
    scale: Callable[[Tensor], Tensor],
    domain: str = "grid",
) -> Tensor:
    """The batch x (N, C, *spatial) as cached, after `scale` and a recipe: `apply(scale(x), ...)`, on CPUs some at once.

    There the windows that a recipe for pictures of bytes begins with are cut out of the bytes, rounded to whole cells
    (at 64 or more an axis) and values: as from the files themselves, and three times as fast as from floats.
    """
    import torch

    from gridsight.nn.room import at_once, room
    from gridsight.nn.warp import window

    if x.device.type != "cpu":
        return apply(scale(x), items, seed, epoch, operations, domain)
    if domain == "grid" and x.dtype == torch.uint8 and x.dim() == 4 and x.shape[1] <= 4 and min(x.shape[2:]) >= LEAST:
        first = list(takewhile(lambda pair: AUGMENTS.get(pair[0]).tags.get("window", False), operations))
        matrix = _matrix(items, seed, epoch, first, tuple(x.shape[2:]))
        if matrix is not None:
            x, operations = window(x, matrix), operations[len(first) :]
    few = at_once(x)
    if len(x) <= few or not operations:
        return apply(scale(x), items, seed, epoch, operations, domain)
    out: Tensor | None = None
    for at in range(0, len(x), few):
        rows = slice(at, at + few)
        part = apply(scale(x[rows]), items[rows], seed, epoch, operations, domain)
        if out is None:
            last = not part.is_contiguous()  # `scale` chose channels-last memory
            shape = (len(x), *part.shape[2:], part.shape[1]) if last else (len(x), *part.shape[1:])
            out = room(shape, part.dtype).movedim(-1, 1) if last else room(shape, part.dtype)
        out[rows] = part
    assert out is not None
    return out


def drawn(items: Tensor, seed: int, epoch: int, name: str, ndim: int) -> Tensor:
    """The uniform numbers (N, count) of an operation; an alternating one's move by a half from epoch to epoch."""
    from gridsight.core import seed as random

    tags = AUGMENTS.get(name).tags
    if not tags.get("alternating", False):
        return random.uniform(seed, epoch, items, name, tags["count"](ndim))
    return (random.uniform(seed, 0, items, name, tags["count"](ndim)) + epoch / 2) % 1


def _matrix(items: Tensor, seed: int, epoch: int, operations: Recipe, spatial: tuple[int, ...]) -> Tensor | None:
    """The one matrix (N, ndim, ndim + 1) of geometric operations; None where none has a strength."""
    from gridsight.nn.warp import compose

    matrix: Tensor | None = None
    for name, strength in operations:
        if strength:
            new = AUGMENTS.get(name).tags["matrix"](drawn(items, seed, epoch, name, len(spatial)), strength, spatial)
            matrix = new if matrix is None else compose(matrix, new)
    return matrix


def apply(x: Tensor, items: Tensor, seed: int, epoch: int, operations: Recipe, domain: str = "grid") -> Tensor:
    """The batch x (N, C, *spatial), whose items have the numbers `items` (N,) int64, after a recipe; same shape.

    Runs the operations whose domain is `domain` and whose strength is not 0, in their order; neighbours that are
    geometric become one resampling. An item's result is a function of (seed, epoch, its number) and its cells alone.
    """
    import torch

    from gridsight.nn.warp import compose, warp, warp_exact

    ndim = x.dim() - 2
    channels_last = {2: torch.channels_last, 3: torch.channels_last_3d}.get(ndim, torch.contiguous_format)
    keep = channels_last if x.is_contiguous(memory_format=channels_last) else torch.contiguous_format
    matrix, exact = None, True

    def moved() -> Tensor:
        return x if matrix is None else (warp_exact if exact else warp)(x, matrix)

    for name, strength in operations:
        entry = AUGMENTS.get(name)
        if domain not in entry.tags["domains"] or strength == 0:
            continue
        u = drawn(items.to(x.device), seed, epoch, name, ndim)
        if "matrix" in entry.tags:
            new = entry.tags["matrix"](u, strength, tuple(x.shape[2:]))
            matrix = new if matrix is None else compose(matrix, new)
            exact = exact and entry.tags["exact"]
        else:
            x, matrix, exact = moved(), None, True
            operation: Callable[..., Tensor] = entry.item
            x = operation(x, u, strength, **entry.tags.get(domain, {}))
    return moved().contiguous(memory_format=keep)  # gathering rows loses channels-last memory: give it back
