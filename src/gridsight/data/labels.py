"""What an array of labels says of each item: a class, a number or a set of classes, as the texts of `data/target.py`.

(n,) or (n, 1): integers, whole floats, booleans and texts are classes, texts with a ";" sets of them; floats of which
some are not whole are numbers, in a column called "y". (n, K) of 0 and 1: a set an item, in a column called "labels".
Where every row has exactly one 1 it is most likely one class an item written one-hot, so it is read as that, in a
column called "one-hot y"; `--task multilabel` takes it back. The file may name the classes, else they are numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data.target import EMPTY

NUMBERS, SETS, ONE_HOT = "y", "labels", "one-hot y"
"""What columns are called where the file has no names for them; `data/target.py` goes by these."""


@dataclass(frozen=True)
class Labels:
    """`texts` (n,), None where a label is missing; `column` is what a `Sample` is given with them."""

    texts: list[str | None]
    column: str | None = None

    def __len__(self) -> int:
        return len(self.texts)


def read_labels(file: object, array: np.ndarray, count: int, names: Sequence[str] | None = None) -> Labels:
    """The labels of `count` items; `names` are those of the classes in order."""
    if array.ndim == 2 and array.shape[1] == 1:  # MedMNIST's
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise ReadError(
            file, f"labels have shape {array.shape}; ({count},) is wanted, or ({count}, classes) of 0 and 1"
        )
    if len(array) != count:
        raise ReadError(file, f"{len(array):,} labels for {count:,} items")
    if array.ndim == 2:
        return _sets(file, array, names)
    if array.dtype.kind in "US":
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8", "replace")
        texts = array.tolist()
        return Labels([text.strip() or None for text in texts], SETS if any(";" in text for text in texts) else None)
    if array.dtype.kind == "f":
        if np.isinf(array).any():
            raise ReadError(file, "labels are infinite; a number an item is wanted, NaN where it is missing")
        known = ~np.isnan(array)
        if (array[known] != np.round(array[known])).any():
            # the shortest text that reads back as the same number of its type: 0.1, not 0.10000000149
            return Labels([str(value) if there else None for value, there in zip(array, known, strict=True)], NUMBERS)
        numbers = [int(value) if there else None for value, there in zip(array, known, strict=True)]
    elif array.dtype.kind in "biu":
        numbers = [int(value) for value in array.tolist()]
    else:
        raise ReadError(file, f"labels are of type {array.dtype}; numbers or text are wanted")
    if names and all(number is None or 0 <= number < len(names) for number in numbers):
        return Labels([None if number is None else names[number] for number in numbers])
    return Labels([None if number is None else str(number) for number in numbers])


def _sets(file: object, array: np.ndarray, names: Sequence[str] | None) -> Labels:
    """The sets of classes that rows (n, K) of 0 and 1 mark, or the one class of each."""
    shape, k = array.shape, array.shape[1]
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise ReadError(
            file,
            f"labels have shape {shape} and other values than 0 and 1; a class or a number an item is ({shape[0]},), "
            "a set of classes a row of 0 and 1 (of scores or a one-hot code with other values: save y.argmax(1))",
        )
    if names is None:
        names = [str(i) for i in range(k)]
    if len(names) != k or len(set(names)) != k:
        raise ReadError(file, f"labels have {k} columns and {len(set(names))} different names of classes are there")
    if bad := [name for name in names if ";" in name]:
        raise ReadError(file, f"the class {bad[0]!r} has a ; in its name, which parts the classes of a set")
    if (array.sum(1) == 1).all():
        return Labels([names[i] for i in array.argmax(1).tolist()], ONE_HOT)
    return Labels([";".join(names[i] for i in np.flatnonzero(row).tolist()) or EMPTY for row in array], SETS)
