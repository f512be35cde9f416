"""Tables as text, a row at a time: CSV, TSV and their kin, UCI's .data, and Parquet.

Text (RFC 4180 and what people make of it): cells parted by a tab, comma, semicolon or bar, whichever parts the first
rows best; quotes around cells that hold separators or line ends; UTF-8 with or without a byte order mark, UTF-16 with
one; any line ends; blank lines count for nothing; a header or none (`columns.has_header`), then columns are called
"column 1", "column 2", ... Parquet (https://parquet.apache.org) needs pyarrow. A row with another number of cells than
the first is an error with its place, and the others go on. No more than a row is held, and no more than `MAX_LINE`.
"""

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from gridsight.core.errors import ReadError
from gridsight.data import rows
from gridsight.data.columns import has_header
from gridsight.data.files import File

T = TypeVar("T")
PARQUET = b"PAR1"
SEPARATORS = "\t,;|"
LOOK = 1000  # rows that say what the columns are
LOOK_CELLS = 200_000  # at most so many cells of them
LOOK_LETTERS = 16 << 20  # and about so many characters
MAX_LINE = 64 << 20  # characters
MAX_COLUMNS = 1_000_000
MAX_QUOTED = 100  # lines of one row
MAX_PARQUET = 16 << 30  # bytes that it unpacks to
MAX_GROUP = 2 << 30  # bytes of one group of rows of Parquet
MAX_TEXT = 256 << 20  # bytes of one column of text of a group: one long text may be that of every row
MAX_BATCH = 256 << 20  # bytes of text that rows read at once may unpack to


@dataclass(frozen=True)
class Row:
    """One row: its place as people count ("line 7", "row 7"), its cells without spaces around; or what is wrong."""

    place: str
    cells: list[str] = field(default_factory=list)
    problem: str = ""


class Table:
    """The table of a file: `names` of the columns, `named` by a header or by their places; `sample`, the first rows."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._parquet = file.head(4) == PARQUET
        if self._parquet:
            with _parquet(file) as opened:
                self.names, self.named = _parquet_names(file, opened), True
            self.separator = ""
        else:
            with _lines(file) as lines:
                first = list(_some((line for _, line in _there(lines)), 50, len))
            if not first:
                raise ReadError(file, "is empty: it has no rows")
            self.separator = separator(first)
            self.names, self.named = self._header()
        if len(self.names) > MAX_COLUMNS:
            raise ReadError(file, f"has {len(self.names):,} columns; at most {MAX_COLUMNS:,} are read")
        twice = [name for i, name in enumerate(self.names) if name and name in self.names[:i]] if self._few() else []
        if twice:
            raise ReadError(file, f"has two columns called {twice[0]!r}; give each a name of its own")
        count = max(20, min(LOOK, LOOK_CELLS // len(self.names)))
        self.sample = [row.cells for row in _some(self.rows(), count, _letters) if not row.problem]

    def rows(self) -> Iterator[Row]:
        """Every row below the header, in order."""
        if self._parquet:
            with _parquet(self.file) as opened:
                yield from _parquet_rows(self.file, opened)
            return
        with _lines(self.file) as lines:
            yield from islice(_parsed(lines, self.separator, len(self.names)), int(self.named), None)

    def _header(self) -> tuple[list[str], bool]:
        with _lines(self.file) as lines:
            some = list(_some(_parsed(lines, self.separator), 100, _letters))
        if some[0].problem:
            raise ReadError(self.file, f"{some[0].place}: {some[0].problem}")
        first = some[0].cells
        rest = [row.cells for row in some[1:] if len(row.cells) == len(first)]
        if has_header(first, rest):
            return [name or f"column {i}" for i, name in enumerate(first, 1)], True
        return [f"column {i}" for i in range(1, len(first) + 1)], False

    def _few(self) -> bool:
        return len(self.names) <= 10_000  # the columns of a very wide table are steps, whatever their names


def _some(things: Iterator[T], count: int, letters: Callable[[T], int]) -> Iterator[T]:
    """The first things, as many as can be looked at in little memory."""
    seen = 0
    for thing in islice(things, count):
        yield thing
        seen += letters(thing)
        if seen > LOOK_LETTERS:
            return


def _letters(row: Row) -> int:
    return sum(map(len, row.cells))


def separator(lines: list[str]) -> str:
    """What parts cells: of what the first line holds, that which parts the others into as many; "" when nothing."""
    best = (0.0, 0, "")
    for rank, mark in enumerate(SEPARATORS):
        wanted = _cells(lines[0], mark)
        if wanted > 1:
            share = sum(_cells(line, mark) == wanted for line in lines) / len(lines)
            best = max(best, (share, -rank, mark))
    return best[2]


def _cells(line: str, mark: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=mark)))
    except (csv.Error, StopIteration):
        return 0


# ---- text


@contextmanager
def _lines(file: File) -> Iterator[Iterator[tuple[int, str]]]:
    """Lines with their numbers, from 1, without their ends."""
    if file.size() == 0:
        raise ReadError(file, "is empty (0 bytes)")
    wide = file.head(2) in (b"\xff\xfe", b"\xfe\xff")
    encoding = "utf-16" if wide else "utf-8-sig"
    with rows.reading(file), file.open() as stream, io.TextIOWrapper(stream, encoding) as text:  # type: ignore[type-var]

        def numbered() -> Iterator[tuple[int, str]]:
            number = 0
            try:
                while line := text.readline(MAX_LINE):
                    number += 1
                    if len(line) == MAX_LINE:
                        raise ReadError(file, f"line {number} has more than {MAX_LINE:,} characters")
                    if "\0" in line:
                        raise ReadError(file, f"line {number} holds zero bytes: it is no table of text")
                    yield number, line.rstrip("\n")
            except UnicodeError:
                what = "UTF-16" if wide else "UTF-8"
                raise ReadError(file, f"is no {what} text after line {number}; save it as CSV UTF-8") from None

        yield numbered()


def _there(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Lines that hold something."""
    return ((number, line) for number, line in lines if line.strip(" \t,;|"))


