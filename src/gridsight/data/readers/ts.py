"""UCR/UEA time series, `.ts`: a series a line, dimensions parted by ":", class or number last. Items (C, T) float32.

Format: https://www.sktime.net/en/stable/api_reference/file_specifications/ts.html (header lines `@name value`, then
`@data`). Read: equal and unequal lengths, one and many dimensions; a class of those listed (@classLabel), or a number
(@targetLabel), given as a column called "value", so that whole ones are no classes either. A missing value ("?" or
NaN), a class that the header does not list, dimensions of unequal length: that item alone is an error, with its line.
Refused as a whole: time stamps. The split comes from the file's name (`GunPoint_TRAIN.ts`).
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data import rows, target
from gridsight.data.files import File
from gridsight.data.names import split_in
from gridsight.data.readers import READERS, Reader
from gridsight.data.sample import Sample

MAX_LINE = 256 << 20  # characters of one series
MAX_HEADER = 10_000  # lines
TAGS = (
    "problemname",
    "timestamps",
    "missing",
    "univariate",
    "dimension",
    "dimensions",
    "equallength",
    "serieslength",
    "targetlabel",
    "classlabel",
    "data",
)


@READERS.register(
    "ts",
    suffixes=(".ts",),
    ndims=(1,),
    many=True,
    truncated="text without a count: cut after a whole line it is a shorter file",
)
class TsReader(Reader):
    """Many items a file."""

    def sniff(self, file: File, head: bytes) -> bool:
        if b"\0" in head:
            return False
        if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"#", b"@")):
            return False
        if b"@problemname" in head.lower():
            return True
        # long comments may come first; TypeScript, which has the suffix too, starts otherwise or has other tags
        return file.name.lower().endswith(".ts") and _first_tag(file) in TAGS

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        if file.size() == 0:
            raise ReadError(file, "is empty (0 bytes)")
        split = split_in(file.name)[0]
        with _lines(file) as lines:
            header = _header(file, lines)
            index = -1
            for index, (number, line) in enumerate(lines):
                name = f"{file}[{index}]"
                try:
                    values, label = _item(line, header)
                    yield Sample(values, name, label, split, column="value" if header.numbers else None)
                except ValueError as error:
                    yield ReadError(name, f"line {number}: {error}")
        if index < 0:
            raise ReadError(file, "has no series after @data")

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        one, many = folder / "Example_TRAIN.ts", folder / "Vowels_TEST.ts"
        one.write_text(
            "# a comment\n@problemName Example\n@timeStamps false\n@missing false\n@univariate true\n"
            "@equalLength true\n@seriesLength 3\n@classLabel true left right\n@data\n"
            "1.5,-2,3e-1:left\n0,0.25,7:right\n"
        )
        numbers = folder / "Pulse_TRAIN.ts"
        numbers.write_text(
            "@problemName Pulse\n@univariate true\n@equalLength false\n@targetLabel true\n@data\n1,2,3:61.5\n4,5:70\n"
        )
        many.write_text(
            "@problemName Vowels\n@timeStamps false\n@univariate false\n@dimensions 2\n@equalLength false\n"
            "@classLabel true 1 2\n@data\n1,2,3:4,5,6:1\n7,8:9,10:2\n"
        )
        return [
            (
                one,
                [
                    Sample(np.array([[1.5, -2, 0.3]], np.float32), f"{one}[0]", "left", "train"),
                    Sample(np.array([[0, 0.25, 7]], np.float32), f"{one}[1]", "right", "train"),
                ],
            ),
            (
                many,
                [
                    Sample(np.array([[1, 2, 3], [4, 5, 6]], np.float32), f"{many}[0]", "1", "test"),
                    Sample(np.array([[7, 8], [9, 10]], np.float32), f"{many}[1]", "2", "test"),
                ],
            ),
            (
                numbers,
                [
                    Sample(np.array([[1, 2, 3]], np.float32), f"{numbers}[0]", "61.5", "train", column="value"),
                    Sample(np.array([[4, 5]], np.float32), f"{numbers}[1]", "70", "train", column="value"),
                ],
            ),
        ]


@contextmanager
def _lines(file: File) -> Iterator[Iterator[tuple[int, str]]]:
    """Lines with their numbers, from 1, without comments and empty ones."""
    with rows.reading(file), file.open() as stream, io.TextIOWrapper(stream, "utf-8-sig", "replace") as text:  # type: ignore[type-var]

        def numbered() -> Iterator[tuple[int, str]]:
            number = 0
            while line := text.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    raise ReadError(file, f"line {number} has more than {MAX_LINE:,} characters")
                line = line.strip()
                if line and not line.startswith("#"):
                    yield number, line

        yield numbered()


def _first_tag(file: File) -> str:
    try:
        with _lines(file) as lines:
            _, line = next(lines, (0, ""))
    except ReadError:
        return ""
    return line[1:].replace("\t", " ").partition(" ")[0].lower() if line.startswith("@") else ""


class _Header:
    """What the header declares; None where it says nothing. `classes` is None when items have no class.

    `numbers`: they have a number instead.
    """

    def __init__(self) -> None:
        self.dimensions: int | None = None
        self.length: int | None = None
        self.classes: frozenset[str] | None = None
        self.numbers = False


def _header(file: File, lines: Iterator[tuple[int, str]]) -> _Header:
    header, values = _Header(), dict[str, list[str]]()
    for number, line in lines:
        if not line.startswith("@"):
            raise ReadError(file, f"line {number}: a header line starts with @, and @data comes before the series")
        name, _, rest = line[1:].replace("\t", " ").partition(" ")
        name = name.lower()
        if name == "data":
            break
        if name not in TAGS:
            raise ReadError(file, f"line {number}: @{name[:40]} is no header of the .ts format")
        if number > MAX_HEADER:
            raise ReadError(file, f"has no @data in its first {MAX_HEADER:,} lines")
        values[name] = rest.split()
    else:
        raise ReadError(file, "is cut short or no .ts file: it has no @data")

    def says(name: str) -> bool:
        return [word.lower() for word in values.get(name, [])[:1]] == ["true"]

    def number_of(name: str) -> int | None:
        text = (values.get(name) or [""])[0]
        return int(text) if text.isdecimal() and len(text) < 10 else None

    if says("timestamps"):
        raise ReadError(file, "has time stamps (@timeStamps true), which are not read; save the values alone")
    header.numbers = says("targetlabel")
    header.dimensions = 1 if says("univariate") else number_of("dimensions") or number_of("dimension")
    header.length = number_of("serieslength") if says("equallength") else None
    if says("classlabel"):
        header.classes = frozenset(values["classlabel"][1:])
        if not header.classes:
            raise ReadError(file, "lists no classes after @classLabel true")
        if header.numbers:
            raise ReadError(file, "says both @classLabel true and @targetLabel true; its items have one of them")
    return header


def _item(line: str, header: _Header) -> tuple[np.ndarray, str | None]:
    """(C, T) and the class or number of one line; `ValueError` says what is wrong with it."""
    parts = line.split(":")
    label = None
    if header.classes is not None:
        label = parts.pop().strip()
        if not parts or label not in header.classes:
            shown = label if len(label) <= 30 else label[:30] + "..."
            raise ValueError(f"its class {shown!r} is not in @classLabel (was the line cut short?)")
    if header.numbers:
        label = parts.pop().strip()
        if not parts or target.number(label) is None:
            shown = label if len(label) <= 30 else label[:30] + "..."
            raise ValueError(f"its target {shown!r} is no number (was the line cut short?)")
    if header.dimensions is not None and len(parts) != header.dimensions:
        raise ValueError(f"it has {len(parts)} dimensions where the header says {header.dimensions}")
    series = [_numbers(part) for part in parts]
    lengths = sorted({len(values) for values in series})
    if len(lengths) > 1:
        raise ValueError(f"its dimensions have different lengths ({lengths[0]:,} to {lengths[-1]:,})")
    if header.length is not None and lengths[0] != header.length:
        raise ValueError(f"it has {lengths[0]:,} values where the header says {header.length:,}")
    array = np.array(series, np.float32)
    if bad := array.size - np.count_nonzero(np.isfinite(array)):
        missing = sum(math.isnan(value) for values in series for value in values)
        if missing == bad:
            raise ValueError(f"{bad:,} of {array.size:,} values {'is' if bad == 1 else 'are'} missing ('?' or NaN)")
        raise ValueError(rows.not_finite(int(bad), array.size))
    return array, label


def _numbers(text: str) -> list[float]:
    out = []
    for word in text.split(","):
        word = word.strip()
        try:
            out.append(math.nan if word == "?" else float(word))
        except ValueError:
            shown = word if len(word) <= 30 else word[:30] + "..."
            raise ValueError(f"{shown!r} is not a number") from None
    return out
