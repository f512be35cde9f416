"""Zip and tar archives read in place; nothing is ever extracted under a name that an archive gives.

Formats: PKWARE's APPNOTE 6.3; tar as POSIX.1-2017 (ustar, pax) and GNU's long names, plain or packed with gzip, bzip2
or xz. A plain tar is read by offset. A packed one has no places to jump to: it is unpacked once a process into a file
without a name beside the cache, which is gone however the process ends, and is then read like a plain one.

Archives are hostile until proved otherwise: entries, their sizes, their total and their ratio are bounded; links,
devices and names that leave the archive are refused. What is wrong is one of `BROKEN` with words for `why`. Over 400
lines: the two formats share the bounds, and every bound is beside what it guards.
"""

import bz2
import hashlib
import io
import lzma
import os
import struct
import tarfile
import threading
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Protocol, cast

from gridsight.data.unpack import BLOCK, MAX_RATIO, MAX_WINDOW, PACKED, unpacked

MAX_MEMBERS = 5_000_000
MAX_MEMBER = 1 << 30  # bytes of one archive member, unpacked
MAX_TOTAL = 512 << 30  # bytes of all members, unpacked
MAX_WORDS = 1 << 20  # bytes of a tar's long name or pax header
EDGE = 64 << 10  # bytes hashed at each end of a file

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")

BROKEN = (
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What reading raises when a file or member is missing, damaged, encrypted, refused or packed in an unknown way."""


def why(error: BaseException) -> str:
    """An error of `BROKEN` in words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, KeyError):  # whose text is quoted
        return str(error.args[0])
    return str(error) or type(error).__name__


class Archive(Protocol):
    """Members by name, "/" between folders."""

    def __hash__(self) -> int:
        """By identity."""

    def names(self) -> list[str]:
        """All entries; folders end with "/"."""

    def __contains__(self, name: object) -> bool:
        """Whether a member has that name."""

    def size(self, name: str) -> int:
        """Bytes of a member, unpacked."""

    def read(self, name: str, limit: int) -> bytes:
        """All bytes of a member; more than `limit`, and none, are errors."""

    def open(self, name: str) -> "io.BufferedIOBase":
        """A stream of a member."""

    def stamp(self, name: str) -> str:
        """What changes with a member's content, cheaply."""


def is_zip(path: Path) -> bool:
    """Whether `path` is a zip archive by suffix and content (an .npz is one too, but is read as arrays)."""
    return path.suffix.lower() == ".zip" and path.is_file() and zipfile.is_zipfile(path)


def is_tar(path: Path) -> bool:
    """Whether `path` is a tar archive by suffix and content, packed or not."""
    if not path.name.lower().endswith(TARS) or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return head.startswith(PACKED) or (len(head) == 512 and (not head.strip(b"\0") or _checksum_fits(head)))


def archive_at(path: Path) -> Archive:
    """The archive at `path`, opened once while it stays the same; one of `BROKEN` when it cannot be."""
    status = path.stat()
    with _LOCK:  # so that threads do not unpack the same archive side by side
        return _opened(path, status.st_size, status.st_mtime_ns)


_LOCK = threading.Lock()


@lru_cache(maxsize=8)
def _opened(path: Path, size: int, mtime_ns: int) -> Archive:
    return TarArchive(path) if is_tar(path) else ZipArchive(path)


def check_size(size: int, limit: int) -> None:
    """Refuse a file that is too large to be read whole, or empty."""
    if size > limit:
        raise ValueError(f"is {size:,} bytes; at most {limit:,} are read")
    if size == 0:
        raise ValueError("is empty (0 bytes)")


