"""DataSpec: what was understood of the data, printed before training and kept in the model file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from gridsight.core.console import tuples
from gridsight.core.errors import DataError

Kind = Literal["image", "sound", "series", "sequence", "volume", "video"]
Fit = Literal["exact", "crop", "pad", "mask", "patch"]
TaskName = Literal["classify", "multilabel", "regress", "grade"]


@dataclass(frozen=True)
class DataSpec:
    """Everything that a model must know to read an item as it was trained on.

    `spatial` is the size every item is brought to: `fit` says how ("exact": they all have it; "crop": cut to its
    aspect, then resized; "pad": zeros at the end, longer ones cut in the middle; "mask": items keep their own size up
    to `spatial`, and networks are told by a mask which cells are real; "patch": items keep their own size, networks are
    trained on patches of `spatial` and answer about the whole item). `dtype` is the type of the decoded items,
    `rate` samples a second (sound), `sizes` the smallest and largest size seen, `alphabet` that of one-hot sequences
    ("dna", "protein"). `spacing` is the millimetres between cells that volumes are resampled to, `spacings` the
    smallest and largest that they have.

    `task` says what the labels are: `classes` to choose one or several of, ordered grades, or a number in `unit`;
    `target` names the column that they come from.
    """

    name: str
    kind: Kind
    ndim: int
    channels: int
    spatial: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...]
    fit: Fit = "exact"
    axes: str | None = None
    rate: float | None = None
    sizes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    counts: Mapping[str, tuple[int, ...]] | None = None
    split: str = ""
    group: str | None = None
    fields: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    alphabet: str | None = None
    task: TaskName = "classify"
    target: str = ""
    unit: str = ""
    spacings: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def full_scale(self) -> float:
        """The largest value of an integer type (255, 65535, ...); of a one-hot sequence its level; 1.0 for floats."""
        if self.alphabet is not None:
            return 60.0  # data/alphabet.py's LEVEL
        return {"uint8": 255.0, "uint16": 65535.0, "int16": 32768.0}.get(self.dtype, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataSpec":
        """The spec that `to_dict` wrote, JSON's lists turned back into tuples."""
        known = {field.name for field in fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise DataError(f"the model file's data description has unknown entries: {', '.join(sorted(unknown))}")
        return cls(**{name: tuples(value) for name, value in values.items()})
