"""Files of named data sets from their publishers: bounded, checked against a known hash, kept in the user's cache."""

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from gridsight.core.console import Console
from gridsight.core.errors import DataError
from gridsight.core.run import atomic_write

BLOCK = 1 << 16
TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True)
class Remote:
    """One published file: its `url`, size in bytes and SHA-256 (hex)."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The publisher's file name."""
        return self.url.rpartition("/")[2]


def fetch(remote: Remote, folder: Path, console: Console | None = None) -> Path:
    """The file in `folder`, downloaded when it is not there; never half a file, never one with another hash.

    Raises `DataError` when it cannot be had, saying which file to put where by hand.
    """
    path = folder / remote.name
    if path.exists():
        return path
    by_hand = f"put {remote.name} from {remote.url} into {folder} by hand"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data = _download(remote, console or Console())
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise DataError(f"cannot download {remote.url} ({_why(error)}); {by_hand}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != remote.sha256:
        raise DataError(
            f"{remote.url} gave {len(data):,} bytes that are not the published file "
            f"(SHA-256 {found[:12]}..., published {remote.sha256[:12]}...); {by_hand}"
        )
    try:
        atomic_write(path, data)
    except OSError as error:
        raise DataError(f"cannot write {path} ({_why(error)})") from None
    return path


def _download(remote: Remote, console: Console) -> bytes:
    if not remote.url.startswith("https://"):
        raise ValueError("only https is used")
    data = bytearray()
    with (
        urllib.request.urlopen(remote.url, timeout=TIMEOUT) as stream,
        console.progress(f"downloading {remote.name}", remote.size) as bar,
    ):
        # one byte more than published is enough to know that it is another file
        while len(data) <= remote.size and (block := stream.read(min(BLOCK, remote.size + 1 - len(data)))):
            data += block
            bar.update(len(data))
    return bytes(data)


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(getattr(reason, "strerror", None) or reason)
