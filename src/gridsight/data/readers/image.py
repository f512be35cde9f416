"""Pictures: png, jpg, bmp, gif, webp, tiff, ppm/pgm/pbm. One file is one item (C, H, W), C 1 or 3, of TIFF any number.

Plain JPEG (gray, YCbCr, RGB) is decoded by simplejpeg, which gives Pillow's pixels 1.45 times as fast, and at a half or
less of its size where it will be shrunk further anyway (`fitting`); everything else, CMYK JPEG included, by Pillow.
Result: uint8; 16-bit gray stays uint16, float TIFF float32. A palette becomes colour, or gray when all its entries are;
what is transparent is laid on white; 16-bit colour is read as 8-bit (Pillow knows no other); colour profiles (ICC) are
not applied. The EXIF orientation is applied: the picture comes as a viewer shows it.
Nothing truncated is read. The array may be a view that is not contiguous.

TIFF with more bands, other types or several pages (a volume) is read by `data/tiff.py`. Of an animation it is the first
frame, unless `clips`: then a file is a clip (C, T, H, W), and so is a folder of frames whatever `clips` is.
"""

import io
import logging
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from gridsight.core.errors import ReadError
from gridsight.data.clips import read_animation, read_frames
from gridsight.data.files import File
from gridsight.data.readers import READERS, Reader
from gridsight.data.sample import Header, Sample
from gridsight.data.tiff import is_ordinary, read_tiff, turned

MAX_PIXELS = 300_000_000  # more is a decompression bomb: 900 MB in colour
MAX_BYTES = 1 << 30
PROBED = 1 << 18  # bytes looked at for a header
ORIENTATION = 0x0112  # EXIF's tag; values 1 to 8
SPARE = 2  # times the size that it is brought to: what a JPEG is decoded at is still shrunk by the one filter for all

# What Pillow warns of (metadata it cannot parse, more pixels than its own bound) is no concern of a user: what matters
# is raised below with the path. A filter for the whole process, because catch_warnings is not safe among threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # nor what it logs, where nobody asked for its log


