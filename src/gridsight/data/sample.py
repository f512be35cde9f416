"""What a reader gives: one item as an array with what its file says about it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Sample:
    """`array` (C, *spatial) in the file's own type: uint8, uint16, int16, float32 or float64, never rescaled.

    `path` names the item as the user would: `a.png`, `a.zip!x.png`, `x.npy[12]`. `label`, `split` ("train", "val",
    "test") and `group` are what the file itself says, None where it says nothing. `rate` is in samples a second,
    `spacing` in millimetres between cells, one number an axis. `alphabet` ("dna" or "protein") marks one-hot sequences
    as `data/alphabet.py` writes them. A label that is no class but a number or a set of classes comes with `column`,
    the name of what it was read from; `data/target.py` says how such texts are understood.
    """

    array: np.ndarray
    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    rate: float | None = None
    spacing: tuple[float, ...] | None = None
    alphabet: str | None = None
    column: str | None = None


@dataclass(frozen=True)
class Header:
    """What can be known of a file's items without decoding them; `count` items of shape (channels, *spatial)."""

    channels: int
    spatial: tuple[int, ...]
    dtype: str
    rate: float | None = None
    count: int = 1
    spacing: tuple[float, ...] | None = None
    alphabet: str | None = None

    @classmethod
    def of(cls, sample: Sample) -> "Header":
        """The header of a decoded item."""
        shape = sample.array.shape
        return cls(
            shape[0],
            shape[1:],
            sample.array.dtype.name,
            sample.rate,
            spacing=sample.spacing,
            alphabet=sample.alphabet,
        )
