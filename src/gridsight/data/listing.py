"""Every file of a folder or archive, sorted by its name into data with a reader, archives, other files and bad ones.

Only names that say nothing, and suffixes that many formats share, are looked into: 60,000 files take about a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gridsight.core.errors import ReadError
from gridsight.data.archives import TARS
from gridsight.data.files import File, is_tar, walk
from gridsight.data.names import outside
from gridsight.data.readers import READERS, find_reader

TEXTS = (".txt", ".md", ".rst", ".json", ".jsonl", ".xml", ".html", ".htm", ".pdf", ".log", ".ini")
OTHERS = (".yml", ".yaml", ".toml", ".py", ".sh", ".ipynb", ".doc", ".docx", ".xls", ".xlsx", ".db", ".arff", ".bak")
PARTS = (".img", ".img.gz")  # read with the .hdr beside
NOT_DATA = (*TEXTS, *OTHERS, *PARTS)
NOT_DATA_NAMES = (
    "license",
    "licence",
    "copying",
    "readme",
    "notice",
    "sha256sums",
    "md5sums",
    "citation.cff",
    "dicomdir",
)
VAGUE = (".bin", ".gz", *TARS, ".dat", ".data", ".raw")
"""Suffixes that many formats share: only the content tells."""


@dataclass
class Entry:
    """One file of data: its path below what was given, its reader, and the split that its place says.

    `parts` start where class folders may start; what was recognised above them moves to `above`. Of
    a `folder` whose files are one item together, both are the folder's own.
    """

    file: File
    parts: tuple[str, ...]
    reader: str
    split: str | None = None
    above: tuple[str, ...] = ()
    folder: bool = False

    def descend(self) -> None:
        """Leave the first folder behind."""
        self.above, self.parts = (*self.above, self.parts[0]), self.parts[1:]


@dataclass
class Listing:
    """Everything below one folder or archive, sorted into what it is; `folders` are named, empty ones too.

    `tables` may be data or say what the data are.
    """

    entries: list[Entry] = field(default_factory=list)
    tables: list[Entry] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)
    bad: list[ReadError] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    split: str = ""
    notes: list[str] = field(default_factory=list)


def list_files(root: Path) -> Listing:
    """What lies below a folder or in an archive."""
    listing = Listing()
    suffixes = known_suffixes()
    start = len(root.parts)
    for file in walk(root, listing.ignored, listing.bad):
        if file.member is None:
            parts = file.path.parts[start:]
        else:
            parts = tuple(file.member.replace("\\", "/").split("/"))
            if problem := outside(parts, file):
                listing.bad.append(problem)
                continue
        sort_in(listing, file, parts, suffixes)
    return listing


def sort_in(listing: Listing, file: File, parts: tuple[str, ...], suffixes: dict[str, list[str]]) -> None:
    """Enter one file, by its name where that is enough; `suffixes` are `known_suffixes()`."""
    name = parts[-1].lower()
    known = [suffixes[name[i:]] for i, letter in enumerate(name) if letter == "." and name[i:] in suffixes]
    if known and len(known[0]) == 1 and not name.endswith(VAGUE):
        _enter(listing, Entry(file, parts, known[0][0]))
    elif name.endswith(".zip"):
        listing.archives.append(file.path) if file.member is None else listing.ignored.append(str(file))
    elif not known and (name.endswith(NOT_DATA) or name in NOT_DATA_NAMES):
        listing.ignored.append(str(file))
    else:
        try:
            found = find_reader(file) if file.size() else None
            if found is not None:
                _enter(listing, Entry(file, parts, found[0]))
            elif name.endswith(TARS) and file.member is None and is_tar(file.path):
                listing.archives.append(file.path)
            elif name.endswith(TARS) and file.member is not None:
                listing.ignored.append(str(file))
            else:
                listing.bad.append(ReadError(file, _why_unknown(file)))
        except ReadError as error:
            listing.bad.append(error)


def _enter(listing: Listing, entry: Entry) -> None:
    (listing.tables if entry.reader == "table" else listing.entries).append(entry)


def all_many(entries: Sequence[Entry]) -> bool:
    """Whether each file may hold many items with their labels."""
    many = {name: READERS.get(name).tags["many"] for name in {entry.reader for entry in entries}}
    return all(many.values())


def known_suffixes() -> dict[str, list[str]]:
    """The readers that claim each suffix."""
    table: dict[str, list[str]] = {}
    for entry in READERS.entries():
        for suffix in entry.tags["suffixes"]:
            table.setdefault(suffix.lower(), []).append(entry.name)
    return table


def _why_unknown(file: File) -> str:
    if file.size() == 0:
        return "is empty (0 bytes)"
    head = file.head()
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "is a Python pickle, which can run any program and is never loaded; for CIFAR take the binary version"
    return "is of no known format"