def _format(head: bytes) -> str | None:
    """Pillow's name of the format, from the first bytes."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM") and head[14:18] in {struct.pack("<I", n) for n in (12, 40, 52, 56, 64, 108, 124)}:
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    return None


JPEGS = (".jpg", ".jpeg", ".jpe", ".jfif")
SUFFIXES = (*JPEGS, ".png", ".apng", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")


@READERS.register("image", suffixes=SUFFIXES, ndims=(2, 3), many=False)
class ImageReader(Reader):
    """One picture a file, or one clip: an animated picture (`clips`), a folder of frames."""

    version = 3

    def __init__(self, clips: bool = False, least: tuple[int, int] = (0, 0)) -> None:
        self.clips, self.least = clips, least

    def sniff(self, file: File, head: bytes) -> bool:
        return _format(head) is not None

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        yield self.read_single(file, axes)

    def read_single(self, file: File, axes: str | None = None) -> Sample:
        if file.is_folder and (frames := [frame for frame in file.inside() if _is_frame(frame)]):
            return Sample(read_frames(file, frames, lambda frame: _read(frame, axes)), str(file))
        return Sample(_read(file, axes, self.clips, self.least), str(file))

    def fitting(self, spatial: tuple[int, ...]) -> "ImageReader":
        height, width = spatial
        return ImageReader(self.clips, (SPARE * height, SPARE * width))

    def read_as(self, file: File, ndim: int, channels: int, axes: str | None = None) -> Iterator[Sample | ReadError]:
        clips = ndim == 3 and self.animated(file)
        sample = Sample(_read(file, axes, clips, self.least), str(file))
        if ndim == 3 and sample.array.ndim == 3:
            raise ReadError(file, "is a still picture, and the model takes clips or volumes; give the folder of frames")
        yield sample

    def are_frames(self, folder: File) -> bool:
        frames = [file for file in folder.inside() if _is_frame(file)]
        return bool(frames) and not any(self.animated(file) or _pages(file) > 1 for file in frames)

    def animated(self, file: File) -> bool:
        """Whether a picture has several frames, by its first bytes (GIF: by its second frame)."""
        head = file.head(PROBED)
        kind = _format(head[:32])
        if kind == "PNG":  # https://www.w3.org/TR/png-3/#11acTL comes before the pixels
            return 0 <= head.find(b"acTL") < head.find(b"IDAT") % len(head)
        if kind == "WEBP":
            return head[12:16] == b"VP8X" and bool(head[20] & 2)
        if kind != "GIF":
            return False
        with file.open() as stream:
            return bool(getattr(_open(file, stream, kind), "is_animated", False))

    def probe(self, file: File, axes: str | None = None) -> Header:
        if file.is_folder and (frames := [self.probe(frame, axes) for frame in file.inside() if _is_frame(frame)]):
            return Header(max(one.channels for one in frames), (len(frames), *frames[0].spatial), frames[0].dtype)
        if self.clips or file.is_folder:
            return super().probe(file, axes)
        head = file.read(MAX_BYTES) if file.size() <= PROBED else file.head(PROBED)
        kind = _format(head[:32])
        if kind == "JPEG":
            try:
                height, width, channels, _ = _jpeg_header(file, head)
            except ReadError:  # what is known of the size may lie behind a large colour profile
                return super().probe(file, axes)
            mode, turned = "L" if channels == 1 else "RGB", _jpeg_orientation(head) >= 5
        elif kind in ("PNG", "BMP", "PPM", "WEBP") and len(head) < PROBED:
            picture = _open(file, io.BytesIO(head), kind)
            (width, height), mode = picture.size, picture.mode
            # asked for EXIF that it has not met yet, Pillow decodes the whole PNG: it may follow the pixels
            turned = (kind != "PNG" or "exif" in picture.info) and _orientation(picture) >= 5
        else:
            return super().probe(file, axes)
        if mode not in _MODES:
            return super().probe(file, axes)
        channels, dtype = _MODES[mode]
        return Header(channels, (width, height) if turned else (height, width), dtype)

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        rng = np.random.default_rng(0)
        colour = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        gray, deep = colour[..., 0], rng.integers(0, 65536, (5, 7), dtype=np.uint16)
        smooth = np.full((9, 12, 3), (200, 100, 50), np.uint8)
        out: list[tuple[Path, np.ndarray]] = []
        pictures: dict[str, np.ndarray] = {
            "colour.png": colour,
            "gray.png": gray,
            "deep.png": deep,
            "colour.bmp": colour,
            "colour.tif": colour,
            "deep.tiff": deep,
            "colour.ppm": colour,
            "gray.pgm": gray,
            "gray.gif": gray,
        }
        for name, array in pictures.items():
            Image.fromarray(array).save(folder / name)
            out.append((folder / name, array))
        Image.fromarray(smooth).save(folder / "smooth.jpg", quality=100, subsampling=0)
        out.append((folder / "smooth.jpg", np.asarray(Image.open(folder / "smooth.jpg"))))
        if features.check("webp"):
            Image.fromarray(colour).save(folder / "colour.webp", lossless=True)
            out.append((folder / "colour.webp", colour))
        return [
            (path, [Sample(array[None] if array.ndim == 2 else array.transpose(2, 0, 1), str(path))])
            for path, array in out
        ]


def _is_frame(file: File) -> bool:
    return file.name.lower().endswith(SUFFIXES) or ("." not in file.name and _format(file.head(32)) is not None)


def _pages(file: File) -> int:
    """The pages of a TIFF; 1 of anything else."""
    if not file.name.lower().endswith((".tif", ".tiff")):
        return 1
    try:
        with file.open() as stream:
            picture = _PLUGINS["TIFF"](stream)
            return int(getattr(picture, "n_frames", 1))
    except Exception:  # a hostile file makes Pillow raise nearly anything; reading says what is wrong
        return 1


def _read(file: File, axes: str | None = None, clips: bool = False, least: tuple[int, int] = (0, 0)) -> np.ndarray:
    data = file.read(MAX_BYTES)
    kind = _format(data[:32])
    if kind is None:
        raise ReadError(file, "is not a picture: its content is none of png, jpg, bmp, gif, webp, tiff, ppm")
    if kind == "JPEG":
        return _read_jpeg(file, data, least)
    if kind == "TIFF":
        return _read_tiff(file, data, axes)
    return _read_other(file, io.BytesIO(data), kind, clips=clips)


def _read_tiff(file: File, data: bytes, axes: str | None) -> np.ndarray:
    """By Pillow where that loses nothing."""
    try:
        ordinary = is_ordinary(TiffImagePlugin.TiffImageFile(io.BytesIO(data)))
    except Exception:  # a mode that Pillow does not know, or a broken header: told apart below
        ordinary = False
    return _read_other(file, io.BytesIO(data), "TIFF") if ordinary else read_tiff(file, data, axes)


# ---- JPEG


def _read_jpeg(file: File, data: bytes, least: tuple[int, int]) -> np.ndarray:
    """At a half or less of its size where that leaves `least` (height, width), as it will be turned."""
    _, _, channels, plain = _jpeg_header(file, data)
    orientation = _jpeg_orientation(data)
    height, width = least if orientation < 5 else least[::-1]
    factor = 2 if height else 1
    if plain:
        try:
            array = simplejpeg.decode_jpeg(
                data, "GRAY" if channels == 1 else "RGB", min_height=height, min_width=width, min_factor=factor
            )
            return turned(array.transpose(2, 0, 1), orientation)
        except ValueError as error:
            if "remature end" in str(error):
                raise ReadError(file, "is cut short: its JPEG data end early") from None
            # simplejpeg refuses stray bytes and the like, which every viewer passes over: Pillow decides
    return _read_other(file, io.BytesIO(data), "JPEG", orientation)


def _jpeg_header(file: File, data: bytes) -> tuple[int, int, int, bool]:
    """Height, width and channels as decoded, and whether simplejpeg is for it."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # KeyError: a subsampling it has no name for
        # 12-bit, lossless and the like, or damaged: Pillow knows
        picture = _open(file, io.BytesIO(data), "JPEG")
        return picture.height, picture.width, 1 if picture.mode == "L" else 3, False
    _check_size(file, width, height)
    return height, width, 1 if colours == "Gray" else 3, colours in ("Gray", "YCbCr", "RGB")


