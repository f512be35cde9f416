"""Files wherever they lie: in a folder or, read in place, in a zip archive.

Archives are hostile until proved otherwise: entries, their sizes, their total and their compression ratio are bounded,
names that leave the archive are refused, nothing is ever extracted to disk. Link loops in folders end the walk there.
"""

import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from gridsight.core.errors import ReadError

MAX_FILE = 4 << 30  # bytes of one file that is read whole
MAX_MEMBERS = 5_000_000
MAX_MEMBER = 1 << 30  # bytes of one archive member, unpacked
MAX_TOTAL = 512 << 30  # bytes of all members, unpacked
MAX_RATIO = 1_000  # a member that unpacks to more than this times its packed size is a bomb
EDGE = 64 << 10  # bytes hashed at each end of a file

BROKEN = (
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
)
"""What reading raises when a file or member is missing, damaged, encrypted or packed in an unknown way."""


@dataclass(frozen=True, order=True)
class File:
    """A file on disk, or the member `member` of the zip archive at `path`."""

    path: Path
    member: str | None = None
    root: Path | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    @property
    def name(self) -> str:
        """The file's own name, without its folders."""
        return self.path.name if self.member is None else self.member.rpartition("/")[2]

    @property
    def parts(self) -> tuple[str, ...]:
        """Folder names below the folder or archive that was walked, then the file's name."""
        if self.member is not None:
            return PurePosixPath(self.member).parts
        return self.path.relative_to(self.root).parts if self.root else (self.path.name,)

    def sibling(self, name: str) -> "File | None":
        """The file of that name beside this one, or None."""
        if self.member is None:
            path = self.path.with_name(name)
            # False, where Path.is_file would raise, for a name too long to exist
            return File(path, None, self.root) if os.path.isfile(path) else None  # noqa: PTH113
        member = str(PurePosixPath(self.member).with_name(name))
        return File(self.path, member, self.root) if member in _archive(self.path).NameToInfo else None

    def size(self) -> int:
        """Bytes, unpacked."""
        try:
            if self.member is None:
                return self.path.stat().st_size
            return _archive(self.path).getinfo(self.member).file_size
        except BROKEN as error:
            raise ReadError(self, _why(error)) from None

    def read(self, limit: int = MAX_FILE) -> bytes:
        """All bytes; more than `limit` is a `ReadError`."""
        if self.member is not None and hasattr(os, "pread"):
            return self._guard(lambda: _read_member(self, limit))
        _check_size(self, self.size(), limit)
        with self.open() as stream:
            return self._guard(stream.read)

    def head(self, count: int = 512) -> bytes:
        """The first bytes, for sniffing."""
        with self.open() as stream:
            return self._guard(lambda: stream.read(count))

    def open(self) -> "io.BufferedIOBase":
        """A binary stream; errors of the file system and of the archive become `ReadError`."""
        if self.member is None:
            mode = self._guard(self.path.stat).st_mode
            if not stat.S_ISREG(mode):  # opening a named pipe would wait for ever
                raise ReadError(self, "is a directory" if stat.S_ISDIR(mode) else "is no regular file")
            return self._guard(lambda: self.path.open("rb"))
        archive = self._guard(lambda: _archive(self.path))
        info = self._guard(lambda: archive.getinfo(self.member))
        _check_member(self, info)
        return self._guard(lambda: archive.open(info))

    def fingerprint(self, *, whole: bool = False) -> str:
        """A key that changes with the content: path, size, mtime_ns, hash of both ends (`whole`: of everything)."""
        if self.member is not None:
            info = _archive(self.path).getinfo(self.member)
            return f"{self.member} {info.file_size} {info.CRC}"
        try:
            status = self.path.stat()
            digest = hashlib.blake2b(digest_size=16)
            with self.path.open("rb") as file:
                if whole:
                    while block := file.read(1 << 20):
                        digest.update(block)
                else:
                    digest.update(file.read(EDGE))
                    if status.st_size > EDGE:
                        file.seek(max(EDGE, status.st_size - EDGE))
                        digest.update(file.read(EDGE))
        except OSError as error:
            return f"{self.path} unreadable {error.errno}"
        return f"{self.path} {status.st_size} {status.st_mtime_ns} {digest.hexdigest()}"

    def _guard(self, action):
        try:
            return action()
        except BROKEN as error:
            raise ReadError(self, _why(error)) from None


