"""Files wherever they lie: in a folder or, read in place, in a zip or tar archive (`data/archives.py`).

Link loops in folders end the walk there. A folder whose pictures are the frames of one clip is a `File` too: its path,
or its name within an archive with a "/" at the end.
"""

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from gridsight.core.errors import ReadError
from gridsight.data.archives import BROKEN, MAX_MEMBER, Archive, archive_at, check_size, is_tar, is_zip, why
from gridsight.data.names import natural_order

__all__ = ["MAX_MEMBER", "File", "exists", "is_tar", "is_zip", "members", "walk"]

MAX_FILE = 4 << 30  # bytes of one file that is read whole
ENDS = 8 << 10
"""Bytes hashed at each end of a file: 64 KiB took as long as a third of resizing a photograph."""


@dataclass(frozen=True, order=True)
class File:
    """A file on disk, or the member `member` of the archive at `path`."""

    path: Path
    member: str | None = None
    root: Path | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    @property
    def name(self) -> str:
        """The file's own name, without its folders."""
        return self.path.name if self.member is None else self.member.rstrip("/").rpartition("/")[2]

    @property
    def parts(self) -> tuple[str, ...]:
        """Folder names below the folder or archive that was walked, then the file's name."""
        if self.member is not None:
            return PurePosixPath(self.member).parts
        return self.path.relative_to(self.root).parts if self.root else (self.path.name,)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, of an archive or on disk."""
        # os.path: False, where Path.is_dir would raise, for a name too long to exist
        return os.path.isdir(self.path) if self.member is None else self.member.endswith("/")  # noqa: PTH112

    def sibling(self, name: str) -> "File | None":
        """The file of that name beside this one, or None."""
        if self.member is None:
            path = self.path.with_name(name)
            # False, where Path.is_file would raise, for a name too long to exist
            return File(path, None, self.root) if os.path.isfile(path) else None  # noqa: PTH113
        member = str(PurePosixPath(self.member).with_name(name))
        return File(self.path, member, self.root) if member in archive_at(self.path) else None

    def size(self) -> int:
        """Bytes, unpacked."""
        if self.member is None:
            return self._guard(lambda: self.path.stat().st_size)
        return self._guard(lambda: archive_at(self.path).size(self.member))

    def read(self, limit: int = MAX_FILE) -> bytes:
        """All bytes; more than `limit` is a `ReadError`."""
        if self.member is not None:
            return self._guard(lambda: archive_at(self.path).read(self.member, limit))
        self._guard(lambda: check_size(self.size(), limit))
        with self.open() as stream:
            return self._guard(stream.read)

    def head(self, count: int = 512) -> bytes:
        """The first bytes, for sniffing."""
        with self.open() as stream:
            return self._guard(lambda: stream.read(count))

    def open(self) -> "io.BufferedIOBase":
        """A binary stream; errors of the file system and of the archive become `ReadError`."""
        if self.member is not None:
            return self._guard(lambda: archive_at(self.path).open(self.member))
        mode = self._guard(self.path.stat).st_mode
        if not stat.S_ISREG(mode):  # opening a named pipe would wait for ever
            raise ReadError(self, "is a directory" if stat.S_ISDIR(mode) else "is no regular file")
        return self._guard(lambda: self.path.open("rb"))

    def inside(self) -> "list[File]":
        """The files that lie directly in this folder, in natural order; none where it is no folder."""
        if self.member is not None:
            folders = self._guard(lambda: _folders(archive_at(self.path)))
            return [File(self.path, name, self.root) for name in natural_order(folders.get(self.member, ()))]
        if not self.is_folder:
            return []
        with self._guard(lambda: os.scandir(self.path)) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
        return [File(self.path / name, None, self.root) for name in natural_order(names)]

    def fingerprint(self, *, whole: bool = False) -> str:
        """A key that changes with the content: path, size, mtime_ns, hash of both ends (`whole`: of everything)."""
        if self.member is not None:
            return archive_at(self.path).stamp(self.member)
        if self.is_folder:
            return "\n".join((f"{self.path}/", *(file.fingerprint(whole=whole) for file in self.inside())))
        try:
            status = self.path.stat()
            digest = hashlib.blake2b(digest_size=16)
            with self.path.open("rb") as file:
                if whole:
                    while block := file.read(1 << 20):
                        digest.update(block)
                else:
                    digest.update(file.read(ENDS))
                    if status.st_size > ENDS:
                        file.seek(max(ENDS, status.st_size - ENDS))
                        digest.update(file.read(ENDS))
        except OSError as error:
            return f"{self.path} unreadable {error.errno}"
        return f"{self.path} {status.st_size} {status.st_mtime_ns} {digest.hexdigest()}"

    def _guard(self, action):
        try:
            return action()
        except BROKEN as error:
            raise ReadError(self, why(error)) from None


def exists(path: Path) -> bool:
    """Whether there is something at `path`; names that no file system takes are not there, and no error."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises on a name that is too long


def walk(path: Path, left_out: list[str] | None = None, errors: list[ReadError] | None = None) -> Iterator[File]:
    """Every file below a folder, or in an archive, in sorted order; hidden ones, `__MACOSX` and link loops left out.

    What is left out is named in `left_out`; a folder that cannot be listed goes to `errors`, or is raised without it.
    Archives inside the folder are not opened here: the caller decides.
    """
    left_out = [] if left_out is None else left_out
    if path.is_file():
        archive = is_zip(path) or is_tar(path)
        yield from _walk_archive(path, left_out) if archive else [File(path, None, path.parent)]
        return
    yield from _walk_folder(path, path, frozenset(), left_out, errors)


def members(path: Path) -> list[str]:
    """The names of all entries of an archive; folders end with "/"."""
    return archive_at(path).names()


@lru_cache(maxsize=8)
def _folders(archive: Archive) -> dict[str, list[str]]:
    """The files of each folder of an archive, hidden ones left out; folders end with "/"."""
    found: dict[str, list[str]] = {}
    for name in archive.names():
        folder, slash, own = name.rpartition("/")
        if own and not own.startswith("."):
            found.setdefault(folder + slash, []).append(name)
    return found


def _walk_folder(
    folder: Path, root: Path, above: frozenset[tuple[int, int]], left_out: list[str], errors: list[ReadError] | None
) -> Iterator[File]:
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            left_out.append(f"{folder} (a link that leads back up)")
            return
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        problem = ReadError(folder, f"this folder cannot be listed ({why(error)})")
        if errors is None:
            raise problem from None
        errors.append(problem)
        return
    for entry in listed:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            left_out.append(entry.path)
            continue
        if entry.is_dir():
            yield from _walk_folder(Path(entry.path), root, above | {here}, left_out, errors)
        else:  # a dangling link counts as a file: reading it will say what is wrong
            yield File(Path(entry.path), None, root)


def _walk_archive(path: Path, left_out: list[str]) -> Iterator[File]:
    try:
        names = members(path)
    except BROKEN as error:
        kind = "tar" if is_tar(path) else "zip"
        raise ReadError(path, f"not a readable {kind} archive ({why(error)})") from None
    for name in sorted(names):
        if name.endswith("/"):
            continue
        parts = name.split("/")  # not PurePosixPath, which takes a second for 60,000
        if "__MACOSX" in parts or parts[-1].startswith("."):
            left_out.append(f"{path}!{name}")
        else:
            yield File(path, name, path)
