"""What a gzip, bzip2 or xz file holds, as a file without a name: gone however the process ends.

Bounded: by `MAX_RATIO` times what was read, by `most`, by half of the disk's free space. It lies in the cache's folder,
not in the system's temporary one, which may be memory.
"""

import bz2
import gzip
import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

MAX_RATIO = 1_000  # what unpacks to more than this times its packed size is a bomb
MAX_WINDOW = 256 << 20  # bytes that unpacking an xz may take
BLOCK = 1 << 20
_GZIP, _BZIP2, _XZ = PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
"""How packed files begin."""


def unpacked(path: Path, most: int) -> IO[bytes]:
    """The unpacked content, at most `most` bytes; what is wrong is an `OSError`, `EOFError` or `ValueError`."""
    from gridsight.data.cache import cache_folder

    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    most = min(most, shutil.disk_usage(folder).free // 2)
    out = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - whoever takes it closes it
    try:
        with path.open("rb") as packed:
            done = 0
            for block in _blocks(packed):
                done += len(block)
                if done > MAX_RATIO * packed.tell():
                    raise ValueError(f"unpacks to more than {MAX_RATIO:,} times its packed size")
                if done > most:
                    raise ValueError(
                        f"unpacks to more than the {most:,} bytes that {folder} may take; set GRIDSIGHT_CACHE to a "
                        "larger disk, or unpack it yourself"
                    )
                out.write(block)
        out.flush()
    except BaseException:
        out.close()
        raise
    return out


def _blocks(packed: IO[bytes]) -> Iterator[bytes]:
    """What a gzip, bzip2 or xz stream unpacks to, a block at a time."""
    head = packed.read(6)
    packed.seek(0)
    if head.startswith(_XZ):
        yield from _blocks_of_xz(packed)
        return
    opened = gzip.GzipFile(fileobj=packed) if head.startswith(_GZIP) else bz2.BZ2File(packed)
    try:
        with opened:
            while block := opened.read(BLOCK):
                yield block
    except EOFError:
        raise EOFError("is cut short: its compressed data end early") from None
    except gzip.BadGzipFile as error:
        raise ValueError(f"its compressed data are damaged ({error})") from None
    except (OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"its compressed data are damaged ({error})") from None


def _blocks_of_xz(packed: IO[bytes]) -> Iterator[bytes]:
    unpack = lzma.LZMADecompressor(memlimit=MAX_WINDOW)  # LZMAFile takes as much memory as a file asks for
    while not unpack.eof:
        data = packed.read(BLOCK) if unpack.needs_input else b""
        if unpack.needs_input and not data:
            raise EOFError("is cut short: its compressed data end early")
        yield unpack.decompress(data, BLOCK)
        if unpack.eof:  # another stream may follow, after zeros
            rest = unpack.unused_data.lstrip(b"\0")
            while not rest and (data := packed.read(BLOCK)):
                rest = data.lstrip(b"\0")
            if rest:
                packed.seek(-len(rest), os.SEEK_CUR)
                unpack = lzma.LZMADecompressor(memlimit=MAX_WINDOW)
