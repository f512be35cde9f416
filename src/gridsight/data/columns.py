"""What the columns of a table mean, told by their names and by the cells of its first rows.

A table lists files (a manifest), or its rows are the items: one sequence of letters a row, or one series of numbers.
Whatever it is, one column may hold the label and one the split; the others are fields that items can be grouped by.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from gridsight.core.errors import UsageError, nearest
from gridsight.data.names import split_of
from gridsight.data.target import CLASS_WORDS, GRADE_WORDS, SET_WORDS

PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image_path", "img_path", "audio_path")
_FIRST = ("label", "class", "category", "target", "labels", "classes", "tags", "y", "value", "grade")
LABELS = (*_FIRST, *sorted((CLASS_WORDS | SET_WORDS | GRADE_WORDS) - {*_FIRST}))
SPLIT_NAMES = ("split", "subset", "partition", "set")
SEQUENCES = ("sequence", "seq", "dna", "rna", "protein", "peptide")
TIMES = ("time", "timestamp", "datetime", "date", "seconds", "sec", "ms", "t", "index", "idx", "step", "frame", "")
IDS = ("id", "index", "idx", "name", "row", "key", "no", "case", "patient", "subject", "speaker", "group", "fold", "")
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "?"})
"""Cells without a value, in lower case."""
FEWEST = 8  # numeric columns that make a series; fewer are a list of features, which lie on no grid
FEW = 5  # of so many cells one may be wrong without its column becoming another
LETTERS = 10  # of a sequence whose column's name does not say that it is one
CLASSES = 100  # that numbers of a column without a name may stand for

_LETTERS = re.compile(r"[A-Za-z*-]+$")

Cells = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Roles:
    """Column numbers. `files`: of the paths; `sequence`: of the letters; `series`: of the steps, in order."""

    kind: Literal["files", "sequences", "series", "other"]
    files: int = -1
    sequence: int = -1
    series: tuple[int, ...] = ()
    label: int | None = None
    split: int | None = None

    def fields(self, names: Sequence[str]) -> dict[int, str]:
        """The columns that are nothing else."""
        used = {self.files, self.sequence, self.label, self.split, *self.series}
        return {i: name for i, name in enumerate(names) if i not in used}


def plain(name: str) -> str:
    """A column's name as it is compared: "Age [years]" is "age", "File Name" is "file_name"."""
    return re.sub(r"[\s-]+", "_", re.sub(r"\s*[\[(][^\[\]()]*[\])]\s*$", "", name.strip().lower()))


def has_header(first: Sequence[str], rest: Cells) -> bool:
    """Whether the first row names the columns: by known words, else by being unlike what is below."""
    words = {plain(cell) for cell in first} - {""}
    if words & {*PATHS, *LABELS, *SPLIT_NAMES, *SEQUENCES}:
        return True
    columns = list(zip(first, zip(*rest, strict=False), strict=False))
    if any(top and not is_number(top) and _numbers(below) for top, below in columns):
        return True
    if not rest or any(is_number(top) or top in below for top, below in columns):
        return False
    return all(re.fullmatch(r"[^\W\d][\w ()\[\]-]{0,29}", cell) for cell in first)


def roles(
    names: Sequence[str],
    rows: Cells,
    *,
    named: bool = True,
    files: Callable[[Sequence[str]], bool] = lambda cells: False,
    target: str | None = None,
    group: str | None = None,
    labelled: bool = True,
) -> Roles:
    """What the columns are. `named`: the table has a header; `files` tells whether cells are the paths of files.

    Raises `UsageError` when the label cannot be told, unless it need not be (`labelled`). What is nothing known is
    "other".
    """
    columns = [[row[i] for row in rows] for i in range(len(names))]
    keys = [plain(name) if named and name != f"column {i}" else "" for i, name in enumerate(names, 1)]
    wanted = None if target is None else find_column(target, names, "--target")
    split = _split(keys, columns, wanted)
    kept = {wanted, split, names.index(group) if group in names else None}
    numeric = {i for i, cells in enumerate(columns) if _numbers(cells)}
    path = next((keys.index(word) for word in PATHS if word in keys), None)
    if path is None or (len(numeric) >= FEWEST and not files(columns[path])):
        path = next((i for i, cells in enumerate(columns) if i not in {*kept, *numeric} and files(cells)), None)

    def label_of(*taken: int | None, ids: bool = True) -> int | None:
        try:
            return _label(names, keys, columns, {*taken, split}, wanted, ids)
        except UsageError:
            if labelled:
                raise
            return None

    if path is not None:
        return Roles("files", files=path, label=label_of(path), split=split)
    sequence = _sequence(keys, columns, kept)
    if sequence is not None:
        return Roles("sequences", sequence=sequence, label=label_of(sequence), split=split)
    label = wanted if wanted is not None else _label_beside(keys, columns, numeric, kept, named)
    steps = numeric - {*kept, label} - {i for i, key in enumerate(keys) if named and key in IDS}
    run = _run([i in steps for i in range(len(names))])
    if len(run) < FEWEST:
        return Roles("other", label=label, split=split)
    return Roles("series", series=run, label=label_of(*run, ids=False) if label is None else label, split=split)


