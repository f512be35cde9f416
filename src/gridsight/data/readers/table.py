"""Tables whose cells are the data: CSV, TSV and their kin, UCI's .data, Parquet (`data/table.py` reads them as text).

`read`, many items a file, told apart by the columns (`data/columns.py`):
- one sequence a row: letters of DNA, RNA or protein, one-hot (C, L) uint8 (`data/alphabet.py`), one alphabet a file;
- one series a row: numeric columns that follow each other, (1, T) float32; cells without a value at the end of a row
  (empty, NaN) end the series there, as UCR's tables pad shorter ones; elsewhere they are an error of that row.
The label and split columns are those of `columns.roles`; `target` names another label, `group` the column of groups.

`read_single`, one item a file, as in a class folder: rows are steps and columns channels, (C, T) float32. A column of
time is left out: the first one, if it is called time, index, ... and rises (or is no number), or if the table has no
header and it rises evenly. Steps are taken as even; nothing is resampled.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from gridsight.core.errors import ReadError, UsageError
from gridsight.data import rows
from gridsight.data.alphabet import guess, one_hot
from gridsight.data.columns import TIMES, Roles, find_column, has_column, is_missing, is_number, plain, roles
from gridsight.data.files import File
from gridsight.data.names import split_in, split_said
from gridsight.data.readers import READERS, Reader
from gridsight.data.sample import Sample
from gridsight.data.table import PARQUET, Row, Table, separator

SUFFIXES = (".csv", ".tsv", ".tab", ".data", ".parquet", ".pq")
MAX_CELLS = 250_000_000  # of one item: 1 GB as float32
BLOCK = 4096  # rows of numbers converted at once
FLATTEST = 1e-4  # how evenly a column without a name must rise to be the time: steps differ by so much at most


@READERS.register(
    "table",
    suffixes=SUFFIXES,
    ndims=(1,),
    many=True,
    truncated="text without a count: cut after a whole row it is a shorter table",
)
class TableReader(Reader):
    """Rows of sequences or series, or one series a file."""

    def __init__(self, target: str | None = None, group: str | None = None, alphabet: str | None = None) -> None:
        self.target, self.group, self.alphabet = target, group, alphabet

    def sniff(self, file: File, head: bytes) -> bool:
        if head.startswith(PARQUET):
            return True
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = head[: len(head) // 2 * 2].decode("utf-16", "replace")
        else:
            text = head.decode("utf-8-sig", "ignore")
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines or "\0" in text or any(letter < " " and letter not in "\t\r\n" for letter in text):
            return False
        if lines[0][0] in "@#>;<{%[":  # .ts, FASTA, XML, JSON, ARFF
            return False
        if file.name.lower().endswith(SUFFIXES):
            return True
        # without a suffix that says so, all lines must be alike
        lines = lines[:-1] if len(head) >= 512 else lines
        mark = separator(lines) if lines else ""
        return len(lines) > 1 and bool(mark) and len({line.count(mark) for line in lines}) == 1

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        table = Table(file)
        found = self._roles(table)
        if found.kind == "files":
            raise ReadError(file, "lists files; give it by itself to read them")
        if found.kind == "other":
            yield self._single(table)
            return
        yield from self._rows(table, found)

    def read_single(self, file: File, axes: str | None = None) -> Sample:
        return self._single(Table(file))

    def read_as(self, file: File, ndim: int, channels: int, axes: str | None = None) -> Iterator[Sample | ReadError]:
        if ndim != 1:
            raise ReadError(
                file, f"is a table, and the model takes items of {ndim} axes; name it by itself for the files it lists"
            )
        table = Table(file)
        # what is no data is left out as in training, and may be missing: labels, splits and groups are not needed
        found = replace(self._roles(table, labelled=False, asked=False), label=None, split=None)
        if found.kind == "sequences" or (found.kind == "series" and channels == 1):
            yield from self._rows(table, found, grouped=False)
        else:
            yield self._single(table)

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        series = np.arange(30, dtype=np.float32).reshape(3, 10) / 8
        labels, splits = ["left", "süd, west", "left"], ["train", "train", "test"]
        by_row = folder / "series.csv"
        text = "".join(
            ",".join(map(str, values)) + f',{split},"{label}"\r\n'
            for values, split, label in zip(series, splits, labels, strict=True)
        )
        header = ",".join(f"t{i}" for i in range(10)) + ",split,label\r\n"
        by_row.write_bytes(("\ufeff" + header + text).encode())
        letters = folder / "letters.tsv"
        texts = ["ACGTACGTACGT", "acgtnACGTAC", "GGGTTTAAACCC"]
        letters.write_text(
            "sequence\tid\tclass\n" + "".join(f'{text}\ts{i}\t"{i % 2}"\n' for i, text in enumerate(texts))
        )
        # no table that is one item: cut short after a row, it is a shorter item and nothing tells
        return [
            (
                by_row,
                [
                    Sample(series[i : i + 1], f"{by_row}[{i}]", labels[i], splits[i], column="label")
                    for i in range(len(series))
                ],
            ),
            (
                letters,
                [
                    Sample(one_hot(text, "dna"), f"{letters}[{i}]", str(i % 2), alphabet="dna", column="class")
                    for i, text in enumerate(texts)
                ],
            ),
        ]

    def describe(self, file: File) -> str:
        """What a file that is one item holds, in words."""
        table = Table(file)
        left_out = _time(table)
        kept = [name for i, name in enumerate(table.names) if i != left_out]
        words = f"{len(kept):,} channels ({', '.join(kept[:6])}{', ...' if len(kept) > 6 else ''}), a step a row"
        return words if left_out is None else f"{words}; {table.names[left_out]} counts the steps and is left out"

    def _roles(self, table: Table, labelled: bool = True, asked: bool = True) -> Roles:
        """What the columns are; without `asked` the reader's own need not be there."""
        target, group = (
            name if name and (asked or has_column(name, table.names)) else None for name in (self.target, self.group)
        )
        try:
            return roles(
                table.names,
                table.sample,
                named=table.named,
                target=target,
                group=group,
                labelled=labelled,
            )
        except UsageError as error:
            raise ReadError(table.file, str(error)) from None

    # ---- an item a row

    def _rows(self, table: Table, found: Roles, grouped: bool = True) -> Iterator[Sample | ReadError]:
        column = table.names[found.label] if found.label is not None and table.named else None
        group = find_column(self.group, table.names, "--group") if self.group and grouped else None
        alphabet = None
        if found.kind == "sequences":
            alphabet = self.alphabet or guess(row[found.sequence] for row in table.sample)
        whole = split_in(table.file.name)[0]
        for index, row in enumerate(table.rows()):
            name = f"{table.file}[{index}]"
            try:
                if row.problem:
                    raise ValueError(row.problem)
                label = None if found.label is None else row.cells[found.label]
                if label is not None and is_missing(label):
                    raise ValueError("its label is missing")
                if alphabet is not None:
                    array = one_hot(row.cells[found.sequence], alphabet)
                else:
                    array = _series([row.cells[i] for i in found.series])[None]
                yield Sample(
                    array,
                    name,
                    label,
                    whole if found.split is None else split_said(row.cells[found.split]),
                    None if group is None else name if is_missing(row.cells[group]) else row.cells[group],
                    alphabet=alphabet,
                    column=column,
                )
            except ValueError as error:
                yield ReadError(name, f"{row.place}: {error}")

    # ---- one item

    def _single(self, table: Table) -> Sample:
        blocks: list[np.ndarray] = []
        waiting: list[Row] = []
        left_out, cells = _time(table), 0
        kept = [i for i in range(len(table.names)) if i != left_out]
        if not kept:
            raise ReadError(table.file, "has a column of time and no other")

        def convert() -> None:
            blocks.append(_block(table.file, waiting, kept))
            waiting.clear()

        for row in table.rows():
            if row.problem:
                raise ReadError(table.file, f"{row.place}: {row.problem}")
            waiting.append(row)
            cells += len(kept)
            if cells > MAX_CELLS:
                raise ReadError(table.file, f"is one item of more than {MAX_CELLS:,} values")
            if len(waiting) == BLOCK:
                convert()
        if waiting:
            convert()
        if not blocks:
            raise ReadError(table.file, "has a header and no rows")
        return Sample(np.ascontiguousarray(np.concatenate(blocks).T), str(table.file))


