"""Data sets that are computed instead of read: item i is a pure function of the set's name and i.

Their "file" is the module that makes them, so that a changed simulator is other data. Random numbers are those of
`core/seed.py`; values are rounded to uint8, so machines whose logarithms differ in the last bit give the same items.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gridsight.core import seed as hashing
from gridsight.core.errors import ReadError
from gridsight.data.files import File
from gridsight.data.readers import Reader
from gridsight.data.sample import Header, Sample
from gridsight.data.source import Item, Source


class Draws:
    """The random numbers of one item, or of one patient: each word names its own."""

    def __init__(self, name: str, index: int) -> None:
        self.name, self.index = name, index

    def uniform(
        self, what: str, count: int, low: float | Sequence[float] = 0.0, high: float | Sequence[float] = 1.0
    ) -> np.ndarray:
        """`count` numbers between `low` and `high` (of all, or of each), float64."""
        import torch

        drawn = hashing.uniform(hashing.key(self.name), 0, torch.tensor([self.index]), what, count)
        start, end = np.asarray(low), np.asarray(high)
        return start + (end - start) * drawn[0].numpy().astype(np.float64)

    def normal(self, what: str, count: int) -> np.ndarray:
        """`count` standard normal numbers, float64 (Box and Muller 1958)."""
        half = -(-count // 2)
        radius, angle = self.uniform(what, 2 * half).reshape(2, half)
        radius, angle = np.sqrt(-2 * np.log(1 - radius)), 2 * np.pi * angle
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def rotation(u: np.ndarray) -> np.ndarray:
    """(3, 3) uniform over all rotations, from three uniform numbers (Shoemake, Graphics Gems III, 1992)."""
    a, b = np.sqrt(1 - u[0]), np.sqrt(u[0])
    w, x = a * np.sin(2 * np.pi * u[1]), a * np.cos(2 * np.pi * u[1])
    y, z = b * np.sin(2 * np.pi * u[2]), b * np.cos(2 * np.pi * u[2])
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


class SimulatedReader(Reader):
    """Items `first` to `first + count - 1` of `make`, which all have the header `header`."""

    def __init__(self, make: Callable[[int], Sample], first: int, count: int, header: Header) -> None:
        self.make, self.first, self.count, self.header = make, first, count, header

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        """Every item with its label."""
        yield from map(self.make, range(self.first, self.first + self.count))

    def headers(self, file: File, axes: str | None = None) -> Iterator[Header]:
        """One for all."""
        header = self.header
        yield Header(header.channels, header.spatial, header.dtype, count=self.count, spacing=header.spacing)


def simulated(
    name: str,
    module: str,
    make: Callable[[int], Sample],
    header: Header,
    train: int,
    test: int,
    group: str | None = None,
) -> Source:
    """The source of `train` items followed by `test` items; `group` names what their groups are."""
    path = Path(module)
    file = File(path, None, path.parent)
    parts = {"train": (0, train), "test": (train, test)}
    readers = {
        f"{name} {part} {start}+{n}": SimulatedReader(make, start, n, header) for part, (start, n) in parts.items()
    }
    return Source(
        name,
        tuple(Item(file, reader, None, part) for reader, part in zip(readers, parts, strict=True)),
        readers,
        split=f"the simulator's last {test:,} items",
        group=group,
        fields=(group,) if group is not None else (),
        notes=("simulated: item i is a function of i",),
    )