def find_column(name: str, names: Sequence[str], option: str) -> int:
    """The number of a column by its name, in any case; of a table without a header by its place, from 1."""
    if name in names:
        return names.index(name)
    alike = [i for i, other in enumerate(names) if plain(other) == plain(name)]
    if len(alike) == 1:
        return alike[0]
    if name.isdecimal() and f"column {name}" in names:
        return names.index(f"column {name}")
    raise UsageError(f"there is no column {name!r} for {option}; {nearest(name, names)}")


def has_column(name: str, names: Sequence[str]) -> bool:
    """Whether there is one column of that name."""
    try:
        return bool(name) and find_column(name, names, "") >= 0
    except UsageError:
        return False


def is_missing(cell: str) -> bool:
    """Whether a cell has no value."""
    return cell.lower() in MISSING


def is_number(cell: str) -> bool:
    """Whether a cell is a number as people write it, infinite ones too."""
    try:
        return float(cell) is not None and "_" not in cell
    except ValueError:
        return False


def _numbers(cells: Sequence[str]) -> bool:
    """Whether cells are numbers, but for a few: a wrong cell among many is an error of its row."""
    there = [cell for cell in cells if not is_missing(cell)]
    return bool(there) and sum(not is_number(cell) for cell in there) <= len(there) // FEW


def _split(keys: Sequence[str], columns: Sequence[Sequence[str]], wanted: int | None) -> int | None:
    for word in SPLIT_NAMES:
        if word in keys and keys.index(word) != wanted:
            i = keys.index(word)
            # "set" and the like may mean anything; a column called split is one, and other words in it are errors
            if word == "split" or all(split_of(cell) or not cell for cell in columns[i]):
                return i
    return None


def _sequence(keys: Sequence[str], columns: Sequence[Sequence[str]], kept: set[int | None]) -> int | None:
    """The column of letters: named so, else the longest of those that hold nothing else."""
    best: tuple[float, int] | None = None
    for i, cells in enumerate(columns):
        if i in kept or keys[i] in LABELS or not cells:
            continue
        named = keys[i] in SEQUENCES
        length = fmean(map(len, cells))
        if not named and (length < LETTERS or 2 * len(set(cells)) <= len(cells)):
            continue  # words, or few of them that come again and again
        if sum(not _LETTERS.match(cell) for cell in cells) <= len(cells) // FEW:
            best = max(best or (-1.0, i), (length + 1e9 * named, i))
    return None if best is None else best[1]


def _label(
    names: Sequence[str],
    keys: Sequence[str],
    columns: Sequence[Sequence[str]],
    taken: set[int | None],
    wanted: int | None,
    ids: bool = True,
) -> int:
    """The column of the labels: as told, by its name, or the only one left; without `ids` not if it looks like one."""
    if wanted is not None:
        return wanted
    free = [i for i in range(len(names)) if i not in taken]
    by_name = next((keys.index(word) for word in LABELS if word in keys and keys.index(word) in free), None)
    if by_name is not None:
        return by_name
    if not free:
        raise UsageError(
            f"no column is left for the label ({', '.join(names)} are something else): call it label, or name it with "
            "--target NAME"
        )
    for share in (0.9999, 0.5):  # what differs in every row, or in most, is a name
        if len(free) > 1:
            few = [i for i in free if keys[i] not in IDS[:-1] and len(set(columns[i])) <= share * len(columns[i])]
            free = few or free
    if len(free) > 1:
        listed = ", ".join(names[i] for i in free[:10]) + (", ..." if len(free) > 10 else "")
        raise UsageError(f"which column is the label, {listed}? say it: --target NAME")
    last, cells = free[0], columns[free[0]]
    if not ids and (keys[last] in IDS[:-1] or len(set(cells)) == len(cells) > FEW):
        raise UsageError(
            f"no column looks like the label: {names[last]} names the rows; say which it is: --target NAME"
        )
    return last


def _label_beside(
    keys: Sequence[str], columns: Sequence[Sequence[str]], numeric: set[int], kept: set[int | None], named: bool
) -> int | None:
    """The column of labels beside a series: by its name, the only text that repeats, or class numbers at an end."""
    by_name = next((keys.index(word) for word in LABELS if word in keys and keys.index(word) not in kept), None)
    if by_name is not None:
        return by_name
    texts = [
        i
        for i, cells in enumerate(columns)
        if i not in numeric and i not in kept and (not named or keys[i] not in IDS) and 1 < len(set(cells)) < len(cells)
    ]
    if texts or named:
        return texts[0] if len(texts) == 1 else None
    ends = [i for i in (0, len(columns) - 1) if i in numeric and i not in kept and _class_numbers(columns[i])]
    if len(ends) == 2:
        raise UsageError(f"which column is the label, the first or the last? say --target 1 or --target {len(columns)}")
    return ends[0] if ends else None


def _class_numbers(cells: Sequence[str]) -> bool:
    values = {float(cell) for cell in cells if is_number(cell)}
    whole = all(value.is_integer() for value in values)
    return whole and 1 < len(values) <= min(CLASSES, max(2, len(cells) // 4))


def _run(usable: Sequence[bool]) -> tuple[int, ...]:
    """The longest stretch of columns that follow each other."""
    best: tuple[int, ...] = ()
    here: list[int] = []
    for i, good in enumerate(usable):
        here = [*here, i] if good else []
        if len(here) > len(best):
            best = tuple(here)
    return best