def _series(cells: list[str]) -> np.ndarray:
    """(T,) float32 of one row."""
    end = len(cells)
    while end and is_missing(cells[end - 1]):
        end -= 1
    if not end:
        raise ValueError("it has no values")
    try:
        values = np.array(cells[:end], np.float64)
    except ValueError:
        raise ValueError(_no_number(cells[:end])) from None
    with np.errstate(over="ignore"):
        array = values.astype(np.float32)
    if bad := array.size - np.count_nonzero(np.isfinite(array)):
        if np.isnan(values).sum() == bad:
            raise ValueError(f"{bad:,} of {end:,} values {'is' if bad == 1 else 'are'} missing")
        raise ValueError(rows.not_finite(int(bad), array.size))
    return array


def _no_number(cells: list[str]) -> str:
    empty = sum(map(is_missing, cells))
    wrong = next((cell for cell in cells if not is_missing(cell) and not is_number(cell)), None)
    if wrong is None:
        return f"{empty:,} of {len(cells):,} values {'is' if empty == 1 else 'are'} missing"
    shown = wrong if len(wrong) <= 30 else wrong[:30] + "..."
    return f"{shown!r} is not a number" + (
        " (write decimals with a point)" if is_number(wrong.replace(",", ".")) else ""
    )


def _block(file: File, waiting: list[Row], kept: list[int]) -> np.ndarray:
    """(rows, channels) float32; the first wrong cell is a `ReadError` with its place."""
    try:
        values = np.array([[row.cells[i] for i in kept] for row in waiting], np.float64)
        with np.errstate(over="ignore"):
            array = values.astype(np.float32)
        if np.isfinite(array).all():
            return array
    except ValueError:
        pass
    for row in waiting:
        try:
            _series([*(row.cells[i] for i in kept), "0"])
        except ValueError as error:
            raise ReadError(file, f"{row.place}: {_of_row(str(error), len(kept))}") from None
    raise ReadError(file, "holds values that are no numbers")


def _of_row(words: str, count: int) -> str:
    # the check above had a number more
    return words.replace(f"of {count + 1:,} values", f"of {count:,} values")


def _time(table: Table) -> int | None:
    """The number of the column that counts the steps, None when there is none."""
    first = [row[0] for row in table.sample]
    if not first or len(table.names) < 2:
        return None
    numbers = all(map(is_number, first))
    if table.named and (plain(table.names[0]) in TIMES or table.names[0] == "column 1"):
        if not numbers:
            return 0  # dates and clocks
        return 0 if bool((np.diff(np.array(first, np.float64)) > 0).all()) else None
    if table.named or not numbers or len(first) < 3:
        return None
    steps = np.diff(np.array(first, np.float64))
    even = steps.min() > 0 and steps.max() - steps.min() <= FLATTEST * steps.max()
    return 0 if even else None
