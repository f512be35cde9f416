"""One DICOM file: what its header says of its frames, and their values. Needs pydicom.

Format: https://www.dicomstandard.org (part 10 files: "DICM" at byte 128). Whatever a header declares is compared with
the file before room is made for it, and a transfer syntax that cannot be decoded is refused by its name.
"""

import hashlib
import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data import rows
from gridsight.data.files import File
from gridsight.data.readers import missing
from gridsight.data.slices import Place

MAX_PIXELS = 300_000_000  # of one frame
MAX_FRAMES = 100_000  # of one file
DEFLATED = "1.2.840.10008.1.2.1.99"
TAGS = (
    *("PatientID", "SeriesInstanceUID", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated"),
    *("BitsStored", "PixelRepresentation", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
"""What headers are looked at for."""

# Values that are not quite as the standard wants them: what matters is raised below with the path. A filter for the
# whole process, because catch_warnings is not safe among threads.
warnings.filterwarnings("ignore", module=r"pydicom\.")


@dataclass(frozen=True)
class Facts:
    """What one file says of its frames; `low` and `high` bound its stored values, `scaling` is (slope, intercept)."""

    file: File
    series: str
    group: str | None
    frames: int
    rows: int
    columns: int
    channels: int
    allocated: int
    stored: int
    signed: bool
    inverted: bool
    scaling: tuple[tuple[float, float], ...]
    pixel: tuple[float, float] | None
    between: float | None
    place: Place | None

    @property
    def low(self) -> int:
        """The smallest value that can be stored."""
        return -(1 << (self.stored - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest value that can be stored."""
        return (1 << (self.stored - 1 if self.signed else self.stored)) - 1

    @property
    def dtype(self) -> np.dtype:
        """The type of the item, told by the header alone."""
        if any(scaling != (1.0, 0.0) for scaling in self.scaling):
            ends = [slope * end + shift for slope, shift in self.scaling for end in (self.low, self.high)]
            whole = all(value == int(value) for pair in self.scaling for value in pair)
            return np.dtype(np.int16 if whole and min(ends) >= -(1 << 15) and max(ends) < 1 << 15 else np.float32)
        if self.stored > 16:
            return np.dtype(np.float32)
        return np.dtype(np.int16 if self.signed else np.uint8 if self.stored <= 8 else np.uint16)


def dataset_of(file: File, *, pixels: bool) -> Any:
    """The elements of a file, all or those of `TAGS`."""
    try:
        import pydicom
    except ImportError:
        raise missing(file, "pydicom", "volumes") from None
    with rows.reading(file), io.BytesIO(file.read()) if pixels else file.open() as stream:
        start = stream.read(4096)
        if start[128:132] != b"DICM":
            raise ReadError(file, 'is not a DICOM file ("DICM" is not at byte 128)')
        if _syntax_in(start) == DEFLATED:  # pydicom would unpack it whatever its size
            raise ReadError(
                file, f"has the transfer syntax Deflated Explicit VR Little Endian ({DEFLATED}), which is not read"
            )
        stream.seek(0)
        with _parsing(file):
            if pixels:
                return pydicom.dcmread(stream)
            return pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(TAGS))


@contextmanager
def _parsing(file: File) -> Iterator[None]:
    """Whatever pydicom raises becomes a `ReadError`: a hostile file makes it raise nearly anything, at any element."""
    try:
        yield
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(file, f"is a broken DICOM file ({_words(error)})") from None


def _syntax_in(meta: bytes) -> str:
    """The transfer syntax of the file meta elements, which are always explicit and little-endian."""
    at = meta.find(b"\x02\x00\x10\x00UI")
    if at < 0:
        return ""
    (length,) = struct.unpack_from("<H", meta.ljust(at + 8, b"\0"), at + 6)
    return meta[at + 8 : at + 8 + length].rstrip(b"\0 ").decode("ascii", "replace")


def facts_of(file: File, dataset: Any) -> Facts:
    """What the elements of a file say of its frames."""
    with _parsing(file):
        return _understood(file, dataset)


def _understood(file: File, dataset: Any) -> Facts:
    for name in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"):
        if dataset.get(name) is None:
            raise ReadError(file, f"holds no picture: it has no {name} (a report or a plan, or cut short?)")
    frames, channels = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel") or 1)
    height, width, allocated = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    stored = int(dataset.get("BitsStored") or allocated)
    colours = str(dataset.PhotometricInterpretation)
    if min(height, width, frames) < 1:
        raise ReadError(file, f"declares {frames:,} frames of {height:,} x {width:,} pixels")
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated:
        raise ReadError(file, f"stores {stored} of {allocated} bits a pixel; 1, 8, 16 and 32 are read")
    if channels not in (1, 3) or colours == "PALETTE COLOR":
        raise ReadError(file, f"has the colours {colours} ({channels} samples a pixel); gray and RGB are read")
    size = height * width * channels * frames * max(1, allocated // 8)
    if height * width > MAX_PIXELS or frames > MAX_FRAMES or size > rows.MAX_ITEM:
        raise ReadError(
            file,
            f"declares {frames:,} frames of {height:,} x {width:,} pixels, {size:,} bytes; at most "
            f"{MAX_PIXELS:,} pixels a frame, {MAX_FRAMES:,} frames and {rows.MAX_ITEM:,} bytes are read",
        )
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and not syntax.is_private and not syntax.is_compressed:
        wanted = _bytes_of(frames * height * width * channels * allocated, colours)
        if file.size() < wanted:
            raise ReadError(
                file, f"is cut short: {wanted:,} bytes of pixels are declared, and the file has {file.size():,}"
            )
    slopes = _each(dataset, frames, "PixelValueTransformationSequence", "RescaleSlope", 1)
    shifts = _each(dataset, frames, "PixelValueTransformationSequence", "RescaleIntercept", 1)
    scaling: tuple[tuple[float, float], ...] = ((1.0, 0.0),)
    if channels == 1 and slopes is not None and shifts is not None:
        scaling = tuple((slope, shift) for (slope,), (shift,) in zip(slopes, shifts, strict=True))
        scaling = scaling[:1] if len(set(scaling)) == 1 else scaling
    pixel = _each(dataset, frames, "PixelMeasuresSequence", "PixelSpacing", 2)
    spacing = (pixel[0][0], pixel[0][1]) if pixel is not None and min(pixel[0]) > 0 else None
    plane = _each(dataset, frames, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    positions = _each(dataset, frames, "PlanePositionSequence", "ImagePositionPatient", 3)
    parallel = plane is not None and len(set(plane)) == 1
    between = dataset.get("SpacingBetweenSlices")
    return Facts(
        file=file,
        series=str(dataset.get("SeriesInstanceUID") or ""),
        group=hashed(str(dataset.get("PatientID") or "")),
        frames=frames,
        rows=height,
        columns=width,
        channels=channels,
        allocated=allocated,
        stored=stored,
        signed=int(dataset.get("PixelRepresentation") or 0) == 1,
        inverted=colours == "MONOCHROME1",
        scaling=scaling,
        pixel=spacing,
        between=float(between) if between and float(between) > 0 else None,
        place=Place(plane[0], spacing, positions) if plane and parallel and spacing and positions else None,
    )


def _each(dataset: Any, frames: int, sequence: str, name: str, count: int) -> tuple[tuple[float, ...], ...] | None:
    """A value of each frame: the file's own, or that of the functional groups; None where a frame has none."""
    found = []
    shared = dataset.get("SharedFunctionalGroupsSequence") or [{}]
    single = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for i in range(frames):
        places = [dataset, *((group.get(sequence) or [{}])[0] for group in (*single[i : i + 1], shared[0]))]
        value = next((place.get(name) for place in places if place.get(name) is not None), None)
        if value is None:
            return None
        numbers = tuple(float(v) for v in (value if count > 1 else [value]))
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise ValueError(f"{name} is {value}")
        found.append(numbers)
        if places[0].get(name) is not None:
            return tuple(found * frames)  # of the file as a whole
    return tuple(found)


def hashed(patient: str) -> str | None:
    """A name for a patient that is not the ID."""
    return hashlib.blake2b(patient.strip().encode(), digest_size=6).hexdigest() if patient.strip() else None


# ---- pixels


def pixels_of(facts: Facts, dataset: Any) -> np.ndarray:
    """(C, frames, H, W) of `facts.dtype`."""
    with _parsing(facts.file):
        return _scaled(facts, _decoded(facts, dataset))


def _decoded(facts: Facts, dataset: Any) -> np.ndarray:
    """(C, frames, H, W) of integers as stored."""
    from pydicom.pixels import pixel_array

    file = facts.file
    floats = any(dataset.get(name) is not None for name in ("FloatPixelData", "DoubleFloatPixelData"))
    if dataset.get("PixelData") is None and not floats:
        raise ReadError(file, "holds no pixel data (a report or a plan, or cut short?)")
    if floats:
        raise ReadError(file, "holds floating-point pixel data, which are not read; save it as integers, or NIfTI")
    _check_syntax(file, dataset)
    _check_length(facts, dataset)
    array = pixel_array(dataset)
    shape = (facts.frames, facts.rows, facts.columns, facts.channels)
    if array.size != facts.frames * facts.rows * facts.columns * facts.channels or array.dtype.kind not in "iu":
        raise ReadError(file, f"its pixels are {array.shape} where the header declares {shape}")
    array = array.reshape(shape).transpose(3, 0, 1, 2)
    spare = facts.allocated - facts.stored
    if spare and facts.channels == 1 and facts.allocated > 1:  # not every pydicom drops what lies there
        array = (array << spare) >> spare  # the sign comes along
    return array


def _scaled(facts: Facts, array: np.ndarray) -> np.ndarray:
    if facts.inverted:
        array = facts.low + facts.high - array.astype(np.int64)
    dtype, scaling = facts.dtype, facts.scaling
    if scaling == ((1.0, 0.0),):
        return array.astype(dtype, copy=False)
    slope, shift = (np.array(values).reshape(1, -1, 1, 1) for values in zip(*scaling, strict=True))
    out = rows.convert(array * slope + shift, dtype)
    if dtype.kind == "f" and (bad := out.size - np.count_nonzero(np.isfinite(out))):
        raise ReadError(facts.file, rows.not_finite(int(bad), out.size))
    return out


def _check_syntax(file: File, dataset: Any) -> None:
    """Refuse pixels that no decoder here can decode, by the name and number of their transfer syntax."""
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise ReadError(file, "does not say how it is encoded: it has no transfer syntax")
    known = f"{syntax.name} ({syntax})" if syntax.name != str(syntax) else str(syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ReadError(file, f"has the transfer syntax {known}, which is not read; save it uncompressed") from None
    if not decoder.is_available:
        raise ReadError(
            file,
            f"has the transfer syntax {known}, and no decoder for it is installed; save it uncompressed, or "
            'pip install "gridsight[volumes]" (JPEG 2000 and RLE) or pylibjpeg-libjpeg (JPEG lossless and JPEG-LS)',
        )


def _check_length(facts: Facts, dataset: Any) -> None:
    """Compare the pixels' bytes, and the sizes that compressed frames say themselves, with the header."""
    from pydicom.encaps import generate_frames

    file, data, syntax = facts.file, dataset.PixelData, dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        bits = facts.frames * facts.rows * facts.columns * facts.channels * facts.allocated
        wanted = _bytes_of(bits, str(dataset.PhotometricInterpretation))
        if len(data) < wanted:
            raise ReadError(file, f"is cut short: {wanted:,} bytes of pixels are declared and {len(data):,} are there")
        return
    frames = list(generate_frames(data, number_of_frames=facts.frames))
    if len(frames) != facts.frames:
        raise ReadError(file, f"is cut short: {facts.frames:,} frames are declared and {len(frames):,} are there")
    for frame in frames:
        said = _frame_size(frame)
        if said is not None and said != (facts.rows, facts.columns, facts.channels):
            raise ReadError(
                file,
                f"its compressed pixels are {said[0]:,} x {said[1]:,} x {said[2]} where the header declares "
                f"{facts.rows:,} x {facts.columns:,} x {facts.channels}",
            )


def _bytes_of(bits: int, colours: str) -> int:
    """The bytes of uncompressed pixels."""
    count = -(-bits // 8)
    return count * 2 // 3 if "422" in colours else count


def _frame_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and channels that a JPEG or JPEG 2000 stream declares; None for other streams."""
    at = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # start of a codestream, and of its sizes
    if at >= 0 and len(frame) >= at + 42:
        right, bottom, left, top = struct.unpack_from(">4I", frame, at + 8)
        return bottom - top, right - left, struct.unpack_from(">H", frame, at + 40)[0]
    if frame.startswith(b"\xff\xd8\xff"):
        at = 2
        while len(frame) >= at + 10 and frame[at] == 0xFF:
            marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width, channels = struct.unpack_from(">HHB", frame, at + 5)
                return height, width, channels
            at += 2 + length
    return None


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
