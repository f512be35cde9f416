"""Manifests: tables that list files with their labels, such as `path,label,split,group`.

Paths are relative to the table's folder, or to the folder or archive beside it that holds most of them; `a.zip!x.png`
is a file of an archive; absolute ones are taken as they are. What is wrong with a row is an error with its line, and
the others go on: no path, no such file, no label (of a column of several classes an empty cell is the empty set), an
unknown split, one file under two labels or in two splits. A file that comes again with the same label counts once.
A row without a value in a column that items are grouped by is a group of its own.
"""

import contextlib
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path

from gridsight.core.errors import ReadError, UsageError
from gridsight.data.archives import BROKEN, Archive, archive_at, is_tar, is_zip, why
from gridsight.data.columns import Roles, is_missing, is_number, roles
from gridsight.data.files import File
from gridsight.data.listing import Listing, known_suffixes, sort_in
from gridsight.data.names import natural_order, split_said
from gridsight.data.readers import READERS, find_reader
from gridsight.data.source import Item
from gridsight.data.table import Row, Table
from gridsight.data.target import EMPTY, is_set, parts

MAX_ROWS = 5_000_000
MAX_CELLS = 50_000_000
MAX_ROOTS = 200  # folders and archives beside a table in which its paths are looked for
TRIED = 50  # paths that say which it is


@dataclass(frozen=True)
class Root:
    """Where paths start: a folder, or a folder `prefix` ("" or ending with "/") of an archive."""

    path: Path
    prefix: str | None = None
    archives: dict[str, Path | ReadError | None] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return str(self.path) if self.prefix is None else f"{self.path}!{self.prefix}"

    def find(self, name: str) -> File | None:
        """The file or folder called `name`; a name that leaves an archive is a `ReadError`."""
        for text in dict.fromkeys((name, name.replace("\\", "/"))):
            if self.prefix is not None:
                if (found := _member(self.path, self.prefix, text)) is not None:
                    return found
                continue
            outer, mark, inner = text.partition("!")
            archive = self._archive(outer) if mark else None
            if archive is not None:
                return _member(archive, "", inner)
            path = os.path.join(self.path, text)  # noqa: PTH118 - ten times as fast, as is the next line
            if os.path.exists(path):  # noqa: PTH110 - Path.exists raises on a name that is too long
                return File(Path(path), None, self.path)
        return None

    def _archive(self, name: str) -> Path | None:
        """The archive of that name, looked at once; a broken one is a `ReadError`."""
        if name not in self.archives:
            path = self.path / name
            try:
                self.archives[name] = path if _is_archive(path) else None
                if self.archives[name] is not None:
                    _opened(path)
            except ReadError as error:
                self.archives[name] = error
            except OSError:  # a name that is too long
                self.archives[name] = None
        found = self.archives[name]
        if isinstance(found, ReadError):
            raise found
        return found


