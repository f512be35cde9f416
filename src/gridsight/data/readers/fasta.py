"""FASTA: biological sequences as text, a header line ">id ..." and the letters in any number of lines; gzipped or not.

Format: Pearson and Lipman, PNAS 85:2444, 1988; ";" starts a comment, blank lines count for nothing. Items are one-hot,
(4, L) of DNA and RNA or (20, L) of proteins (`data/alphabet.py`). The alphabet is the same for a whole file: that of
its suffix (.fna, .ffn, .frn: nucleic; .faa: protein), else by its first letters.

A header may say more, as `key=value` or `key="two words"`: `label` (or `class`), `split` (train, val, test), `group`,
and `length`, which is then checked. Where no header of the file has a label, the last field of ids such as `>P1|donor`
or `>P1|donor|train` is one if every id has as many fields and it takes few values: 2 to half the number of records.
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from gridsight.core.errors import ReadError
from gridsight.data import rows
from gridsight.data.alphabet import ALPHABETS, GAPS, guess, one_hot
from gridsight.data.files import File
from gridsight.data.names import split_of
from gridsight.data.readers import READERS, Reader
from gridsight.data.sample import Sample

SUFFIXES = (".fasta", ".fa", ".fas", ".fna", ".ffn", ".frn", ".faa")
NUCLEIC, PROTEIN = (".fna", ".ffn", ".frn"), (".faa",)
MAX_LETTERS = 32 << 20  # of one record: 128 MiB of DNA, 640 MiB of protein as an array
MAX_HEADER = 64 << 10  # characters
BLOCK = 1 << 20  # characters of a line read at once
LOOK = 1000  # records whose letters decide the alphabet
_KEY = re.compile(r"""(?<!\S)(label|class|split|group|length)=("[^"]*"|'[^']*'|\S+)""", re.IGNORECASE)


@READERS.register(
    "fasta",
    suffixes=(*SUFFIXES, *(f"{suffix}.gz" for suffix in SUFFIXES)),
    ndims=(1,),
    many=True,
    # a folder or a file's name may say the class of all records in a file
    class_a_file=True,
    truncated="text without a count: cut after a whole record it is a shorter file",
)
class FastaReader(Reader):
    """Many items a file, each with its letters as channels."""

    def sniff(self, file: File, head: bytes) -> bool:
        if head.startswith(b"\x1f\x8b"):
            try:
                head = zlib.decompressobj(31).decompress(head, 512)
            except zlib.error:
                return False
        named = file.name.lower().endswith((*SUFFIXES, *(f"{suffix}.gz" for suffix in SUFFIXES)))
        text = head.decode("utf-8-sig", "replace")
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith(";")]
        if "\0" in text or not lines:
            return named and "\0" not in text and text.startswith(";")
        if not lines[0].startswith(">"):
            return False
        return named or (len(lines) > 1 and all(c.isalpha() or c in GAPS for c in lines[1]))

    def sidecar(self, file: File) -> bool:
        """Whether the file holds labels for another: never, whatever its name."""
        return False

    def columns(self, file: File) -> tuple[str, ...]:
        try:
            return ("group",) if _look(file).grouped else ()
        except ReadError:
            return ()  # reading it will say what is wrong

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        yield from self._read(file, None)

    def read_as(self, file: File, ndim: int, channels: int, axes: str | None = None) -> Iterator[Sample | ReadError]:
        yield from self._read(file, {len(letters): name for name, letters in ALPHABETS.items()}.get(channels))

    def _read(self, file: File, alphabet: str | None) -> Iterator[Sample | ReadError]:
        found = _look(file)
        if alphabet is not None:  # to be predicted: no group is wanted
            found = replace(found, alphabet=alphabet, grouped=False)
        seen: dict[str, int] = {}
        for number, record in enumerate(_records(file), 1):
            words = record.header.split(maxsplit=1)
            name = words[0][:100] if words else f"#{number}"
            seen[name] = seen.get(name, 0) + 1
            path = f"{file}[{name}]" if seen[name] == 1 else f"{file}[{name}#{seen[name]}]"
            try:
                yield _sample(record, path, found)
            except ValueError as error:
                yield ReadError(path, f"line {record.line:,}: {error}")

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        dna, protein, packed = folder / "junctions.fasta", folder / "one.faa", folder / "more.fa.gz"
        dna.write_text(
            "; a comment\n>first-junction label=EI split=train length=8\nACGT\nacgu\n\n"
            '>second-junction label="no junction" length=5\nRN-TA\n'
        )
        protein.write_text(">sp|P69905|HBA_HUMAN length=9 a protein\nMVLSPADKX\n")
        packed.write_bytes(gzip.compress(b">one-of-them length=3\r\nGGC\r\n>another one length=2\r\nAT\r\n", mtime=0))
        return [
            (
                dna,
                [
                    Sample(one_hot("ACGTACGT", "dna"), f"{dna}[first-junction]", "EI", "train"),
                    Sample(one_hot("RN-TA", "dna"), f"{dna}[second-junction]", "no junction"),
                ],
            ),
            (protein, [Sample(one_hot("MVLSPADKX", "protein"), f"{protein}[sp|P69905|HBA_HUMAN]")]),
            (
                packed,
                [
                    Sample(one_hot("GGC", "dna"), f"{packed}[one-of-them]"),
                    Sample(one_hot("AT", "dna"), f"{packed}[another]"),
                ],
            ),
        ]


