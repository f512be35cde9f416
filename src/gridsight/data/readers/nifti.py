"""NIfTI-1 and NIfTI-2 volumes: .nii, .nii.gz, and pairs of .hdr and .img (gzipped or not). One file is one item.

Format: https://nifti.nimh.nih.gov. An item is (C, D, H, W) with its spacing in mm, brought to one orientation by
`data/orientation.py`: indices rise from feet to head, from back to front, from left to right, whatever order the file
has. A fourth axis (time, echoes, b-values) is channels; so are the colours of RGB files. Integers of 8 and 16 bits stay
as they are where the header has no scaling; scaled values, larger integers and floats are float32. nibabel reads the
header; the values are read here, so that what a header declares is compared with the file before room is made for it.
Orientation: sform, else qform, else the axes are taken as right to left, back to front, feet to head (the standard's
"method 1"). Labels of tissue, time steps in seconds, and extensions are not read.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data import rows
from gridsight.data.files import File
from gridsight.data.orientation import upright, usable
from gridsight.data.readers import READERS, Reader, missing
from gridsight.data.sample import Header, Sample

SIZES = {348: (344, (b"n+1\0", b"ni1\0")), 540: (4, (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n"))}
"""Bytes of a header, which it begins with; where its magic lies, and what that is for one file and for a pair."""
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Of the header's unit of space: unknown, metre, millimetre, micrometre."""
GZIP_RATIO = 1_040  # deflate packs at most 1,032 to 1
MAX_AXIS = 100_000  # cells an axis