def _check_name(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or parts[0].endswith(":"):
        raise ValueError("its name points outside the archive (path traversal)")


def _check_whole(count: int, total: int) -> None:
    if count > MAX_MEMBERS:
        raise ValueError(f"holds {count:,} entries; at most {MAX_MEMBERS:,} are read")
    if total > MAX_TOTAL:
        raise ValueError(f"unpacks to {total:,} bytes; at most {MAX_TOTAL:,} are read")


# ---- zip


class ZipArchive:
    """A zip; threads read side by side."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        _check_whole(len(self._zip.filelist), sum(info.file_size for info in self._zip.filelist))

    def names(self) -> list[str]:
        return self._zip.namelist()

    def __contains__(self, name: object) -> bool:
        return name in self._zip.NameToInfo

    def size(self, name: str) -> int:
        return self._zip.getinfo(name).file_size

    def read(self, name: str, limit: int) -> bytes:
        """At its place in the file, without moving a shared position.

        `zipfile` makes threads wait for each other at one position, and spends more on a member than a small JPEG takes
        to decode. Checked as there: local header, unpacked size and CRC agree with the directory.
        """
        info = self._zip.getinfo(name)
        check_size(info.file_size, limit)
        _check_member(info)
        if info.flag_bits & 0x61 or info.compress_type not in _METHODS:  # encrypted, patched or packed otherwise
            with self._zip.open(info):  # zipfile says why not
                raise ValueError(f"is packed in a way that is not read (compression method {info.compress_type})")
        if info.compress_size > MAX_MEMBER + (MAX_MEMBER >> 10):
            raise zipfile.BadZipFile("the packed size of a member makes no sense")
        stored = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
        head = 30 + len(stored)
        handle = self._zip.fp.fileno()  # type: ignore[union-attr]
        raw = os.pread(handle, head + 64 + info.compress_size, info.header_offset)
        if len(raw) < head or not raw.startswith(b"PK\3\4") or raw[30:head] != stored:
            raise zipfile.BadZipFile("a member does not begin where the directory says")
        start = head + int.from_bytes(raw[28:30], "little")
        if start > head + 64:  # an unusually long extra field
            raw, start = os.pread(handle, info.compress_size, info.header_offset + start), 0
        data = raw[start : start + info.compress_size]
        if info.compress_type != zipfile.ZIP_STORED:
            data = _unpack(info, data)
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile("a member is damaged: its size or checksum differs from the directory's")
        return data

    def open(self, name: str) -> io.BufferedIOBase:
        info = self._zip.getinfo(name)
        _check_member(info)
        if info.file_size and info.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            return io.BytesIO(self.read(name, MAX_MEMBER))  # zipfile unpacks these without bound
        return cast(io.BufferedIOBase, self._zip.open(info))

    def stamp(self, name: str) -> str:
        info = self._zip.getinfo(name)
        return f"{name} {info.file_size} {info.CRC}"


_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def _unpack(info: zipfile.ZipInfo, data: bytes) -> bytes:
    """A member's bytes, at most one more than it declares: that one shows a lying size."""
    most = info.file_size + 1
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-15).decompress(data, most)
    if info.compress_type == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(data, most)
    # APPNOTE 5.8.8: version, length of the properties (5), properties; .lzma has the unpacked size after them
    if len(data) < 9 or data[2:4] != b"\5\0":
        raise zipfile.BadZipFile("a member is damaged: its LZMA header makes no sense")
    size = b"\xff" * 8 if info.flag_bits & 2 else info.file_size.to_bytes(8, "little")  # 2: an end mark follows
    unpack = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_WINDOW)
    return unpack.decompress(data[4:9] + size + data[9:], most)


def _check_member(info: zipfile.ZipInfo) -> None:
    _check_name(info.filename)
    if info.file_size > MAX_MEMBER:
        raise ValueError(f"unpacks to {info.file_size:,} bytes; at most {MAX_MEMBER:,} are read")
    if info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise ValueError(f"unpacks to {info.file_size // max(info.compress_size, 1):,} times its packed size")


# ---- tar


@dataclass(frozen=True)
class _Member:
    """Where a tar's entry lies; `refused` says why it is not read."""

    start: int
    size: int
    refused: str = ""


_KINDS = {
    tarfile.SYMTYPE: "is a link ({target}), which is not followed within an archive",
    tarfile.LNKTYPE: "is a link ({target}), which is not followed within an archive",
    tarfile.CHRTYPE: "is a device, not a file",
    tarfile.BLKTYPE: "is a device, not a file",
    tarfile.FIFOTYPE: "is a named pipe, not a file",
}


