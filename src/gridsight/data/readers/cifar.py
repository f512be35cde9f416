"""CIFAR-10 and CIFAR-100 in their published binary version, unpacked or within its .tar.gz, which is read in place.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. CIFAR-10: `data_batch_1.bin` to `data_batch_5.bin` and
`test_batch.bin`, items of 1 label byte and 3072 pixels (3, 32, 32), names in `batches.meta.txt`. CIFAR-100:
`train.bin` and `test.bin`, items of a coarse and a fine label byte (the fine one counts) and the pixels, names in
`fine_label_names.txt`. The Python version is pickled: it could run code when loaded, and is refused.
"""

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data import rows
from gridsight.data.files import File
from gridsight.data.readers import READERS, Reader
from gridsight.data.sample import Sample

PIXELS = 3 * 32 * 32
MAX_UNPACKED = 1 << 30  # bytes; the real archives unpack to 184 MB
MAX_NAMES = 64 << 10
BATCH = 256  # items read at once


@dataclass(frozen=True)
class Version:
    """CIFAR-10 or CIFAR-100: bytes of labels before the pixels (the last one counts), and where the names are."""

    classes: int
    label_bytes: int
    names: str
    folder: str

    @property
    def item(self) -> int:
        """Bytes of one item."""
        return self.label_bytes + PIXELS


TEN = Version(10, 1, "batches.meta.txt", "cifar-10-batches-bin")
HUNDRED = Version(100, 2, "fine_label_names.txt", "cifar-100-binary")
PICKLED = ("cifar-10-batches-py", "cifar-100-python")
ARCHIVES = tuple(f"cifar-{n}-{kind}.tar.gz" for n in (10, 100) for kind in ("binary", "python"))