def _parsed(lines: Iterator[tuple[int, str]], mark: str, wanted: int | None = None) -> Iterator[Row]:
    """Rows of lines; one that is wrong never takes the lines after it along. `wanted` is the number of cells."""
    waiting: deque[tuple[int, str]] = deque()

    def take() -> tuple[int, str] | None:
        return waiting.popleft() if waiting else next(lines, None)

    for number, line in _there(iter(take, None)):
        if '"' not in line:
            cells, problem = [cell.strip() for cell in line.split(mark)] if mark else [line.strip()], ""
        else:
            cells, problem = _quoted([line], mark)
        if problem == _OPEN:  # the cell goes on in the lines below, or its quote is never closed
            more: list[tuple[int, str]] = []
            while len(more) < MAX_QUOTED and (below := take()) is not None:
                more.append(below)
                if below[1].count('"') % 2:
                    break
            several, wrong = _quoted([line, *(text for _, text in more)], mark)
            if not wrong and len(several) == (wanted or len(several)):
                cells, problem = several, ""
            else:
                waiting.extendleft(reversed(more))
        if not problem and len(cells) != (wanted or len(cells)):
            problem = f"it has {len(cells):,} cells where {wanted:,} are wanted"
        yield Row(f"line {number}", problem=problem) if problem else Row(f"line {number}", cells)


_OPEN = "a quote is opened and not closed"


def _quoted(lines: list[str], mark: str) -> tuple[list[str], str]:
    """The cells of one row with quotes, or what is wrong with it."""
    try:
        found = list(
            csv.reader([line + "\n" for line in lines], delimiter=mark or "\0", strict=True, skipinitialspace=True)
        )
    except csv.Error as error:
        words = str(error)
        return [], _OPEN if "unexpected end" in words else f"its quotes make no sense ({words})"
    return ([cell.strip() for cell in found[0]], "") if len(found) == 1 else ([], _OPEN)


# ---- Parquet


@contextmanager
def _parquet(file: File) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        from gridsight.data.readers import missing

        raise missing(file, "pyarrow", "tables") from None
    with rows.reading(file), file.open() as stream:
        try:
            with pyarrow.parquet.ParquetFile(
                stream, thrift_string_size_limit=64 << 20, thrift_container_size_limit=10_000_000
            ) as opened:
                yield opened
        except (pyarrow.ArrowException, ValueError, TypeError) as error:
            words = (str(error).splitlines() or [""])[0]
            raise ReadError(file, f"is a broken Parquet file ({words[:200]})") from None


def _parquet_names(file: File, opened: Any) -> list[str]:
    import pyarrow.types

    meta = opened.metadata
    if not meta.num_rows or not meta.num_columns:
        raise ReadError(file, "is empty: it has no rows")
    sizes = [meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)]
    if sum(sizes) > MAX_PARQUET or max(sizes, default=0) > MAX_GROUP or min(sizes, default=0) < 0:
        raise ReadError(file, f"unpacks to {sum(sizes):,} bytes, {max(sizes):,} in one group of rows; that is too much")
    for column in opened.schema_arrow:
        if pyarrow.types.is_nested(column.type) or pyarrow.types.is_binary(column.type):
            raise ReadError(file, f"its column {column.name!r} holds {column.type}, not numbers or text")
    return [str(name) for name in opened.schema_arrow.names]


def _parquet_rows(file: File, opened: Any) -> Iterator[Row]:
    number, texts = 0, _most_text(opened)
    if texts > MAX_TEXT:
        raise ReadError(file, f"has {texts:,} bytes of text in a group of rows; write groups of fewer rows")
    step = max(1, min(1024, 1_000_000 // len(opened.schema_arrow.names), MAX_BATCH // max(texts, 1)))
    for batch in opened.iter_batches(batch_size=step, use_threads=False):
        columns = [[_cell(value) for value in column.to_pylist()] for column in batch.columns]
        for cells in zip(*columns, strict=True):
            number += 1
            yield Row(f"row {number}", list(cells))


def _most_text(opened: Any) -> int:
    """The bytes of the largest column of text of a group of rows."""
    import pyarrow.types

    meta = opened.metadata
    texts = [i for i, one in enumerate(opened.schema_arrow) if not pyarrow.types.is_primitive(one.type)]
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    return max((group.column(i).total_uncompressed_size for group in groups for i in texts), default=0)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))  # a column of class numbers becomes one of floats as soon as one is missing
    return "" if value is None else str(value).strip()