def exists(path: Path) -> bool:
    """Whether there is something at `path`; names that no file system takes are not there, and no error."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises on a name that is too long


def is_zip(path: Path) -> bool:
    """Whether `path` is a zip archive by suffix and content (an .npz is one too, but is read as arrays)."""
    return path.suffix.lower() == ".zip" and path.is_file() and zipfile.is_zipfile(path)


def walk(path: Path, left_out: list[str] | None = None, errors: list[ReadError] | None = None) -> Iterator[File]:
    """Every file below a folder, or in a zip, in sorted order; hidden ones, `__MACOSX` and link loops left out.

    What is left out is named in `left_out`; a folder that cannot be listed goes to `errors`, or is raised without it.
    Zip archives inside the folder are not opened here: the caller decides.
    """
    left_out = [] if left_out is None else left_out
    if path.is_file():
        yield from _walk_zip(path, left_out) if is_zip(path) else [File(path, None, path.parent)]
        return
    yield from _walk_folder(path, path, frozenset(), left_out, errors)


def members(path: Path) -> list[str]:
    """The names of all entries of a zip archive as they are stored; folders end with "/"."""
    return _archive(path).namelist()


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
        problem = ReadError(folder, f"this folder cannot be listed ({_why(error)})")
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


def _walk_zip(path: Path, left_out: list[str]) -> Iterator[File]:
    try:
        archive = _archive(path)
    except BROKEN as error:
        raise ReadError(path, f"not a readable zip archive ({_why(error)})") from None
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise ReadError(path, f"holds {len(infos):,} entries; at most {MAX_MEMBERS:,} are read")
    total = sum(info.file_size for info in infos)
    if total > MAX_TOTAL:
        raise ReadError(path, f"unpacks to {total:,} bytes; at most {MAX_TOTAL:,} are read")
    for info in sorted(infos, key=lambda info: info.filename):
        if info.is_dir():
            continue
        parts = info.filename.split("/")  # not PurePosixPath, which takes a second for 60,000
        if "__MACOSX" in parts or parts[-1].startswith("."):
            left_out.append(f"{path}!{info.filename}")
        else:
            yield File(path, info.filename, path)


def _read_member(file: File, limit: int) -> bytes:
    """All bytes of an archive member, read at its place in the file without moving a shared position.

    `zipfile` makes threads wait for each other at one position, and spends more on a member than a small JPEG takes to
    decode. Checked as there: local header, unpacked size and CRC agree with the directory.
    """
    archive = _archive(file.path)
    info = archive.getinfo(file.member)  # type: ignore[arg-type]
    _check_size(file, info.file_size, limit)
    _check_member(file, info)
    if info.flag_bits & 0x61 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with archive.open(info) as stream:  # encrypted, patched or packed otherwise: zipfile reads it or says why not
            return stream.read()
    if info.compress_size > MAX_MEMBER + (MAX_MEMBER >> 10):
        raise zipfile.BadZipFile("the packed size of a member makes no sense")
    name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    head = 30 + len(name)
    handle = archive.fp.fileno()  # type: ignore[union-attr]
    raw = os.pread(handle, head + 64 + info.compress_size, info.header_offset)
    if len(raw) < head or not raw.startswith(b"PK\3\4") or raw[30:head] != name:
        raise zipfile.BadZipFile("a member does not begin where the directory says")
    start = head + int.from_bytes(raw[28:30], "little")
    if start > head + 64:  # an unusually long extra field
        raw, start = os.pread(handle, info.compress_size, info.header_offset + start), 0
    data = raw[start : start + info.compress_size]
    if info.compress_type == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-15).decompress(data, info.file_size + 1)  # one more shows a lying size
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile("a member is damaged: its size or checksum differs from the directory's")
    return data


def _check_size(file: File, size: int, limit: int) -> None:
    if size > limit:
        raise ReadError(file, f"is {size:,} bytes; at most {limit:,} are read")
    if size == 0:
        raise ReadError(file, "is empty (0 bytes)")


def _check_member(file: File, info: zipfile.ZipInfo) -> None:
    parts = info.filename.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or parts[0].endswith(":"):
        raise ReadError(file, "its name points outside the archive (path traversal)")
    if info.file_size > MAX_MEMBER:
        raise ReadError(file, f"unpacks to {info.file_size:,} bytes; at most {MAX_MEMBER:,} are read")
    if info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise ReadError(file, f"unpacks to {info.file_size // max(info.compress_size, 1):,} times its packed size")


@lru_cache(maxsize=8)
def _open_archive(path: Path, size: int, mtime_ns: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _archive(path: Path) -> zipfile.ZipFile:
    status = path.stat()
    return _open_archive(path, status.st_size, status.st_mtime_ns)


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, KeyError):  # whose text is quoted
        return str(error.args[0])
    return str(error) or type(error).__name__
