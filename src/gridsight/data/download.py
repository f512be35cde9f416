"""Files from their publishers: bounded, resumed where a connection broke, checked against a known hash, kept whole.

A download in progress is `.NAME.part` beside the file it will be; it gets its name when its hash is the published one.
`$GRIDSIGHT_MIRROR`, an address such as https://mirror.example.org/weights, takes the place of everything before the
file's name, for machines that do not reach the publishers: the hash is still the publisher's.
"""

import contextlib
import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from gridsight.core.console import Console, Progress
from gridsight.core.errors import DataError

BLOCK = 1 << 16
TIMEOUT = 30.0  # seconds without an answer
ATTEMPTS = 3
MIRROR = "GRIDSIGHT_MIRROR"


@dataclass(frozen=True)
class Remote:
    """One published file: its `url`, the most bytes that it can have, and the SHA-256 (hex, or its first digits)."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The publisher's file name."""
        return self.url.rpartition("/")[2]

    @property
    def address(self) -> str:
        """Where it is asked for: the publisher, or the mirror that the user named."""
        mirror = os.environ.get(MIRROR)
        return f"{mirror.rstrip('/')}/{self.name}" if mirror else self.url


def fetch(remote: Remote, folder: Path, console: Console | None = None, offline: bool = False) -> Path:
    """The file in `folder`, downloaded when it is not there; never half a file, never one with another hash.

    Raises `DataError` when it cannot be had, saying which file to put where by hand.
    """
    path = folder / remote.name
    by_hand = f"put {remote.name} from {remote.url} into {folder} by hand"
    if path.exists():
        if (found := sha256(path)).startswith(remote.sha256):
            return path
        delete = f"delete it; {by_hand}" if offline else "delete it, and it is downloaded"
        raise DataError(f"{path} is not {remote.url} ({_hashes(found, remote)}); {delete}")
    if offline:
        raise DataError(f"{remote.name} is not in {folder}, and --offline downloads nothing; {by_hand}")
    part = folder / f".{remote.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another process may be at it
            if path.exists():
                return path
            _download(remote, part, console or Console())
            found, size = sha256(part), part.stat().st_size
            if found.startswith(remote.sha256):
                part.replace(path)
                return path
            part.unlink()
    except (OSError, ValueError, http.client.HTTPException) as error:
        kept = _size(part)
        if kept == 0:
            with contextlib.suppress(OSError):
                part.unlink()
        note = f"; {kept:,} bytes are kept, and the next call goes on from there" if kept else ""
        raise DataError(f"cannot download {remote.address} ({_why(error)}){note}; {by_hand}") from None
    wrong = f"{size:,} bytes that are not the published file ({_hashes(found, remote)})"
    if size > remote.size:
        wrong = f"more than the {remote.size:,} bytes of the published file, and was not read further"
    raise DataError(f"{remote.address} gave {wrong}; {by_hand}")


def _download(remote: Remote, part: Path, console: Console) -> None:
    """Append what is missing to `part`; a connection that breaks after some bytes is taken up again."""
    address = urllib.parse.urlsplit(remote.address)
    loopback = address.scheme == "http" and address.hostname in ("127.0.0.1", "localhost")
    if address.scheme != "https" and not loopback:
        raise ValueError("only https is used")
    with console.progress(f"downloading {remote.name}", remote.size) as bar:
        for attempt in range(1, ATTEMPTS + 1):
            before = _size(part)
            try:
                _append(remote, part, before, bar)
                return
            except (OSError, http.client.HTTPException):
                if attempt == ATTEMPTS or _size(part) == before:
                    raise


def _append(remote: Remote, part: Path, have: int, bar: Progress) -> None:
    asked = urllib.request.Request(remote.address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        stream = urllib.request.urlopen(asked, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing: the hash decides
            return
        raise
    with stream:
        if have and stream.status != 206:  # the server sends all of it again
            have = 0
        expected = stream.headers.get("Content-Length")
        with part.open("ab" if have else "wb") as file:
            got = 0
            # one byte more than published is enough to know that it is another file
            while have + got <= remote.size and (block := stream.read(min(BLOCK, remote.size + 1 - have - got))):
                file.write(block)
                got += len(block)
                bar.update(have + got)
    if expected is not None and got < int(expected) and have + got <= remote.size:
        raise OSError(f"the connection broke after {have + got:,} bytes")


def sha256(path: Path) -> str:
    """The hash of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hashes(found: str, remote: Remote) -> str:
    return f"SHA-256 {found[:12]}..., published {remote.sha256[:12]}..."


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(getattr(reason, "strerror", None) or reason)
