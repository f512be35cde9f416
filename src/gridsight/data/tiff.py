"""TIFF beyond ordinary pictures: any number of bands, 8 to 64 bits, signed, unsigned and float, strips or tiles, planes
apart or together, BigTIFF, many pages. Needs tifffile, and imagecodecs for most compressions.

Format: Adobe's "TIFF revision 6.0"; BigTIFF (https://www.awaresystems.be/imaging/tiff/bigtiff.html). One page is
(bands, H, W); several, when all are alike, are a stack (bands, D, H, W); reduced copies and masks among them are left
out. Types as in `rows.target_dtype`: integers of 8 and 16 bits stay (int8 becomes int16), others become float32, or
uint8 where all are within 0 to 255. A declared alpha is laid on white, as in pictures; a sample without a meaning is a
band. What a file declares is compared with its bytes before room is made for it.
"""

import io
import logging
from math import prod
from typing import Any

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data import rows
from gridsight.data.files import File

MAX_BYTES = 1 << 30  # of one item
MAX_PAGES = 20_000
MAX_RATIO = 2_000  # what unpacks to more than this times its packed size is a bomb
MAX_SPARE = 64 << 20  # bytes of one tile, however small the picture
ORIENTATION = 274
_WHITE_IS_ZERO, _RGB = 0, 2
_ALPHAS = (1, 2)  # ExtraSamples: multiplied into the colours already, or not
_UNDECIDED = 0
_ORDINARY = {"1": 8, "L": 8, "P": 8, "RGB": 8, "LA": 8, "PA": 8, "RGBA": 8, "CMYK": 8, "YCbCr": 8, "I;16": 16, "F": 32}
"""Pillow's modes that lose nothing, with the most bits a sample that they have."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what matters is raised with the path


def is_ordinary(picture: Any) -> bool:
    """Whether a TIFF opened by Pillow is a picture of one page that Pillow reads without loss."""
    tags, mode = picture.tag_v2, picture.mode
    mode = "I;16" if mode.startswith("I;16") and mode != "I;16S" else mode
    bits, signs, extra = (_tuple(tags.get(tag)) for tag in (258, 339, 338))
    wanted = 3 if mode == "F" else 1
    return (
        getattr(picture, "n_frames", 1) == 1
        and max(bits, default=1) <= _ORDINARY.get(mode, 0)
        and all(sign == wanted for sign in signs or (wanted,))
        and _UNDECIDED not in extra
    )


def read_tiff(file: File, data: bytes, axes: str | None = None) -> np.ndarray:
    """(bands, H, W), or (bands, D, H, W) of several pages; with the axes "CHW" pages of one band are bands."""
    try:
        import tifffile
    except ImportError:
        from gridsight.data.readers import missing

        raise missing(file, "tifffile", "tiff") from None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as opened:
            pages = _pages(file, opened)
            _check(file, pages, len(data))
            out = None
            for i, page in enumerate(pages):
                array = _planes(page, page.asarray(maxworkers=1))
                if out is None:
                    out = np.empty((array.shape[0], len(pages), *array.shape[1:]), array.dtype)
                out[:, i] = array
    except ReadError:
        raise
    except Exception as error:  # a hostile file makes tifffile raise nearly anything
        words = " ".join(str(error).split()) or type(error).__name__
        if "imagecodecs" in words:
            from gridsight.data.readers import missing

            raise missing(file, "imagecodecs", "tiff") from None
        raise ReadError(file, f"is a broken tiff picture ({words[:200]})") from None
    assert out is not None
    if out.shape[2] > 1 and out.ndim == 5:
        raise ReadError(file, "has pages of several slices each")
    out = out.reshape(out.shape[0], -1, *out.shape[-2:])
    if axes is not None and axes.upper() == "CHW" and out.shape[0] == 1:
        out = out.transpose(1, 0, 2, 3)
    return _converted(file, out[:, 0] if out.shape[1] == 1 else out)


def _pages(file: File, opened: Any) -> list[Any]:
    """The pages that count, all alike."""
    pages: list[Any] = []
    seen: set[int] = set()
    for i, page in enumerate(opened.pages):
        if i >= MAX_PAGES:
            raise ReadError(file, f"has more than {MAX_PAGES:,} pages")
        page = page.aspage()
        if page.offset in seen:
            raise ReadError(file, "is a broken tiff picture (its pages go round in a circle)")
        seen.add(page.offset)
        if i and (page.is_reduced or page.is_mask):
            continue
        pages.append(page)
        first = pages[0]
        if (page.shaped, page.dtype) != (first.shaped, first.dtype):
            raise ReadError(
                file,
                f"has pages of different kinds: page {i + 1} is {_words(page)} and the first {_words(first)}; "
                "save each on its own",
            )
    if not pages:
        raise ReadError(file, "is a broken tiff picture (it has no page)")
    return pages


def _words(page: Any) -> str:
    return f"{page.imagewidth:,} x {page.imagelength:,}, {page.samplesperpixel} samples of {page.dtype}"


def _check(file: File, pages: list[Any], there: int) -> None:
    """Refuse what declares more than it holds, or more than is decoded."""
    first = pages[0]
    if first.dtype is None or first.dtype.kind not in "biuf":
        raise ReadError(file, f"holds samples of an unknown kind ({first.dtype}); integers and floats are read")
    one = prod(first.shaped) * first.dtype.itemsize
    whole = one * len(pages)
    if min(first.shaped) < 1:
        raise ReadError(file, f"declares {first.imagewidth:,} x {first.imagelength:,} pixels")
    if whole > MAX_BYTES:
        raise ReadError(
            file,
            f"declares {_words(first)}, {len(pages):,} pages: {whole:,} bytes; at most {MAX_BYTES:,} are decoded "
            "(decompression bomb?)",
        )
    chunk = prod(first.chunks) * first.dtype.itemsize
    if chunk > max(one, MAX_SPARE):
        raise ReadError(file, f"declares tiles of {chunk:,} bytes for a picture of {one:,}")
    for page in pages:
        packed = 0
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if start < 0 or count < 0 or start + count > there:
                raise ReadError(file, f"is cut short: its data end at byte {start + count:,} of {there:,}")
            packed += count
        if page.compression == 1 and page.bitspersample >= 8 and packed < one:
            raise ReadError(file, f"is cut short: {one:,} bytes were promised and {packed:,} are there")
        if one > MAX_RATIO * packed:
            raise ReadError(file, f"declares {one:,} bytes, and {packed:,} are there (decompression bomb?)")


def _planes(page: Any, array: np.ndarray) -> np.ndarray:
    """(bands, H, W), or (bands, slices, H, W) of a page with depth, upright, alpha laid on white."""
    apart, depth, height, width, together = page.shaped
    array = array.reshape(page.shaped).transpose(0, 4, 1, 2, 3).reshape(apart * together, depth, height, width)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)  # black and white, as in pictures
    unsigned = array.dtype.kind == "u"
    if page.photometric == _WHITE_IS_ZERO and len(array) == 1 and unsigned:
        array = np.iinfo(array.dtype).max - array
    extra = tuple(int(value) for value in page.extrasamples)
    if page.photometric == _RGB and extra and extra[0] in _ALPHAS and len(array) == 3 + len(extra) and unsigned:
        array = np.concatenate([_on_white(array[:3], array[3], extra[0] == 1), array[4:]])
    tag = page.tags.get(ORIENTATION)
    value = int(tag.value) if tag is not None and isinstance(tag.value, int) else 1
    array = turned(array, value)
    return array[:, 0] if depth == 1 else array


def _on_white(colour: np.ndarray, alpha: np.ndarray, multiplied: bool) -> np.ndarray:
    full = np.iinfo(colour.dtype).max
    if alpha.min() == full:
        return colour
    share = alpha / full
    mixed = (colour if multiplied else colour * share) + full * (1 - share)
    return np.rint(mixed.clip(0, full)).astype(colour.dtype)


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """(..., H, W) with a stored orientation undone: 2 mirrored, 3 upside down, 4 both, 5 to 8 also rows for columns."""
    if orientation not in range(2, 9):
        return array
    if orientation >= 5:
        array = array.swapaxes(-1, -2)
    if orientation in (2, 3, 6, 7):
        array = array[..., ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[..., ::-1, :]
    return np.ascontiguousarray(array)


def _converted(file: File, array: np.ndarray) -> np.ndarray:
    layout = rows.Layout(array.shape, array.dtype)
    out = rows.convert(array, rows.target_dtype(layout, lambda: [array]))
    if bad := out.size - np.count_nonzero(np.isfinite(out)):
        raise ReadError(file, rows.not_finite(int(bad), out.size))
    return np.ascontiguousarray(out)


def _tuple(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, tuple | list) else (value,)
