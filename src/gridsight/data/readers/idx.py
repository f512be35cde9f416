"""IDX: the array files of MNIST and its successors, gzipped or not; labels in the file beside.

Format: http://yann.lecun.com/exdb/mnist/ (big-endian; bytes 0, 0, type, number of axes, then each size as uint32).
`train-images-idx3-ubyte(.gz)` takes its labels from `train-labels-idx1-ubyte(.gz)`, and any `*-images-idx3-*` alike.
Items become (C, *spatial) uint8, uint16, int16 or float32 (`data/rows.py`), axes guessed unless told. Items come one
block after the other; nothing is ever made of the size that a header declares before the file is known to hold it.
"""

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data import rows
from gridsight.data.files import File
from gridsight.data.labels import read_labels
from gridsight.data.names import split_in
from gridsight.data.readers import READERS, Reader
from gridsight.data.rows import Layout
from gridsight.data.sample import Sample

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_AXES = 5  # items and four of their own
GZIP_RATIO = 1_040  # deflate packs at most 1,032 to 1


@READERS.register("idx", suffixes=("-ubyte", "-ubyte.gz", ".idx", ".idx.gz"), ndims=(1, 2, 3), many=True)
class IdxReader(Reader):
    """Many items a file."""

    def sniff(self, file: File, head: bytes) -> bool:
        if head.startswith(b"\x1f\x8b"):
            try:
                head = zlib.decompressobj(31).decompress(head, 4 + 4 * MAX_AXES)
            except zlib.error:
                return False
        if len(head) < 8 or head[:2] != b"\0\0" or head[2] not in TYPES or not 1 <= head[3] <= MAX_AXES:
            return False
        if re.search(r"idx\d?|-ubyte", file.name.lower()):
            return True
        # four bytes prove little where the name says nothing: the sizes must fit the file's own
        sizes = struct.unpack_from(f">{head[3]}I", head.ljust(24, b"\0"), 4)
        return file.size() == 4 + 4 * len(sizes) + prod(sizes) * np.dtype(TYPES[head[2]]).itemsize

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        with _open(file) as stream:
            layout = _layout(file, stream)
        if len(layout.shape) == 1:
            raise ReadError(file, "holds one number an item, as labels are; give the file of the items (images)")
        many, letters = rows.item_axes(file, layout, axes)
        labels = None
        if (beside := _labels_beside(file)) is not None:
            with _open(beside) as stream:
                found = _layout(beside, stream)
                array = rows.read_whole(beside, stream, found, rows.MAX_LABELS)
                _check_end(beside, stream)
            labels = read_labels(beside, array, layout.shape[0])

        def blocks() -> Iterator[np.ndarray]:
            with _open(file) as stream:
                _layout(file, stream)
                yield from rows.read_blocks(file, stream, layout)
                _check_end(file, stream)

        if many:
            dtype = rows.target_dtype(layout, blocks)
            yield from rows.samples(str(file), blocks(), letters, dtype, labels, split_in(file.name)[0])
        else:
            yield self.read_single(file, letters)

    def read_single(self, file: File, axes: str | None = None) -> Sample:
        with _open(file) as stream:
            layout = _layout(file, stream)
            array = rows.read_whole(file, stream, layout)
            _check_end(file, stream)
        return rows.single(file, array, axes)

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (5, 6, 7), dtype=np.uint8)
        series = rng.normal(size=(3, 20)).astype(np.float32)
        plain, packed = folder / "train-images-idx3-ubyte", folder / "t10k-images-idx3-ubyte.gz"
        labels = bytes([4, 0, 1, 2, 3])
        plain.write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 5, 6, 7) + images.tobytes())
        (folder / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 5) + labels)
        packed.write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 3, 6, 7) + images[:3].tobytes()))
        text = b"\0\0\x08\x01" + struct.pack(">I", 3) + labels[:3]
        (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(text))
        floats = folder / "series.idx"
        floats.write_bytes(b"\0\0\x0d\x02" + struct.pack(">2I", 3, 20) + series.astype(">f4").tobytes())
        return [
            (plain, [Sample(images[i : i + 1], f"{plain}[{i}]", str(labels[i]), "train") for i in range(5)]),
            (packed, [Sample(images[i : i + 1], f"{packed}[{i}]", str(labels[i]), "test") for i in range(3)]),
            (floats, [Sample(series[i : i + 1], f"{floats}[{i}]") for i in range(3)]),
        ]


@contextmanager
def _open(file: File) -> Iterator[IO[bytes]]:
    """The bytes, unpacked where they are gzipped."""
    packed = file.head(2) == b"\x1f\x8b"
    with rows.reading(file), file.open() as stream:
        if packed:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            yield stream  # type: ignore[misc]


def _layout(file: File, stream: IO[bytes]) -> Layout:
    """Read the header; the stream is then at the first value."""
    head = stream.read(4)
    if not head:
        raise ReadError(file, "is empty (0 bytes)")
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or not 1 <= head[3] <= MAX_AXES:
        raise ReadError(file, "is not an IDX file: its first four bytes make no sense")
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise ReadError(file, "is cut short within its header")
    layout = Layout(struct.unpack(f">{head[3]}I", sizes), np.dtype(TYPES[head[2]]))
    rows.check_layout(file, layout)
    there, packed = file.size() - 4 - len(sizes), isinstance(stream, gzip.GzipFile)
    if layout.nbytes > (there * GZIP_RATIO if packed else there) or (layout.nbytes < there and not packed):
        what = "is longer than it says" if layout.nbytes < there else "is cut short"
        held = f"its {file.size():,} packed bytes cannot hold that" if packed else f"{there:,} are there"
        raise ReadError(file, f"{what}: its header declares {layout.nbytes:,} bytes {layout.shape}, and {held}")
    return layout


def _check_end(file: File, stream: IO[bytes]) -> None:
    if stream.read(1):  # reading to the very end also makes gzip compare its checksum
        raise ReadError(file, "is longer than its header says")


def _labels_beside(file: File) -> File | None:
    """`train-images-idx3-ubyte.gz` -> `train-labels-idx1-ubyte(.gz)`."""
    name = re.sub(r"images|image|data", "labels", file.name, count=1)
    if name == file.name:
        return None
    stem = re.sub(r"idx\d", "idx1", name).removesuffix(".gz")
    # as the items are packed, else the other way
    names = (f"{stem}.gz", stem) if file.name.endswith(".gz") else (stem, f"{stem}.gz")
    return next(filter(None, map(file.sibling, names)), None)