@dataclass(frozen=True)
class Volume:
    """What a header declares: `shape` (i, j, k, channels), `steps` as in `orientation.upright`."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype
    scaling: tuple[float, float] | None
    steps: np.ndarray
    spaced: bool
    start: int
    paired: bool

    @property
    def kept(self) -> np.dtype:
        """The type of the item."""
        if self.dtype.fields:
            return np.dtype(np.uint8)
        small = self.dtype.kind in "iu" and self.dtype.itemsize <= 2 and self.scaling is None
        if not small:
            return np.dtype(np.float32)
        return np.dtype({"u1": "u1", "i1": "i2", "u2": "u2", "i2": "i2"}[self.dtype.str[1:]])


@READERS.register("nifti", suffixes=(".nii", ".nii.gz", ".hdr", ".hdr.gz"), ndims=(3,), many=False, kind="volume")
class NiftiReader(Reader):
    """One volume a file."""

    def sniff(self, file: File, head: bytes) -> bool:
        if head.startswith(b"\x1f\x8b"):
            try:
                head = zlib.decompressobj(31).decompress(head, 540)
            except zlib.error:
                return False
        return _kind(head) is not None

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        yield self.read_single(file)

    def read_single(self, file: File, axes: str | None = None) -> Sample:
        volume = _header(file)
        array = _values(file, volume)
        if volume.scaling is not None:
            scaled = np.empty(array.shape, np.float32)
            for k in range(array.shape[-1]):  # a slice at a time: float64 of the whole would be eight times the file
                with np.errstate(over="ignore"):  # what float32 cannot hold is told below
                    scaled[..., k] = array[..., k] * volume.scaling[0] + volume.scaling[1]
            array = scaled
        array = rows.convert(array, volume.kept)
        if array.dtype.kind == "f" and (bad := array.size - np.count_nonzero(np.isfinite(array))):
            raise ReadError(file, rows.not_finite(int(bad), array.size))
        out, spacing = upright(array, volume.steps)
        return Sample(out, str(file), spacing=spacing if volume.spaced else None)

    def probe(self, file: File, axes: str | None = None) -> Header:
        volume = _header(file)
        i, j, k, channels = (int(size) for size in volume.shape)
        out, spacing = upright(np.broadcast_to(np.uint8(0), (channels, i, j, k)), volume.steps)
        return Header(channels, out.shape[1:], volume.kept.name, spacing=spacing if volume.spaced else None)

    def beside(self, file: File) -> tuple[File, ...]:
        found = _image_of(file) if ".hdr" in file.name.lower() else None
        return (found,) if found is not None else ()

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        nibabel = _nibabel()
        rng = np.random.default_rng(0)
        brain = rng.integers(-500, 500, (1, 4, 6, 5), dtype=np.int16)
        series = rng.integers(0, 256, (3, 4, 5, 6), dtype=np.uint8)
        real = rng.normal(size=(1, 3, 4, 5)).astype(np.float32)
        # stored front to back, left to right, feet to head: the axes (H, W, D) with the first turned round
        turned = np.array([[0, 2.0, 0, 0], [-1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])
        nibabel.save(
            nibabel.Nifti1Image(brain[0].transpose(1, 2, 0)[::-1], turned, dtype=np.int16), folder / "brain.nii.gz"
        )
        nibabel.save(
            nibabel.Nifti1Pair(series.transpose(3, 2, 1, 0), np.diag([1.0, 1, 1, 1]), dtype=np.uint8),
            folder / "pair.hdr",
        )
        nibabel.save(nibabel.Nifti2Image(real[0].transpose(2, 1, 0), np.diag([1.0, 1, 2, 1])), folder / "real.nii")
        return [
            (folder / "brain.nii.gz", [Sample(brain, str(folder / "brain.nii.gz"), spacing=(3.0, 1.0, 2.0))]),
            (folder / "pair.hdr", [Sample(series, str(folder / "pair.hdr"), spacing=(1.0, 1.0, 1.0))]),
            (folder / "real.nii", [Sample(real, str(folder / "real.nii"), spacing=(2.0, 1.0, 1.0))]),
        ]


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError:
        return None
    return nibabel


def _kind(head: bytes) -> tuple[str, int, bool] | None:
    """Byte order, header size and whether values lie in another file; None when it is no NIfTI header."""
    for order in "<>":
        size = struct.unpack(order + "i", head[:4])[0] if len(head) >= 4 else 0
        if size in SIZES:
            at, magics = SIZES[size]
            found = head[at : at + len(magics[0])]
            return (order, size, found == magics[1]) if found in magics else None
    return None


def _header(file: File) -> Volume:
    with _opened(file, file) as stream:
        head = stream.read(540)
    found = _kind(head)
    if found is None:
        if head[:4] in (struct.pack("<i", 348), struct.pack(">i", 348)) and len(head) >= 348:
            raise ReadError(
                file,
                "begins like a volume without NIfTI's magic number (ANALYZE 7.5, which does not say left from right?); "
                "convert it to NIfTI",
            )
        raise ReadError(file, "is not a NIfTI volume, or is cut short within its header")
    order, size, paired = found
    if len(head) < size:
        raise ReadError(file, f"is cut short: a NIfTI header has {size} bytes, and {len(head)} are there")
    nibabel = _nibabel()
    if nibabel is None:
        raise missing(file, "nibabel", "volumes")
    kind = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
    try:
        # check=False: nibabel would mend some faults in silence and print others
        header = kind(head[:size], order, check=False)
        return _understood(file, header, paired)
    except ReadError:
        raise
    except Exception as error:  # a hostile header makes nibabel raise nearly anything
        raise ReadError(file, f"has a NIfTI header that makes no sense ({_words(error)})") from None


def _understood(file: File, header: Any, paired: bool) -> Volume:
    if not 1 <= int(header["dim"][0]) <= 7:
        raise ReadError(file, f"declares {int(header['dim'][0])} axes; NIfTI has 1 to 7")
    shape = tuple(int(size) for size in header.get_data_shape())
    if min(shape) < 1 or max(shape) > MAX_AXIS:
        raise ReadError(file, f"declares an impossible shape {shape}")
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 5 and shape[3] == 1:  # vectors: displacements, colours
        shape = (*shape[:3], shape[4])
    if len(shape) > 4:
        raise ReadError(file, f"has {len(shape)} axes {shape}; three of space and one of channels are read: split it")
    if len(shape) == 1:
        raise ReadError(file, f"is no volume: it has one axis of {shape[0]:,}")
    i, j, k, channels = (*shape, *[1] * (4 - len(shape)))
    try:
        dtype = np.dtype(header.get_data_dtype())
    except KeyError:
        raise ReadError(file, f"holds values of an unknown type (NIfTI datatype {int(header['datatype'])})") from None
    if dtype.fields and list(dtype.fields) == ["R", "G", "B"]:
        if channels > 1:
            raise ReadError(file, f"has colours and {channels} channels; split it")
        channels = 3
    elif dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise ReadError(file, f"holds {header.get_value_label('datatype')} values; integers, floats or RGB are read")
    scaling = header.get_slope_inter()
    if scaling[0] is None or tuple(scaling) == (1.0, 0.0) or dtype.fields:
        scaling = None
    spacing = np.asarray(header["pixdim"][1:4], float)
    coded = int(header["sform_code"]) != 0 or int(header["qform_code"]) != 0
    # a file of fewer axes may leave the spacing of the others out
    spaced = coded or bool(np.isfinite(spacing).all() and (spacing != 0).all())
    if spaced:
        steps = np.asarray(header.get_best_affine(), float)[:3, :3]
    else:
        steps = np.diag([-1.0, 1.0, 1.0])
    steps = steps * MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    if not usable(steps):
        raise ReadError(file, "its orientation makes no sense: the header's axes do not span a space; set its sform")
    start = 0 if paired else max(int(header["vox_offset"]), header.sizeof_hdr)
    return Volume((i, j, k, channels), dtype, scaling, steps, spaced, start, paired)


def _values(file: File, volume: Volume) -> np.ndarray:
    """(C, i, j, k) as stored, once the file is known to hold it."""
    image = _image_of(file) if volume.paired else file
    if image is None:
        stem = file.name[: file.name.lower().rindex(".hdr")] if ".hdr" in file.name.lower() else file.name
        raise ReadError(file, f"is the header of a pair, and {stem}.img with the values is not beside it")
    name = "" if image is file else f"{image.name} "
    # a colour is one value of three bytes
    count = prod(volume.shape) // (3 if volume.dtype.fields else 1)
    wanted = volume.start + count * volume.dtype.itemsize
    cells = "x".join(map(str, volume.shape[:3]))
    if wanted > rows.MAX_ITEM:
        raise ReadError(file, f"declares {cells} cells, {wanted:,} bytes; at most {rows.MAX_ITEM:,} are read")
    there, packed = image.size(), image.head(2) == b"\x1f\x8b"
    if (there * GZIP_RATIO if packed else there) < wanted:
        what = f"cannot hold the {wanted:,} bytes" if packed else f"is cut short: {wanted:,} bytes are"
        raise ReadError(file, f"{name}{what} that its header declares ({cells} cells); it has {there:,}")
    with _opened(file, image) as stream:
        rows.read_exact(file, stream, volume.start)
        data = rows.read_exact(file, stream, wanted - volume.start)
        if stream.read(1):
            raise ReadError(file, f"{name}is longer than it says: its header declares {wanted:,} bytes ({cells} cells)")
    if volume.dtype.fields:
        i, j, k, channels = volume.shape
        return np.frombuffer(data, np.uint8).reshape(channels, i, j, k, order="F")
    i, j, k, channels = volume.shape
    return np.frombuffer(data, volume.dtype).reshape(i, j, k, channels, order="F").transpose(3, 0, 1, 2)


def _image_of(file: File) -> File | None:
    """The file of values that belongs to a header."""
    name = file.name
    at = name.lower().rfind(".hdr")
    stem = name[:at] if at >= 0 else name.rpartition(".")[0]
    names = (stem + suffix for suffix in (".img", ".img.gz", ".IMG"))
    return next((found for name in names if (found := file.sibling(name)) is not None), None)


@contextmanager
def _opened(file: File, image: File) -> Iterator[IO[bytes]]:
    """The bytes of `image`, unpacked where they are gzipped; what is wrong with them is an error of `file`."""
    packed = image.head(2) == b"\x1f\x8b"
    with rows.reading(file), image.open() as stream:
        if packed:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            yield stream  # type: ignore[misc]


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