@dataclass
class Manifest:
    """What one or several tables list."""

    items: list[Item] = field(default_factory=list)
    bad: list[ReadError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fields: tuple[str, ...] = ()
    target: str = ""
    split: str = ""


@dataclass(frozen=True)
class _Listed:
    """One row that names a file that exists."""

    table: Table
    place: str
    file: File
    reader: str
    label: str
    split: str | None
    fields: dict[str, str]

    def bad(self, words: str) -> ReadError:
        return ReadError(self.table.file, f"{self.place}: {words}")


def lists_files(table: Table, target: str | None, group: str | None, labelled: bool = True) -> Roles:
    """What the columns of a table are, where a column may hold the paths of files."""
    folders = _folders(table.file)

    def said(archives: bool) -> Roles:
        def files(cells: Sequence[str]) -> bool:
            some = list(islice((cell for cell in dict.fromkeys(cells) if cell), TRIED))
            if archives and sum(map(_like_a_file, some)) * 2 < len(some):
                return False  # numbers, letters, words: opening archives for them may take long
            return bool(some) and _best(table.file, folders, some, archives)[1] * 2 >= len(some)

        return roles(
            table.names, table.sample, named=table.named, files=files, target=target, group=group, labelled=labelled
        )

    with contextlib.suppress(UsageError):  # most tables do without archives
        if (found := said(archives=False)).kind == "files":
            return found
    return said(archives=True)


def _like_a_file(cell: str) -> bool:
    """Whether a cell may be the name of a file, by a folder or a suffix in it."""
    return bool(re.search(r"[/\\]|\.\w{1,7}$", cell)) and not is_number(cell)


def listed_files(file: File) -> list[File | ReadError] | None:
    """The files that a table lists, each once, whatever else it says of them; None where `file` is no such table."""
    try:
        found = find_reader(file)
        table = Table(file) if found is not None and found[0] == "table" else None
        what = None if table is None else lists_files(table, None, None, labelled=False)
    except (ReadError, UsageError):
        return None  # its reader says what is wrong with it
    if table is None or what is None or what.kind != "files":
        return None
    root, out = _root(table, what), dict[File | ReadError, None]()
    for row in _bounded(table):
        name = "" if row.problem else row.cells[what.files]
        try:
            if not name:
                raise ReadError(file, f"{row.place}: {row.problem or 'has no path'}")
            if (listed := root.find(name)) is None:
                raise ReadError(file, f"{row.place}: there is no file {name} in {root}")
            out[listed] = None
        except ReadError as error:
            out[error] = None
    return list(out)


def read_manifest(
    tables: Sequence[tuple[Table, Roles, str | None]], frames: bool = False, group: str | None = None
) -> Manifest:
    """The files that tables list; each with its columns and the split that its name says.

    `frames`: a folder of pictures is one clip; `group` is the column that items are grouped by. Raises `UsageError`
    when no row can be used.
    """
    out = Manifest()
    named = {table.names[found.label] if table.named else "" for table, found, _ in tables if found.label is not None}
    if len(named) > 1:
        raise UsageError(f"the tables have their labels in different columns ({', '.join(sorted(named))})")
    out.target = next(iter(named), "")
    listed: list[_Listed] = []
    for table, found, split in tables:
        listed += _rows(table, found, split, frames, group, out)
        out.fields = tuple(dict.fromkeys((*out.fields, *found.fields(table.names).values())))
    if any(found.split is not None for _, found, _ in tables):
        out.split = "the column split"
    elif any(split for _, _, split in tables):
        out.split = "published by file names"
    _keep(listed, out)
    if not out.items:
        names = ", ".join(str(table.file) for table, _, _ in tables)
        raise UsageError(f"no row of {names} can be used; {out.bad[0] if out.bad else 'it has a header and no rows'}")
    return out


def _folders(file: File) -> list[Root]:
    """The folders where the paths of a table may start, the table's own first."""
    if file.member is not None:
        base = file.member.rpartition("/")[0]
        return _roots_in(file.path, base + "/" if base else "")[:MAX_ROOTS]
    return [Root(file.path.parent), *(Root(path) for path in _beside(file) if path.is_dir())][:MAX_ROOTS]


def _archives(file: File) -> Iterator[Root]:
    """Archives beside a table, and their folders; one that cannot be opened is left out."""
    if file.member is None:
        for path in _beside(file):
            with contextlib.suppress(ReadError, OSError):
                if _is_archive(path):
                    yield from _roots_in(path, "")


def _beside(file: File) -> list[Path]:
    """What lies beside a table."""
    own = file.path.parent
    try:
        with os.scandir(own) as entries:
            names = natural_order(entry.name for entry in islice(entries, 10_000) if not entry.name.startswith("."))
    except OSError:
        return []
    return [own / name for name in names]


def _best(file: File, folders: Sequence[Root], names: Sequence[str], archives: bool = True) -> tuple[Root, int]:
    """Where most of `names` lead, and how many; archives are opened only if that is fewer than half of them."""
    found = [(root, _hits(root, names)) for root in folders]
    if archives and max(count for _, count in found) * 2 < len(names):
        found += [(root, _hits(root, names)) for root in islice(_archives(file), MAX_ROOTS)]
    return max(found, key=lambda one: one[1])


def _root(table: Table, found: Roles) -> Root:
    """Where most of the first paths lead."""
    some = list(islice((cells[found.files] for cells in table.sample if cells[found.files]), TRIED))
    return _best(table.file, _folders(table.file), some)[0]


def _roots_in(path: Path, base: str) -> list[Root]:
    """A folder of an archive and the folders directly in it."""
    names = _opened(path).names()
    found = {rest.partition("/")[0] for name in names if name.startswith(base) and "/" in (rest := name[len(base) :])}
    folders = [Root(path, f"{base}{name}/") for name in natural_order(found) if name and name != "__MACOSX"]
    return [Root(path, base), *folders]


def _opened(path: Path) -> Archive:
    try:
        status = path.stat()
        problem = _problem(path, status.st_size, status.st_mtime_ns)
        if not problem:
            return archive_at(path)
    except BROKEN as error:
        problem = why(error)
    raise ReadError(path, f"is no readable archive ({problem})")


@lru_cache(maxsize=1000)
def _problem(path: Path, size: int, mtime_ns: int) -> str:
    """What is wrong with an archive, found once: a packed tar is unpacked to tell. `size`, `mtime_ns`: of this file."""
    try:
        archive_at(path)
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the machine, such as a full disk: it may go away
        return why(error)
    return ""


def _is_archive(path: Path) -> bool:
    return is_zip(path) or is_tar(path)


def _member(path: Path, prefix: str, name: str) -> File | None:
    """A file or a folder of an archive."""
    whole = posixpath.normpath(prefix + name)
    if name.startswith("/") or whole.startswith("../") or whole == "..":
        raise ReadError(f"{path}!{name}", "its name points outside the archive (path traversal)")
    if whole in _opened(path):
        return File(path, whole, path)
    folder = File(path, whole + "/", path)
    return folder if folder.inside() else None


def _hits(root: Root, names: Sequence[str]) -> int:
    count = 0
    for name in names:
        with contextlib.suppress(ReadError):
            count += root.find(name) is not None
    return count


def _rows(
    table: Table, found: Roles, split: str | None, frames: bool, group: str | None, out: Manifest
) -> list[_Listed]:
    """The rows of one table whose files exist; the others go to `out.bad`."""
    assert found.label is not None
    labels = {row.cells[found.label] for row in _bounded(table) if not row.problem}
    several = is_set(labels, table.names[found.label] if table.named else "")
    root = _root(table, found)
    fields = found.fields(table.names)
    suffixes = known_suffixes()
    listed, unsplit, alone = [], 0, 0
    for row in _bounded(table):
        try:
            if row.problem:
                raise ValueError(row.problem)
            file, reader = _file(root, row.cells[found.files], frames, suffixes)
            label = _label(row, found.label, several)
            if found.split is not None:
                split = split_said(row.cells[found.split])
                unsplit += split is None
        except ValueError as error:
            out.bad.append(ReadError(table.file, f"{row.place}: {error}"))
            continue
        # fields are what items are grouped by: a row that does not say its group is a group of its own
        said = {name: str(file) if is_missing(row.cells[i]) else row.cells[i] for i, name in fields.items()}
        alone += any(name == group and is_missing(row.cells[i]) for i, name in fields.items())
        listed.append(_Listed(table, row.place, file, reader, label, split, said))
    if unsplit:
        out.notes.append(f"{unsplit:,} rows of {table.file.name} have no split; they are training data")
    if alone:
        out.notes.append(f"{alone:,} rows of {table.file.name} have no {group}; each is a group of its own")
    return listed


def _bounded(table: Table) -> Iterator[Row]:
    most = min(MAX_ROWS, MAX_CELLS // len(table.names))
    for i, row in enumerate(table.rows()):
        if i >= most:
            raise ReadError(table.file, f"lists more than {most:,} files; at most {most:,} are read")
        yield row


def _file(root: Root, name: str, frames: bool, suffixes: dict[str, list[str]]) -> tuple[File, str]:
    """The file of a row with its reader, or what is wrong with it as a `ValueError`."""
    if not name:
        raise ValueError("has no path")
    try:
        file = root.find(name)
        if file is None:
            raise ValueError(f"there is no file {name} in {root}")
        first = file
        if (file.member or "").endswith("/") or (file.member is None and file.path.is_dir()):
            inside = file.inside()
            if not inside:
                raise ValueError(f"{name} is an empty folder")
            first = inside[0]
        listing = Listing()
        sort_in(listing, first, (first.name,), suffixes)
        for entry in (*listing.entries, *listing.tables):
            if first != file and not frames and not READERS.create(entry.reader).in_series(first):
                raise ValueError(f"{name} is a folder; --frames takes one as a clip of frames")
            return file, entry.reader
        reason = listing.bad[0].reason if listing.bad else "is no file of data"
        raise ValueError(f"{name} {reason}")
    except ReadError as error:
        raise ValueError(f"{name}: {error.reason}") from None


def _label(row: Row, column: int, several: bool) -> str:
    label = row.cells[column]
    if several:
        return ";".join(parts("" if is_missing(label) else label)) or EMPTY
    if is_missing(label):
        raise ValueError("its label is missing")
    return label


def _keep(listed: Sequence[_Listed], out: Manifest) -> None:
    """Each file once; under two labels or in two splits it is an error of all its rows."""
    by_file: dict[tuple[str, str | None], list[_Listed]] = {}
    for one in listed:
        by_file.setdefault((os.path.normpath(one.file.path), one.file.member), []).append(one)
    again = 0
    for rows in by_file.values():
        first = rows[0]
        for what, values in (
            ("labels", {one.label: one for one in rows}),
            ("splits", {str(one.split): one for one in rows}),
        ):
            if len(values) > 1:
                said = " and ".join(f"{value!r} on {one.place}" for value, one in islice(values.items(), 3))
                out.bad += [one.bad(f"two {what} for one file: {first.file} is {said}") for one in rows]
                break
        else:
            again += len(rows) - 1
            out.items.append(Item(first.file, first.reader, first.label, first.split, first.fields))
    if again:
        out.notes.append(f"{again:,} rows name a file again with the same label; each file counts once")