@dataclass(frozen=True)
class _Record:
    """A header without its ">", the letters, the header's line; `long` when letters were left out."""

    header: str
    letters: str
    line: int
    long: bool


@contextmanager
def _open(file: File) -> Iterator[IO[str]]:
    """The file as text, unpacked when it is gzipped; every kind of line end is "\\n"."""
    packed = file.head(2) == b"\x1f\x8b"
    with rows.reading(file), file.open() as raw:
        stream = gzip.GzipFile(fileobj=raw) if packed else raw
        with io.TextIOWrapper(stream, "utf-8-sig", "replace") as text:  # type: ignore[type-var]
            yield text


def _records(file: File) -> Iterator[_Record]:
    if file.size() == 0:
        raise ReadError(file, "is empty (0 bytes)")
    with _open(file) as text:
        header: str | None = None
        parts: list[str] = []
        number, start, length, whole = 0, 0, 0, True
        while part := text.readline(BLOCK):
            # a line longer than a block comes in pieces, of which only the first can be a header
            first, whole = whole, part.endswith("\n")
            number += first
            if first and part.startswith(">"):
                if header is not None:
                    yield _Record(header, "".join(parts), start, length > MAX_LETTERS)
                header, parts, start, length = part[1 : MAX_HEADER + 1].strip(), [], number, 0
                while not whole and (part := text.readline(BLOCK)):
                    whole = part.endswith("\n")
            elif first and part.startswith(";"):
                while not whole and (part := text.readline(BLOCK)):
                    whole = part.endswith("\n")
            elif letters := part.strip():
                if header is None:
                    raise ReadError(file, f"is no FASTA file: line {number:,} comes before any line that starts with >")
                length += len(letters)
                if length <= MAX_LETTERS:
                    parts.append(letters)
        if header is None:
            raise ReadError(file, "is no FASTA file: no line starts with >")
        yield _Record(header, "".join(parts), start, length > MAX_LETTERS)


@dataclass(frozen=True)
class _Look:
    """What is so for a whole file: its alphabet, whether ids hold labels, and whether headers name groups."""

    alphabet: str
    labelled: bool
    grouped: bool


def _look(file: File) -> _Look:
    letters: list[str] = []
    ids = []
    keys = grouped = False
    for record in _records(file):
        if len(letters) < LOOK:
            letters.append(record.letters[:1000])
        said = _keys(record.header)
        keys, grouped = keys or not said.keys().isdisjoint(("label", "class")), grouped or "group" in said
        if not keys:
            ids.append(_id_fields(record.header))
    name = file.name.lower().removesuffix(".gz")
    alphabet = "dna" if name.endswith(NUCLEIC) else "protein" if name.endswith(PROTEIN) else guess(letters)
    labelled = False
    if not keys and len({len(fields) for fields in ids}) == 1 and len(ids[0]) > 1:
        labels = {fields[-1] for fields in ids}
        labelled = "" not in labels and 2 <= len(labels) <= len(ids) / 2
    return _Look(alphabet, labelled, grouped)


def _id_fields(header: str) -> list[str]:
    """The fields of an id between "|", without a last one that names a split."""
    fields = (header.split(maxsplit=1) or [""])[0].split("|")
    return fields[:-1] if len(fields) > 2 and split_of(fields[-1]) else fields


def _keys(header: str) -> dict[str, str]:
    return {key.lower(): value.strip("\"'") for key, value in _KEY.findall(header)}


def _sample(record: _Record, path: str, file: _Look) -> Sample:
    """The item of one record; `ValueError` says what is wrong with it."""
    keys = _keys(record.header)
    if record.long:
        raise ValueError(f"it has more than {MAX_LETTERS:,} letters; cut it into windows, a record each")
    array = one_hot(record.letters, file.alphabet)
    if "length" in keys and keys["length"].isdecimal() and int(keys["length"]) != array.shape[1]:
        raise ValueError(
            f"it has {array.shape[1]:,} letters where its header says length={keys['length']} (cut short?)"
        )
    column = next((key for key in ("label", "class") if keys.get(key)), None)
    label, split = keys.get(column or "") or None, None
    if file.labelled:
        fields = record.header.split(maxsplit=1)[0].split("|")
        label, split = _id_fields(record.header)[-1], split_of(fields[-1]) if len(fields) > 2 else None
    if "split" in keys:
        split = split_of(keys["split"])
        if split is None:
            raise ValueError(f"its split {keys['split'][:30]!r} is none of train, val and test")
    if file.grouped and not keys.get("group"):
        raise ValueError("its header names no group=, as others in the file do")
    return Sample(array, path, label, split, keys.get("group") or None, alphabet=file.alphabet, column=column)