class TarArchive:
    """A tar, packed or not; threads read side by side."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            packed = file.read(6).startswith(PACKED)
        self._file = unpacked(path, MAX_TOTAL) if packed else path.open("rb")
        try:
            self._members = _index(self._file)
        except BaseException:
            self._file.close()
            raise

    def __del__(self) -> None:
        if file := getattr(self, "_file", None):
            file.close()

    def names(self) -> list[str]:
        return list(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        return self._member(name).size

    def read(self, name: str, limit: int) -> bytes:
        member = self._member(name)
        check_size(member.size, limit)
        data = os.pread(self._file.fileno(), member.size, member.start)
        if len(data) != member.size:
            raise ValueError(f"is cut short: {member.size:,} bytes were promised and {len(data):,} are there")
        return data

    def open(self, name: str) -> io.BufferedIOBase:
        member = self._member(name)
        return io.BufferedReader(_Section(self, member.start, member.size), BLOCK)

    def stamp(self, name: str) -> str:
        member, handle = self._members[name], self._file.fileno()
        ends = os.pread(handle, min(EDGE, member.size), member.start)
        ends += os.pread(handle, min(EDGE, member.size), member.start + max(0, member.size - EDGE))
        return f"{name} {member.size} {hashlib.blake2b(ends, digest_size=16).hexdigest()}"

    def _member(self, name: str) -> _Member:
        if name not in self._members:
            raise KeyError(f"There is no item named {name!r} in the archive")
        _check_name(name)
        member = self._members[name]
        if member.refused:
            raise ValueError(member.refused)
        if member.size > MAX_MEMBER:
            raise ValueError(f"unpacks to {member.size:,} bytes; at most {MAX_MEMBER:,} are read")
        return member


class _Section(io.RawIOBase):
    """A part of an archive's file as a stream with a position of its own; keeps the archive open."""

    def __init__(self, archive: TarArchive, start: int, size: int) -> None:
        self._archive, self._start, self._size, self._at = archive, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self._size - self._at))
        data = os.pread(self._archive._file.fileno(), count, self._start + self._at)
        if count and not data:
            raise EOFError("is cut short")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _index(file: IO[bytes]) -> dict[str, _Member]:
    """Every entry by its name; of entries with one name the last counts, as when unpacking.

    Not tarfile's own: it takes long names and extended headers of any declared size into memory.
    """
    handle, end = file.fileno(), os.fstat(file.fileno()).st_size
    members: dict[str, _Member] = {}
    at = total = count = 0
    said: dict[str, str] = {}  # what headers before an entry say of it
    while True:
        header = os.pread(handle, 512, at)
        if len(header) < 512:
            raise ValueError("is cut short: the end mark of a tar archive is missing")
        if not header.strip(b"\0"):
            return members
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise ValueError(f"is a broken tar archive ({error})") from None
        at += 512
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *_PAX):
            if not 0 <= info.size <= min(MAX_WORDS, end - at):
                raise ValueError(f"is a broken tar archive (a header of {info.size:,} bytes)")
            said |= _words(info.type, os.pread(handle, info.size, at))
            at += -(-info.size // 512) * 512
            count += 1
            continue
        name, size = said.get("path", info.name), _number(said.get("size"), info.size)
        refused = _KINDS.get(info.type, "").format(target=said.get("linkpath", info.linkname))
        if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in said):
            raise ValueError(f"holds a sparse file ({name}), which is not read; pack it without --sparse")
        said, count = {}, count + 1
        name = name.removeprefix("./") if name not in (".", "./") else ""
        start = at
        if not refused and not info.isdir():
            if size < 0 or at + size > end:
                raise ValueError(f"is cut short: {name} is said to have {size:,} bytes, and {end - at:,} are there")
            at += -(-size // 512) * 512
            total += size
        else:
            size = 0
        _check_whole(count, total)
        if name:
            members[name.rstrip("/") + "/" if info.isdir() else name] = _Member(start, size, refused)


_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def _words(kind: bytes, data: bytes) -> dict[str, str]:
    """What a long name or a pax header says of the entry after it."""
    if kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        text = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        return {"path" if kind == tarfile.GNUTYPE_LONGNAME else "linkpath": text}
    found: dict[str, str] = {}
    while data.strip(b"\0"):  # "LENGTH key=value\n", the length that of all of it
        number, _, _ = data.partition(b" ")
        length = int(number) if number.isdigit() and len(number) < 9 else 0
        key, equals, value = data[len(number) + 1 : length - 1].partition(b"=")
        if not len(number) + 2 < length <= len(data) or not equals:
            raise ValueError("is a broken tar archive (a pax header that makes no sense)")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return found if kind != tarfile.XGLTYPE else {}  # a global header tells of times and comments


def _number(text: str | None, usual: int) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 19 else usual


def _checksum_fits(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True