def _jpeg_orientation(data: bytes) -> int:
    """EXIF orientation 1 to 8 of a JPEG; 1 when it has none that makes sense."""
    position = 2
    # from segment to segment, so that a thumbnail's or a comment's EXIF does not count
    while data[position : position + 1] == b"\xff" and position + 4 < len(data):
        marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            return _exif_orientation(data[position + 10 : position + 2 + size])
        if marker == 0xDA or size < 2:
            return 1
        position += 2 + size
    return 1


def _exif_orientation(exif: bytes) -> int:
    """Orientation from the first directory of an EXIF block (a TIFF header and what follows it)."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", exif, 4)
    try:
        (count,) = struct.unpack_from(order + "H", exif, start)
        for i in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * i)
            if tag == ORIENTATION:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:  # points outside of the block
        pass
    return 1


# ---- everything else

_PLUGINS: dict[str, Callable[[Any], Image.Image]] = {
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
_GRAY, _COLOUR = (1, "uint8"), (3, "uint8")
_MODES = {"1": _GRAY, "L": _GRAY, "LA": _GRAY, "I;16": (1, "uint16")}
_MODES |= {"RGB": _COLOUR, "RGBA": _COLOUR, "RGBX": _COLOUR}
"""Channels and type of the modes that tell them before decoding."""


def _open(file: File, stream: Any, kind: str) -> Image.Image:
    """The picture with its header read, and its size within bounds; pixels are not decoded yet."""
    try:
        # the plugin itself: Image.open would warn or raise at Pillow's own, global, bound of pixels
        picture = _PLUGINS[kind](stream)
    except ReadError:
        raise
    except Exception as error:  # a hostile file makes Pillow raise nearly anything
        raise ReadError(file, _broken(kind, error)) from None
    _check_size(file, *picture.size)
    return picture


def _check_size(file: File, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ReadError(
            file, f"declares {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are decoded (decompression bomb?)"
        )
    if width < 1 or height < 1:
        raise ReadError(file, f"declares {width:,} x {height:,} pixels")


def _broken(kind: str, error: Exception) -> str:
    name = {"PPM": "ppm/pgm"}.get(kind, kind.lower())
    return f"is a broken {name} picture ({str(error).strip() or type(error).__name__})"


def _read_other(
    file: File, stream: io.BytesIO, kind: str, orientation: int | None = None, clips: bool = False
) -> np.ndarray:
    picture = _open(file, stream, kind)
    try:
        if clips:
            return read_animation(file, picture, _array)
        picture.load()
        # after loading: TIFF has then turned itself, and says so by having no orientation left
        orientation = _orientation(picture) if orientation is None else orientation
        array = _array(picture)
    except ReadError:
        raise
    except Exception as error:  # as above
        raise ReadError(file, _broken(kind, error)) from None
    if array is None:
        raise ReadError(file, f"has the colour mode {picture.mode}, which is not read; save it as RGB or gray")
    if array.dtype.kind == "f" and (bad := array.size - np.count_nonzero(np.isfinite(array))):
        raise ReadError(file, f"{bad:,} of {array.size:,} values {'is' if bad == 1 else 'are'} NaN or infinite")
    return turned(array, orientation)


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF is no reason to lose the picture
        return 1
    return value if value in range(1, 9) else 1


def _array(picture: Image.Image) -> np.ndarray | None:
    """(C, H, W), or None for a mode that is not read."""
    mode = picture.mode
    if mode in ("P", "PA"):
        palette = np.array(picture.getpalette("RGB") or [0], np.uint8)
        gray = bool((palette.reshape(-1, 3) == palette[::3, None]).all()) if len(palette) >= 3 else True
        array = _on_white(picture.convert("RGBA"))
        return array[:1] if gray else array
    if mode in ("La", "RGBa"):  # premultiplied
        picture = picture.convert(mode.upper())
    if "transparency" in picture.info and picture.mode in ("1", "L", "RGB"):  # one colour is declared transparent
        picture = picture.convert("RGBA" if mode == "RGB" else "LA")
    if picture.mode in ("LA", "RGBA"):
        return _on_white(picture)
    if mode == "1":
        return np.array(picture.convert("L"))[None]
    if mode in ("RGBX", "CMYK", "YCbCr", "HSV"):
        picture = picture.convert("RGB")
    if picture.mode == "RGB":
        return np.array(picture).transpose(2, 0, 1)
    if mode == "L":
        return np.array(picture)[None]
    if mode.startswith("I;16"):
        return np.array(picture).astype(np.uint16, copy=False)[None]
    if mode == "I":  # 32 bits, though most often 16 are used
        array = np.array(picture)[None]
        return array.astype(np.uint16 if array.min() >= 0 and array.max() <= 0xFFFF else np.float32)
    return np.array(picture, np.float32)[None] if mode == "F" else None


def _on_white(picture: Image.Image) -> np.ndarray:
    """(C, H, W) of a picture with alpha, laid on white."""
    array = np.array(picture).transpose(2, 0, 1)
    colour, alpha = array[:-1], array[-1:]
    if alpha.min() == 255:
        return colour
    mixed = colour * alpha.astype(np.uint16) + 255 * (255 - alpha.astype(np.uint16))
    return ((mixed + 127) // 255).astype(np.uint8)