@READERS.register(
    "cifar",
    suffixes=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", *ARCHIVES),
    ndims=(2,),
    many=True,
    truncated="items without a count: cut after a whole item it is a shorter file",
)
class CifarReader(Reader):
    """Many items a file."""

    def sniff(self, file: File, head: bytes) -> bool:
        if head.startswith(b"\x1f\x8b"):
            return _tar_folder(head) in (TEN.folder, HUNDRED.folder, *PICKLED)
        if _is_pickle(file.name, head):
            return True  # to say what to take instead
        version = _version(file.name)
        if version is None or len(head) < version.label_bytes:
            return False
        return file.size() % version.item == 0 and head[version.label_bytes - 1] < version.classes

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        head = file.head()
        number = "100" if "100" in file.name or file.name in ("train", "test", "meta") else "10"
        if _is_pickle(file.name, head) or (head.startswith(b"\x1f\x8b") and _tar_folder(head) in PICKLED):
            raise ReadError(
                file,
                "is the pickled version of CIFAR, which could run code when loaded; "
                f"take the binary version: cifar-{number}-binary.tar.gz",
            )
        if head.startswith(b"\x1f\x8b"):
            yield from _read_archive(file)
            return
        version = _version(file.name)
        if version is None:
            raise ReadError(file, "is no file of CIFAR's binary version (data_batch_1.bin, test_batch.bin, train.bin)")
        if file.size() == 0:
            raise ReadError(file, "is empty (0 bytes)")
        beside = file.sibling(version.names)
        names = _names(beside, beside.read(MAX_NAMES), version) if beside else None
        with rows.reading(file), file.open() as stream:
            yield from _items(file, str(file), stream, file.size(), version, names)  # type: ignore[arg-type]

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
        names = [f"class {i}" for i in range(10)]
        text = "".join(f"{name}\n" for name in names).encode()
        batch = b"".join(bytes([9 - i]) + pixels[i].tobytes() for i in range(4))
        test = batch[: TEN.item]
        (folder / "batches.meta.txt").write_bytes(text)
        (folder / "data_batch_1.bin").write_bytes(batch)
        (folder / "test_batch.bin").write_bytes(test)
        fine = b"".join(bytes([3, 99 - i]) + pixels[i].tobytes() for i in range(4))
        (folder / "train.bin").write_bytes(fine)
        (folder / "fine_label_names.txt").write_text("".join(f"fine {i}\n" for i in range(100)))
        archive = folder / "cifar-10-binary.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            # the publisher's order: the names come after the first batches
            for name, data in (("data_batch_1.bin", batch), ("batches.meta.txt", text), ("test_batch.bin", test)):
                info = tarfile.TarInfo(f"{TEN.folder}/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

        def expected(path: object, split: str, count: int, prefix: str = "class", first: int = 9) -> list[Sample]:
            return [Sample(pixels[i], f"{path}[{i}]", f"{prefix} {first - i}", split) for i in range(count)]

        inside = [
            *expected(f"{archive}!data_batch_1.bin", "train", 4),
            *expected(f"{archive}!test_batch.bin", "test", 1),
        ]
        return [
            (folder / "data_batch_1.bin", expected(folder / "data_batch_1.bin", "train", 4)),
            (folder / "test_batch.bin", expected(folder / "test_batch.bin", "test", 1)),
            (folder / "train.bin", expected(folder / "train.bin", "train", 4, "fine", 99)),
            (archive, inside),
        ]


def _version(name: str) -> Version | None:
    if re.fullmatch(r"(data_batch_\d+|test_batch)\.bin", name):
        return TEN
    return HUNDRED if name in ("train.bin", "test.bin") else None


def _is_pickle(name: str, head: bytes) -> bool:
    return head[:1] == b"\x80" and bool(re.fullmatch(r"data_batch_\d+|test_batch|batches\.meta|train|test|meta", name))


def _tar_folder(head: bytes) -> str:
    """The folder of the first entry of a gzipped tar, from its first bytes."""
    try:
        name = zlib.decompressobj(31).decompress(head, 100)
    except zlib.error:
        return ""
    return name.partition(b"\0")[0].decode("utf-8", "replace").removeprefix("./").partition("/")[0]


def _names(file: object, data: bytes, version: Version) -> list[str]:
    names = [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    if len(names) != version.classes:
        raise ReadError(file, f"holds {len(names)} class names; CIFAR-{version.classes} has {version.classes}")
    return names


def _items(
    file: object, path: str, stream: IO[bytes], size: int, version: Version, names: list[str] | None
) -> Iterator[Sample | ReadError]:
    if size % version.item or not size:
        raise ReadError(path, f"is cut short or no CIFAR: {size:,} bytes are no multiple of {version.item:,}")
    split = "test" if "test" in path.rpartition("/")[2].rpartition("!")[2] else "train"
    count = size // version.item
    for start in range(0, count, BATCH):
        here = min(BATCH, count - start)
        items = np.frombuffer(rows.read_exact(file, stream, here * version.item), np.uint8).reshape(here, -1)
        labels = items[:, version.label_bytes - 1].tolist()
        pixels = items[:, version.label_bytes :].reshape(here, 3, 32, 32)
        for i, label in enumerate(labels):
            name = f"{path}[{start + i}]"
            if label >= version.classes:
                yield ReadError(name, f"its label {label} is none of the {version.classes} classes")
            else:
                yield Sample(pixels[i], name, names[label] if names else str(label), split)


def _read_archive(file: File) -> Iterator[Sample | ReadError]:
    names = None
    with _members(file) as members:  # first for the names, which lie between the batches
        for name, size, stream in members:
            if name in (TEN.names, HUNDRED.names) and size <= MAX_NAMES:
                text = bytes(rows.read_exact(file, stream, size))
                names = _names(f"{file}!{name}", text, TEN if name == TEN.names else HUNDRED)
                break
    found = False
    with _members(file) as members:
        for name, size, stream in members:
            if (version := _version(name)) is not None:
                found = True
                yield from _items(file, f"{file}!{name}", stream, size, version, names)
    if not found:
        raise ReadError(file, "holds none of CIFAR's files (data_batch_1.bin, test_batch.bin, train.bin)")


@contextmanager
def _members(file: File) -> Iterator[Iterator[tuple[str, int, IO[bytes]]]]:
    """Name, size and stream of every regular file of a .tar.gz; what the user of it leaves unread is passed over."""
    with rows.reading(file), file.open() as packed, gzip.GzipFile(fileobj=packed) as stream:
        yield _tar_members(file, stream)


def _tar_members(file: File, stream: gzip.GzipFile) -> Iterator[tuple[str, int, IO[bytes]]]:
    # Not tarfile's own reading: it takes long names and extended headers of any declared size into memory.
    position = 0
    while True:
        header = bytes(rows.read_exact(file, stream, 512))  # type: ignore[arg-type]
        if not header.strip(b"\0"):
            while stream.read(64 << 10):  # the rest is padding; at its end gzip compares its checksum
                if stream.tell() > MAX_UNPACKED:
                    raise ReadError(file, f"unpacks to more than {MAX_UNPACKED:,} bytes")
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
        except tarfile.TarError as error:
            raise ReadError(file, f"is a broken tar archive ({error})") from None
        position += 512
        end = position + -(-info.size // 512) * 512
        if info.size < 0 or end > MAX_UNPACKED:
            raise ReadError(file, f"unpacks to more than {MAX_UNPACKED:,} bytes")
        if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield info.name.rpartition("/")[2], info.size, stream  # type: ignore[misc]
        while (left := end - stream.tell()) > 0:
            rows.read_exact(file, stream, min(left, 1 << 20))  # type: ignore[arg-type]
        position = end
