"""A bank of nasty files: broken, hostile and merely unusual ones, each with what reading it must give.

`build(folder)` writes them and says for every item of every file either its array or words of its `ReadError`.
`folders(folder)` writes data sets that are nasty as a whole. Shared by the readers' tests and the command line's.
Long because it is a list: one entry a file.
"""

import gzip
import io
import os
import pickle
import struct
import tarfile
import wave
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import soundfile
import tifffile
from PIL import Image, ImageOps
from pyarrow import parquet

from gridsight.core.errors import ReadError
from gridsight.data.files import File
from gridsight.data.readers import READERS, Reader, find_reader
from gridsight.data.sample import Sample


@dataclass(frozen=True)
class Nasty:
    """A file (`member`: of the zip at `path`), what is nasty about it, and what each of its items must be.

    `expected` has one entry an item: its array, or lower-case words of its error (a file that is bad as a whole has one
    error). `many`: read as a file with many items, as opposed to one item of a class folder.
    """

    path: Path
    what: str
    expected: list[np.ndarray | str]
    member: str | None = None
    many: bool = False

    @property
    def file(self) -> File:
        """What a reader takes."""
        return File(self.path, self.member)

    @property
    def good(self) -> bool:
        """Whether every item can be read."""
        return not any(isinstance(item, str) for item in self.expected)


class Ran:
    """Unpickling this leaves a mark: the proof that something was executed."""

    mark = Path("/nonexistent")

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return open, (str(Ran.mark), "w")


def reader_of(file: File) -> Reader:
    """The reader by content (of a folder: of its first file), else by suffix; a `ReadError` when neither says it."""
    found = find_reader(next(iter(file.inside()), file))
    if found is not None:
        return found[1]
    for entry in READERS.entries():
        if file.name.lower().endswith(tuple(entry.tags["suffixes"])):
            return entry.item()
    raise ReadError(file, "is of no known format")


def outcome(nasty: Nasty) -> list[Sample | ReadError]:
    """What reading gives, item by item; an error of the whole file comes last."""
    out: list[Sample | ReadError] = []
    try:
        reader = reader_of(nasty.file)
        if nasty.many:
            out.extend(reader.read(nasty.file))
        else:
            out.append(reader.read_single(nasty.file))
    except ReadError as error:
        out.append(error)
    return out


def build(folder: Path) -> list[Nasty]:
    """Write the bank below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    Ran.mark = folder / "EXECUTED"
    parts = []
    for make in (
        _pictures,
        _odd_files,
        _archives,
        _arrays,
        _sounds,
        _idx,
        _cifar,
        _series,
        _nifti,
        _dicom,
        _tars,
        _tiffs,
        _tables,
    ):
        place = folder / make.__name__.strip("_")
        place.mkdir()
        parts.append(make(place))
    return [nasty for part in parts for nasty in part]


def picture(height: int = 16, width: int = 24) -> np.ndarray:
    """(H, W, 3) without any symmetry, smooth enough for JPEG."""
    y, x = np.mgrid[:height, :width]
    planes = (255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), 120 * (x / width < 0.3) + 60 * (y < 3))
    return np.stack(planes, -1).astype(np.uint8)


def first(array: np.ndarray) -> np.ndarray:
    """(C, H, W) of an (H, W) or (H, W, C) picture."""
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of a picture file."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def decoded(data: bytes, mode: str = "RGB") -> np.ndarray:
    """(C, H, W) as Pillow reads it."""
    return first(np.asarray(Image.open(io.BytesIO(data)).convert(mode)))


def with_size(png: bytes, width: int, height: int) -> bytes:
    """A PNG that declares another size, its checksum right."""
    header = png[12:16] + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# ---- pictures


def _pictures(folder: Path) -> list[Nasty]:
    out: list[Nasty] = []

    def add(name: str, data: bytes, what: str, expected: np.ndarray | str) -> None:
        (folder / name).write_bytes(data)
        out.append(Nasty(folder / name, what, [expected]))

    rgb = picture()
    image = Image.fromarray(rgb)
    gray = rgb[..., 0]
    jpeg, png = encoded(image, "JPEG", quality=90), encoded(image, "PNG")

    add("half.jpg", jpeg[: len(jpeg) // 2], "a JPEG cut in half", "jp")
    add("almost.jpg", jpeg[:-3], "a JPEG without its last bytes", "cut short")
    add("half.png", png[: len(png) // 2], "a PNG cut in half", "broken png")
    add("header.png", png[:20], "a PNG cut within its header", "broken png")
    for kind in ("GIF", "BMP", "TIFF", "WEBP"):
        data = encoded(image, kind)
        add(f"half.{kind.lower()}", data[: len(data) // 2], f"a {kind} cut in half", f"broken {kind.lower()}")
    add("zero.jpg", b"", "a JPEG of 0 bytes", "empty (0 bytes)")
    add("zeros.png", bytes(500), "500 zero bytes called .png", "not a picture")
    add("text.png", b"<html>404 Not Found</html>", "a web page called .png", "not a picture")
    add("really-png.jpg", png, "a PNG called .jpg", first(rgb))
    add("really-jpeg.PNG", jpeg, "a JPEG called .PNG", decoded(jpeg))

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(image, "JPEG", quality=90, exif=exif)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        add(f"exif{orientation}.jpg", data, f"EXIF orientation {orientation}", first(upright))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = first(np.rot90(rgb, -1))
    add("exif6.png", encoded(image, "PNG", exif=exif), "a PNG with EXIF orientation 6", turned)
    add("exif6.webp", encoded(image, "WEBP", exif=exif, lossless=True), "a WebP with EXIF orientation 6", turned)
    add("exif6.tif", encoded(image, "TIFF", tiffinfo={0x0112: 6}), "a TIFF with orientation 6", turned)
    cmyk6 = encoded(image.convert("CMYK"), "JPEG", exif=exif)
    add("exif6cmyk.jpg", cmyk6, "CMYK and EXIF at once", np.rot90(decoded(cmyk6), -1, (1, 2)))
    for name, block in {
        "loop": b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 40,
        "outside": b"MM\0*\xff\xff\xff\xff",
        "short": b"II",
        "nine": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
    }.items():
        app1 = b"Exif\0\0" + block
        data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + jpeg[2:]
        add(f"exif-{name}.jpg", data, f"EXIF that makes no sense ({name})", decoded(jpeg))
    comment = b"\xff\xfe" + struct.pack(">H", 8 + 6) + b"Exif\0\0MM\0*\0\0"
    add("exif-comment.jpg", jpeg[:2] + comment + jpeg[2:], "a comment that looks like EXIF", decoded(jpeg))

    cmyk = encoded(image.convert("CMYK"), "JPEG", quality=95)
    add("cmyk.jpg", cmyk, "a CMYK JPEG", decoded(cmyk))
    add(
        "cmyk.tif",
        encoded(image.convert("CMYK"), "TIFF"),
        "a CMYK TIFF",
        decoded(encoded(image.convert("CMYK"), "TIFF")),
    )
    one = encoded(Image.fromarray(gray), "JPEG", quality=90)
    add("gray.jpg", one, "a gray JPEG", decoded(one, "L"))
    wavy = encoded(image, "JPEG", progressive=True)
    add("progressive.jpg", wavy, "a progressive JPEG", decoded(wavy))
    stray = jpeg[:-2] + b"\0\0\0" + jpeg[-2:]
    add("stray.jpg", stray, "a JPEG with stray bytes, which viewers pass over", decoded(stray))
    add("trailing.jpg", jpeg + b"appended by a camera" * 9, "a JPEG with bytes after its end", decoded(jpeg))
    palette = image.quantize(16)
    add("palette.png", encoded(palette, "PNG"), "a palette PNG", first(np.asarray(palette.convert("RGB"))))
    add("gray.gif", encoded(Image.fromarray(gray), "GIF"), "a GIF whose palette is all gray", gray[None])
    glass = np.dstack([rgb, np.where(gray < 99, 0, 255).astype(np.uint8)])
    white = np.where(gray[..., None] < 99, np.uint8(255), rgb)
    add("rgba.png", encoded(Image.fromarray(glass), "PNG"), "RGBA, in part transparent", first(white))
    half = np.dstack([gray, np.full_like(gray, 51)])  # a fifth of it, four fifths of white
    add(
        "la.png",
        encoded(Image.fromarray(half), "PNG"),
        "gray with alpha",
        np.rint(gray / 5 + 204).astype(np.uint8)[None],
    )
    keyed = np.where(gray[..., None] < 99, np.uint8(7), rgb).astype(np.uint8)
    add(
        "key.png",
        encoded(Image.fromarray(keyed), "PNG", transparency=(7, 7, 7)),
        "one colour declared transparent",
        first(np.where(gray[..., None] < 99, np.uint8(255), keyed)),
    )
    bits = gray > 99
    add("bits.png", encoded(Image.fromarray(bits), "PNG"), "one bit a pixel", (bits[None] * 255).astype(np.uint8))
    add("bits.pbm", encoded(Image.fromarray(bits), "PPM"), "a bitmap", (bits[None] * 255).astype(np.uint8))
    deep = (gray.astype(np.uint16) * 257) ^ 0x55
    add("deep.png", encoded(Image.fromarray(deep), "PNG"), "16-bit gray PNG", deep[None])
    add("deep.tif", encoded(Image.fromarray(deep), "TIFF"), "16-bit gray TIFF", deep[None])
    big = b"P5 24 16 65535\n" + deep.astype(">u2").tobytes()
    add("deep.pgm", big, "16-bit PGM", deep[None])
    real = gray.astype(np.float32) / 7
    add("float.tif", encoded(Image.fromarray(real), "TIFF"), "a float TIFF", real[None])
    real = real.copy()
    real[3, 4] = np.nan
    add("nan.tif", encoded(Image.fromarray(real), "TIFF"), "a float TIFF with a NaN", "1 of 384 values is nan")
    pages = encoded(image, "TIFF", save_all=True, append_images=[image, image])
    add("pages.tif", pages, "a TIFF of three pages", np.stack([first(rgb)] * 3, 1))
    other = Image.fromarray(255 - rgb)
    frames = {"save_all": True, "append_images": [other.quantize(8)], "duration": 50}
    still = image.quantize(8)
    add("moving.gif", encoded(still, "GIF", **frames), "an animated GIF", first(np.asarray(still.convert("RGB"))))
    frames = {"save_all": True, "append_images": [other], "lossless": True}
    add("moving.webp", encoded(image, "WEBP", **frames), "an animated WebP", first(rgb))

    add("1x1.png", encoded(image.crop((0, 0, 1, 1)), "PNG"), "1x1 pixel", first(rgb[:1, :1]))
    dot = encoded(image.crop((0, 0, 1, 1)), "JPEG")
    add("1x1.jpg", dot, "1x1 JPEG", decoded(dot))
    wide = picture(20, 20_000)
    add("wide.png", encoded(Image.fromarray(wide), "PNG"), "20,000 x 20 pixels", first(wide))
    long = encoded(Image.fromarray(picture(20_000, 20)), "JPEG")
    add("long.jpg", long, "20 x 20,000 pixels", decoded(long))
    flat = np.full((30, 30, 3), 77, np.uint8)
    add("constant.png", encoded(Image.fromarray(flat), "PNG"), "one colour only", first(flat))

    add("bomb.png", with_size(png, 60_000, 60_000), "a PNG that declares 3.6 billion pixels", "60,000 x 60,000 pixels")
    add("huge.png", with_size(png, 2**31 - 1, 2**31 - 1), "a PNG that declares 2^62 pixels", "pixels")
    add("lie.png", with_size(png, 240, 160), "a PNG that declares more than it holds", "broken png")
    add("none.png", with_size(png, 0, 16), "a PNG without width", "p")
    frame = jpeg.index(b"\xff\xc0")
    large = jpeg[: frame + 5] + struct.pack(">HH", 65_000, 65_000) + jpeg[frame + 9 :]
    add("bomb.jpg", large, "a JPEG that declares 4.2 billion pixels", "65,000 x 65,000 pixels")
    still = encoded(image.quantize(8), "GIF")
    add("bomb.gif", still[:6] + b"\xff\xff\xff\xff" + still[10:], "a GIF of 65,535 squared", "65,535 x 65,535 pixels")
    add("bomb.pgm", b"P5 99999999 99999999 255\n" + bytes(99), "a PGM of 10^16 pixels", "pixels")
    add("damaged.png", png[:60] + bytes([png[60] ^ 255]) + png[61:], "a PNG with a flipped byte", "broken png")
    words = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20), 9))
    add("text-bomb.png", png[:33] + words + png[33:], "80 MB of packed text in a PNG", "broken png")
    profile = _chunk(b"iCCP", b"a\0\0" + zlib.compress(b"not a profile"))
    add("profile.png", png[:33] + profile + png[33:], "a colour profile that is none", first(rgb))
    return out


def _odd_files(folder: Path) -> list[Nasty]:
    """What the file system can do to a picture."""
    rgb = picture()
    png = encoded(Image.fromarray(rgb), "PNG")
    out = []
    for name in (
        "with a space.png",
        "  spaces .png",
        "Фото №1.png",
        "写真.png",
        "e\u0301.png",
        "a\nb.png",
        "-x.png",
        "[a]*.png",
    ):
        (folder / name).write_bytes(png)
        out.append(Nasty(folder / name, f"the name {name!r}", [first(rgb)]))
    strange = Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png"))  # no text at all
    strange.write_bytes(png)
    out.append(Nasty(strange, "a name that is not UTF-8", [first(rgb)]))
    (folder / "folder.png").mkdir()
    out.append(Nasty(folder / "folder.png", "a folder called .png", ["is a directory"]))
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    out.append(Nasty(folder / "dangling.png", "a link to nothing (unreadable)", ["no such file"]))
    (folder / "loop.png").symlink_to(folder / "loop.png")
    out.append(Nasty(folder / "loop.png", "a link to itself", ["too many levels"]))
    out.append(Nasty(folder / "vanished.png", "a file that was there a moment ago", ["no such file"]))
    out.append(Nasty(folder / ("x" * 300 + ".png"), "a name that is too long", ["file name too long"]))
    os.mkfifo(folder / "pipe.png")
    out.append(Nasty(folder / "pipe.png", "a named pipe, which would wait for ever", ["no regular file"]))
    return out


def _archives(folder: Path) -> list[Nasty]:
    rgb = picture()
    png = encoded(Image.fromarray(rgb), "PNG")
    path = folder / "nasty.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fine.png", png)
        archive.writestr("дом/with a space.png", png)
        archive.writestr("../../escape.png", png)
        archive.writestr("/absolute.png", png)
        archive.writestr("c:\\windows.png", png)
        archive.writestr("bomb.png", bytes(40 << 20))
        archive.writestr("zero.png", b"")
        archive.writestr("secret.png", png)
        archive.writestr("damaged.png", png)
        archive.writestr("small.png", png * 2)
        archive.writestr("odd.png", png)
        archive.writestr("bzip2.png", png, zipfile.ZIP_BZIP2)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    directory = {}
    at = data.index(b"PK\x01\x02")
    for name in entries:
        directory[name] = at
        at += 46 + sum(struct.unpack_from("<HHH", data, at + 28))
    local = {name: info.header_offset for name, info in entries.items()}
    for at in (directory["secret.png"] + 8, local["secret.png"] + 6):
        data[at] |= 1  # the flag of an encrypted member
    body = local["damaged.png"] + 30 + len("damaged.png")
    data[body + 30] ^= 255
    struct.pack_into("<I", data, directory["small.png"] + 24, 10)  # unpacks to more than it declares
    struct.pack_into("<H", data, directory["odd.png"] + 10, 97)  # a compression that nobody knows
    path.write_bytes(data)
    expected: dict[str, tuple[str, np.ndarray | str]] = {
        "fine.png": ("a picture among nasty ones", first(rgb)),
        "дом/with a space.png": ("a member with an unusual name", first(rgb)),
        "bzip2.png": ("a member packed with bzip2", first(rgb)),
        "../../escape.png": ("a path that leaves the archive", "path traversal"),
        "/absolute.png": ("an absolute path", "path traversal"),
        "c:\\windows.png": ("a path with a drive", "path traversal"),
        "bomb.png": ("40 MB of zeros (zip bomb)", "times its packed size"),
        "zero.png": ("a member of 0 bytes", "empty (0 bytes)"),
        "secret.png": ("an encrypted member", "encrypted"),
        "damaged.png": ("a member with a flipped byte", ""),
        "small.png": ("a member that unpacks to more than it declares", ""),
        "odd.png": ("a member packed in an unknown way", "compression"),
        "missing.png": ("a member that is not there", "missing.png"),
    }
    # zipfile turns a backslash into a slash when it reads names
    out = [Nasty(path, what, [wanted], name.replace(os.sep, "/")) for name, (what, wanted) in expected.items()]
    name = folder / "name.zip"
    with zipfile.ZipFile(name, "w") as archive:
        archive.writestr("süß.png", png)
    name.write_bytes(name.read_bytes().replace("süß".encode(), b"s\xff\xff\xff\xff"))
    out.append(Nasty(name, "a zip with a name that is not UTF-8", ["decode"], "x.png"))
    cut = folder / "cut.zip"
    cut.write_bytes(path.read_bytes()[:2000])
    out.append(Nasty(cut, "a zip cut short", ["zip"], "fine.png"))
    return out


# ---- arrays


def npy(header: str, data: bytes = b"") -> bytes:
    """An .npy file with any header."""
    text = header.encode().ljust(-(-(len(header) + 11) // 64) * 64 - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def _arrays(folder: Path) -> list[Nasty]:
    out: list[Nasty] = []
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 6, 7), dtype=np.uint8)
    items = [image[None] for image in images]

    def add(name: str, what: str, expected: list[Any], many: bool = True) -> None:
        out.append(Nasty(folder / name, what, expected, many=many))

    def stack(name: str, array: np.ndarray, what: str, expected: list[Any]) -> None:
        np.save(folder / name, array, allow_pickle=True)
        add(name, what, expected)

    def raw(name: str, data: bytes, what: str, expected: str) -> None:
        (folder / name).write_bytes(data)
        add(name, what, [expected])

    holes = rng.normal(size=(3, 1, 50)).astype(np.float32)
    holes[1, 0, 3:5] = np.nan, np.inf
    stack("nan.npy", holes, "NaN in one of three rows", [holes[0], "2 of 50 values are nan or infinite", holes[2]])
    large = np.array([[[1.0] * 9], [[1e300] * 9]])
    stack("large.npy", large, "values beyond float32", [large[0].astype(np.float32), "9 of 9 values"])
    flat = np.zeros((2, 5, 5), np.float32)
    stack("constant.npy", flat, "constant arrays", [flat[:1], flat[1:]])
    stack("wide.npy", images.astype(">i8"), "64-bit integers, all within 0 to 255", items)
    stack("bool.npy", images > 99, "booleans", [(item > 99).astype(np.uint8) for item in items])
    stack(
        "negative.npy",
        images.astype(np.int64) - 300,
        "64-bit integers",
        [item.astype(np.float32) - 300 for item in items],
    )
    stack("fortran.npy", np.asfortranarray(images), "Fortran order", items)
    stack("half.npy", images.astype(np.float16), "float16", [item.astype(np.float32) for item in items])
    stack("object.npy", np.array([Ran(), None]), "Python objects in an .npy", ["python objects"])
    stack("complex.npy", images * 1j, "complex numbers", ["complex"])
    stack("struct.npy", np.zeros(3, [("a", "f4"), ("b", "i4")]), "records", ["numbers are wanted"])
    stack("text.npy", np.array(["a", "b"]), "text instead of numbers", ["numbers are wanted"])
    stack("date.npy", np.zeros((3, 9), "M8[s]"), "dates instead of numbers", ["numbers are wanted"])
    stack("none.npy", np.zeros((0, 28, 28)), "no items at all", ["empty"])
    stack("void.npy", np.zeros((3, 0)), "items without values", ["empty"])
    stack("scalar.npy", np.float32(3), "a single number", ["single number"])
    stack("numbers.npy", np.arange(9), "items that are single numbers", ["single number"])
    stack("axes.npy", np.zeros((2,) * 6, np.uint8), "six axes", ["5 axes"])

    raw("pickle.npy", pickle.dumps(Ran()), "a pickle called .npy", "pickle")
    raw("pickle.npz", pickle.dumps(Ran()), "a pickle called .npz", "not a readable .npz")
    raw("zero.npy", b"", "an .npy of 0 bytes", "")
    raw("zero.npz", b"", "an .npz of 0 bytes", "empty (0 bytes)")
    raw("text.npz", b"no array", "text called .npz", "not a readable .npz")
    whole = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 6, 7), }", images.tobytes())
    raw("cut.npy", whole[:-9], "an .npy cut short", "cut short")
    raw("head.npy", whole[:40], "an .npy cut within its header", "header")
    raw("longer.npy", whole + b"more", "an .npy with more than it declares", "longer than it says")
    for name, what, header, words in (
        (
            "huge",
            "2^63 items",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775807, 6, 7)}",
            "short",
        ),
        ("many", "10^60 items", f"{{'descr': '<f8', 'fortran_order': True, 'shape': (1{'0' * 60},)}}", "short"),
        (
            "minus",
            "a negative shape",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -6, 7)}",
            "impossible shape",
        ),
        ("code", "a header that is a program", "__import__('os').system('touch EXECUTED')", "makes no sense"),
        ("deep", "a header of 9,000 brackets", "[" * 9000, "makes no sense"),
        ("keys", "a header without shape", "{'descr': '|u1', 'fortran_order': False}", "makes no sense"),
        ("type", "an unknown type", "{'descr': 'zz9', 'fortran_order': False, 'shape': (4,)}", "makes no sense"),
        ("empty", "items of 0 bytes", "{'descr': '<U0', 'fortran_order': False, 'shape': (4, 6)}", "longer"),
    ):
        raw(f"lie-{name}.npy", npy(header, images.tobytes()), f"an .npy header with {what}", words)
    raw("lie-length.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(99), "an .npy header of 2 GB", "header of")
    raw("version.npy", b"\x93NUMPY\x09\x00" + whole[8:], "an .npy of version 9", "version")
    old = "{'descr': '|u1', 'fortran_order': False, 'shape': (4L, 6L, 7L), }"
    (folder / "python2.npy").write_bytes(npy(old, images.tobytes()))
    add("python2.npy", "an .npy written by Python 2", list(items))

    def together(name: str, what: str, expected: list[Any], **arrays: Any) -> None:
        np.savez_compressed(folder / name, allow_pickle=True, **arrays)
        add(name, what, expected)

    together("object.npz", "Python objects in an .npz", ["python objects"], x=np.array([Ran(), 1], object), y=[0, 1])
    together("objects.npz", "names saved as Python objects", ["astype(str)"], x=images, y=np.array([*"abcd"], object))
    together("labels.npz", "three labels for four items", ["3 labels for 4 items"], x=images, y=[0, 1, 2])
    together("onehot.npz", "one-hot labels", list(items), x=images, y=np.eye(4))
    together("soft.npz", "shares of classes", ["other values than 0 and 1"], x=images, y=np.full((4, 4), 0.25))
    together("cubes.npz", "labels of three axes", ["labels have shape (4, 2, 2)"], x=images, y=np.zeros((4, 2, 2)))
    together("regress.npz", "labels that are no whole numbers", list(items), x=images, y=[0.5, 1, 2, 3])
    together("endless.npz", "an infinite number", ["labels are infinite"], x=images, y=[0.5, 1, 2, np.inf])
    sets = np.array([[1, 1], [0, 0], [1, 0], [0, 1]])
    together("sets.npz", "sets of classes", list(items), x=images, y=sets, classes=["cat", "dog"])
    together("names3.npz", "three names for two classes", ["2 columns and 3"], x=images, y=sets, classes=[*"abc"])
    together("parted.npz", "a name with a ;", ["has a ; in its name"], x=images, y=sets, classes=["a;b", "c"])
    together(
        "nolabel.npz", "a label that is NaN", [items[0], "label is missing", *items[2:]], x=images, y=[0, np.nan, 1, 2]
    )
    together("names.npz", "arrays with names that say nothing", ["its arrays are called"], a=images, b=images)
    together("alone.npz", "one array of any name", list(items), ecg=images)
    together(
        "keys.npz",
        "data beside images (scikit-learn's digits)",
        list(items),
        data=images[:, 0],
        images=images,
        target=[0, 1, 2, 3],
    )
    path = folder / "cut.npz"
    path.write_bytes((folder / "alone.npz").read_bytes()[:-40])
    add("cut.npz", "an .npz cut short", ["not a readable .npz"])
    with zipfile.ZipFile(folder / "lie.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "x.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000, 6, 7)}", images.tobytes())
        )
    add("lie.npz", "an .npz whose array declares 168 GB", ["cut short"])
    with zipfile.ZipFile(folder / "secret.npz", "w") as archive:
        archive.writestr("x.npy", whole)
    data = bytearray((folder / "secret.npz").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    (folder / "secret.npz").write_bytes(data)
    add("secret.npz", "an encrypted .npz", ["encrypted"])
    with zipfile.ZipFile(folder / "damaged.npz", "w") as archive:
        archive.writestr("x.npy", whole)
    data = bytearray((folder / "damaged.npz").read_bytes())
    data[300 if len(data) > 300 else 200] ^= 255
    (folder / "damaged.npz").write_bytes(data)
    add("damaged.npz", "an .npz with a flipped byte", ["damaged"])

    np.save(folder / "x_beside.npy", images)
    np.save(folder / "y_beside.npy", np.arange(5))
    add("x_beside.npy", "five labels beside four items", ["5 labels for 4 items"])
    add("y_beside.npy", "the file of the labels", ["holds the labels of x_beside.npy"])
    np.save(folder / "one.npy", images[0])
    add("one.npy", "one picture a file, of a class folder", [items[0]], many=False)
    np.save(folder / "one-nan.npy", holes[1])
    add("one-nan.npy", "one series a file, with NaN", ["2 of 50 values"], many=False)
    return out


# ---- sounds


def wav(
    data: bytes, *, channels: int = 1, rate: int = 8000, bits: int = 16, size: int | None = None, code: int = 1
) -> bytes:
    """A wav file; `size` is what its data chunk declares."""
    width = bits // 8
    head = struct.pack("<HHIIHH", code, channels, rate, rate * channels * width, channels * width, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data) if size is None else size)
    return b"RIFF" + struct.pack("<I", len(body) + len(data)) + body + data


def _sounds(folder: Path) -> list[Nasty]:
    out: list[Nasty] = []

    def add(name: str, data: bytes, what: str, expected: np.ndarray | str) -> None:
        (folder / name).write_bytes(data)
        out.append(Nasty(folder / name, what, [expected]))

    steps = np.random.default_rng(0).integers(-(2**15), 2**15, 900).astype("<i2")
    sound = (steps / 2.0**15).astype(np.float32)
    whole = wav(steps.tobytes())
    add("fine.wav", whole, "a wav among nasty ones", sound[None])
    add("three.wav", wav(steps.tobytes(), channels=3), "a wav of 3 channels", sound.reshape(-1, 3).T)
    with wave.open(str(folder / "none.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
    out.append(Nasty(folder / "none.wav", "a wav of 0 samples", ["no samples"]))
    add("cut.wav", whole[:1000], "a wav cut short", "cut short")
    add("head.wav", whole[:30], "a wav cut within its header", "sound")
    add("lie.wav", wav(steps.tobytes(), size=2**31 - 8), "a wav that declares 2 GB", "cut short")
    add("stream.wav", wav(steps.tobytes(), size=0xFFFFFFFF), "a wav of unknown length (streamed)", sound[None])
    add("rate.wav", wav(steps.tobytes(), rate=0), "a wav with a rate of 0", "broken or cut sound")
    add("channels.wav", wav(steps.tobytes(), channels=30_000), "a wav of 30,000 channels", "sound")
    add("code.wav", wav(steps.tobytes(), code=0x9999), "a wav in an unknown coding", "broken or cut sound")
    real = sound.copy()
    real[5:8] = np.nan, np.inf, -np.inf
    add("nan.wav", wav(real.tobytes(), bits=32, code=3), "a float wav with NaN", "3 of 900 values")
    loud = sound * 3
    add("loud.wav", wav(loud.tobytes(), bits=32, code=3), "a float wav beyond 1", loud[None])
    add("8bit.wav", wav(bytes(range(256)), bits=8), "8 bits", ((np.arange(256) - 128) / 128).astype(np.float32)[None])
    quiet = np.zeros(900, "<i2")
    add("silence.wav", wav(quiet.tobytes()), "silence", np.zeros((1, 900), np.float32))
    add("one.wav", wav(steps[:1].tobytes()), "1 sample", sound[None, :1])
    add("zero.wav", b"", "a wav of 0 bytes", "")
    add("text.wav", b"this is no sound", "text called .wav", "not a sound")
    soundfile.write(folder / "whole.flac", steps, 8000, format="FLAC")
    flac = (folder / "whole.flac").read_bytes()
    out.append(Nasty(folder / "whole.flac", "a flac", [sound[None]]))
    add("cut.flac", flac[: len(flac) // 2], "a flac cut short", "broken or cut sound")
    lying = bytearray(flac)
    lying[21:26] = bytes([lying[21] | 15, 255, 255, 255, 255])  # 2^36 samples
    add("lie.flac", bytes(lying), "a flac that declares 69 billion samples", "broken or cut sound")
    add("head.flac", flac[:42], "a flac without frames", "broken or cut sound")
    soundfile.write(folder / "whole.ogg", steps, 8000, format="OGG", subtype="VORBIS")
    ogg = (folder / "whole.ogg").read_bytes()
    add("cut.ogg", ogg[:-200], "an ogg cut short", "cut short")
    add("really-flac.wav", flac, "a flac called .wav", sound[None])
    return out


# ---- IDX, CIFAR, series


def idx(data: np.ndarray, shape: tuple[int, ...] | None = None, code: int = 8) -> bytes:
    """An IDX file of any declared shape and type."""
    shape = data.shape if shape is None else shape
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data.tobytes()


def _idx(folder: Path) -> list[Nasty]:
    out: list[Nasty] = []
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 7), dtype=np.uint8)
    items = [image[None] for image in images]

    def add(name: str, data: bytes, what: str, expected: list[Any], labels: np.ndarray | None = None) -> None:
        (folder / f"{name}-images-idx3-ubyte").write_bytes(data)
        if labels is not None:
            (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
        out.append(Nasty(folder / f"{name}-images-idx3-ubyte", what, expected, many=True))

    four = np.arange(4, dtype=np.uint8)
    add("fine", idx(images), "an IDX among nasty ones", list(items), four)
    add("packed", gzip.compress(idx(images)), "gzipped without the suffix", list(items), four)
    add("labels", idx(images), "five labels for four items", ["5 labels for 4 items"], np.arange(5, dtype=np.uint8))
    add("huge", idx(images, (2**32 - 1,) * 3), "an IDX that declares 2^96 bytes", ["cut short"])
    add("cut", idx(images)[:-9], "an IDX cut short", ["cut short"])
    add("longer", idx(images) + b"more", "an IDX with more than it declares", ["longer than it says"])
    add("type", idx(images, code=7), "an IDX of unknown type", ["first four bytes"])
    add("axes", idx(images[None, None, None, None], (1, 1, 1, 4, 6, 7)), "an IDX of six axes", ["first four bytes"])
    add("none", idx(images[:0], (0, 6, 7)), "an IDX without items", ["empty"])
    add("zero", b"", "an IDX of 0 bytes", ["empty (0 bytes)"])
    packed = gzip.compress(idx(images))
    add("gzcut", packed[: len(packed) // 2], "a gzipped IDX cut short", ["cut short"])
    add(
        "gzhuge",
        gzip.compress(idx(images, (2**31, 2**16, 7))),
        "a gzipped IDX that declares 10^15 bytes",
        ["cannot hold"],
    )
    add("gzlie", gzip.compress(idx(images, (9, 6, 7))), "a gzipped IDX that declares twice its items", ["cut short"])
    add("gzmore", gzip.compress(idx(images) + bytes(99)), "a gzipped IDX with more", [*items, "longer than"])
    add("gzsum", packed[:-8] + b"\0\0\0\0" + packed[-4:], "a gzipped IDX with a wrong checksum", [*items, "crc"])
    (folder / "short-idx2-int16").write_bytes(idx(np.arange(-6, 6, dtype=">i2").reshape(2, 6), code=0x0B))
    values = np.arange(-6, 6, dtype=np.int16).reshape(2, 1, 6)
    out.append(Nasty(folder / "short-idx2-int16", "an IDX of int16", [*values], many=True))
    return out


def _cifar(folder: Path) -> list[Nasty]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    batch = b"".join(bytes([label]) + image.tobytes() for label, image in zip((3, 200, 9), pixels, strict=True))
    out: list[Nasty] = []

    def add(name: str, data: bytes, what: str, expected: list[Any]) -> None:
        (folder / name).write_bytes(data)
        out.append(Nasty(folder / name, what, expected, many=True))

    add("data_batch_1.bin", batch, "a label beyond the classes", [pixels[0], "its label 200", pixels[2]])
    add("data_batch_2.bin", batch[:-1], "a CIFAR batch cut short", ["cut short"])
    add("test_batch.bin", b"", "a CIFAR batch of 0 bytes", ["empty (0 bytes)"])
    add("data_batch_3", pickle.dumps({b"data": Ran()}), "CIFAR's pickled version", ["cifar-10-binary.tar.gz"])

    def tar(members: dict[str, bytes]) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return stream.getvalue()

    pickled = tar({"cifar-10-batches-py/data_batch_1": pickle.dumps(Ran())})
    add("cifar-10-python.tar.gz", pickled, "the archive of the pickled version", ["cifar-10-binary.tar.gz"])
    binary = tar({"cifar-10-batches-bin/data_batch_1.bin": batch[:3073]})
    place = folder / "archives"
    place.mkdir()
    for name, data, what, expected in (
        ("fine", binary, "CIFAR's own archive", [pixels[0]]),
        ("cut", binary[: len(binary) // 2], "CIFAR's own archive cut short", ["cut short"]),
        ("other", tar({"cifar-10-batches-bin/readme.html": b"x"}), "an archive without batches", ["holds none"]),
    ):
        (place / name).mkdir()
        add(f"archives/{name}/cifar-10-binary.tar.gz", data, what, expected)
    plain = bytearray(gzip.decompress(binary))
    plain[124:136] = b"77777777777\0"
    plain[148:156] = b"%06o\0 " % (sum(plain[:148]) + sum(plain[156:512]) + 8 * 32)
    (place / "lie").mkdir()
    add(
        "archives/lie/cifar-10-binary.tar.gz",
        gzip.compress(bytes(plain)),
        "an archive with a member of 8 GB",
        ["more than"],
    )
    return out


def _series(folder: Path) -> list[Nasty]:
    out: list[Nasty] = []
    head = "@problemName x\n@timeStamps false\n@univariate true\n@classLabel true a b\n@data\n"
    good = np.array([[1, 2, 3]], np.float32)

    def add(name: str, text: str | bytes, what: str, expected: list[Any]) -> None:
        (folder / f"{name}.ts").write_bytes(text if isinstance(text, bytes) else text.encode())
        out.append(Nasty(folder / f"{name}.ts", what, expected, many=True))

    add(
        "missing",
        head + "1,2,3:a\n1,?,3:b\n1,2,3:b\n",
        "a missing value",
        [good, "line 7: 1 of 3 values is missing", good],
    )
    add("class", head + "1,2,3:a\n1,2,3:c\n", "a class that is not listed", [good, "its class 'c'"])
    add("cut", head + "1,2,3:a\n1,2", "a series cut short", [good, "cut short"])
    add("word", head + "1,two,3:a\n1,2,3:a\n", "a word among numbers", ["'two' is not a number", good])
    add("infinite", head + "1,inf,3:a\n1,2,3:a\n", "an infinite value", ["nan or infinite", good])
    add("more", head + "1,2:3,4:a\n1,2,3:a\n", "two dimensions where one is declared", ["2 dimensions", good])
    many = head.replace("@univariate true", "@univariate false")
    add("ragged", many + "1,2:3:a\n1,2,3:a\n", "dimensions of unequal length", ["different lengths", good])
    add(
        "length",
        head.replace("@data", "@equalLength true\n@seriesLength 3\n@data") + "1,2:a\n1,2,3:a\n",
        "a series of another length",
        ["2 values where", good],
    )
    add("stamps", head.replace("Stamps false", "Stamps true") + "(0,1):a\n", "time stamps", ["time stamps"])
    target = head.replace("@classLabel true a b", "@targetLabel true")
    add("target", target + "1,2,3:0.5\n1,2,3:?\n1,2,3\n", "targets", [good, "target '?' is no number", "cut short"])
    add("both", head.replace("@data", "@targetLabel true\n@data") + "1,2,3:a\n", "classes and targets", ["says both"])
    add("nodata", head.replace("@data\n", ""), "no @data", ["no @data"])
    add("nothing", head, "no series", ["no series"])
    add("tag", "@problemName x\n@colour red\n@data\n1:a\n", "an unknown header", ["@colour"])
    add("zero", "", "a .ts of 0 bytes", ["empty (0 bytes)"])
    add("bytes", bytes(range(256)) * 9, "bytes called .ts", ["line 1"])
    add("typescript", "import { x } from 'y';\n", "TypeScript called .ts", ["line 1"])
    add("crlf", (head + "1,2,3:a\n").replace("\n", "\r\n"), "Windows line ends", [good])
    add("bom", b"\xef\xbb\xbf" + (head + "1,2,3:a\n").encode(), "a byte order mark", [good])
    return out


# ---- volumes


def nifti(shape: tuple[int, ...], data: bytes, code: int = 2, bits: int = 8, at: Any = None) -> bytes:
    """A NIfTI-1 file that declares any shape and type; `at` packs further fields: `{offset: (format, *values)}`."""
    header = bytearray(352)
    header[:4], header[344:348] = struct.pack("<i", 348), b"n+1\0"
    struct.pack_into(f"<{1 + len(shape)}h", header, 40, len(shape), *shape)
    struct.pack_into("<hh", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    for place, (layout, *values) in (at or {}).items():
        struct.pack_into(layout, header, place, *values)
    return bytes(header) + data


def _nifti(folder: Path) -> list[Nasty]:
    out: list[Nasty] = []

    def add(name: str, data: bytes, what: str, expected: np.ndarray | str) -> None:
        (folder / name).write_bytes(data)
        out.append(Nasty(folder / name, what, [expected]))

    cells = np.random.default_rng(0).integers(0, 256, (1, 3, 4, 5), dtype=np.uint8)
    stored = cells[0, :, :, ::-1].tobytes()  # without an orientation x runs from right to left
    whole = nifti((5, 4, 3), stored)
    add("fine.nii", whole, "a NIfTI among nasty ones", cells)
    add("fine.nii.gz", gzip.compress(whole), "the same gzipped", cells)
    add("plain.nii.gz", whole, "called .gz and not gzipped", cells)
    add("packed.nii", gzip.compress(whole), "gzipped and not called so", cells)
    add("zero.nii", b"", "a NIfTI of 0 bytes", "empty (0 bytes)")
    add("text.nii", b"no volume" * 99, "text called .nii", "not a nifti")
    add("head.nii", whole[:200], "a NIfTI cut within its header", "cut short")
    add("cut.nii", whole[:-7], "a NIfTI cut short", "cut short")
    add("longer.nii", whole + b"more", "a NIfTI with more than it declares", "longer than it says")
    packed = gzip.compress(whole)
    add("cut.nii.gz", packed[: len(packed) // 2], "a gzipped NIfTI cut in half", "cut short")
    add("sum.nii.gz", packed[:-8] + bytes(4) + packed[-4:], "a gzipped NIfTI with a wrong checksum", "crc")
    add("less.nii.gz", gzip.compress(whole[:-7]), "a gzipped NIfTI that holds less than it declares", "cut short")
    add("more.nii.gz", gzip.compress(whole + bytes(99)), "a gzipped NIfTI that holds more", "longer than it says")
    add("bomb.nii.gz", gzip.compress(whole + bytes(40 << 20)), "40 MB of zeros behind a volume", "longer than it says")
    add("huge.nii", nifti((30_000,) * 3, stored), "a NIfTI that declares 27 TB", "30000x30000x30000")
    add("huge.nii.gz", gzip.compress(nifti((900,) * 3, stored)), "the same gzipped", "cannot hold")
    add("minus.nii", nifti((5, -4, 3), stored), "a negative size", "impossible shape")
    add("axes.nii", nifti((5, 4, 3, 1, 1, 2), stored), "six axes", "6 axes")
    add("none.nii", nifti((5, 4, 3), stored, at={40: ("<h", 0)}), "no axes", "declares 0 axes")
    add("code.nii", nifti((5, 4, 3), stored, 77), "an unknown type", "datatype 77")
    add("complex.nii", nifti((5, 4, 3), stored * 8, 32, 64), "complex numbers", "integers, floats or rgb")
    add("start.nii", nifti((5, 4, 3), stored, at={108: ("<f", 1e30)}), "values that begin beyond the end", "declares")
    add(
        "nowhere.nii", nifti((5, 4, 3), stored, at={108: ("<f", np.nan)}), "values that begin nowhere", "makes no sense"
    )
    turned = {252: ("<hh", 0, 1), 76: ("<f", 7)}
    add("qform.nii", nifti((5, 4, 3), stored, at=turned), "a rotation that is none", "makes no sense")
    add("sform.nii", nifti((5, 4, 3), stored, at={254: ("<h", 1)}), "axes of length zero", "orientation")
    add("ni1.nii", nifti((5, 4, 3), b"", at={344: ("4s", b"ni1\0")}), "a pair without its values", "not beside it")
    analyze = nifti((5, 4, 3), b"", at={344: ("4s", bytes(4))})
    add("old.hdr", analyze, "an ANALYZE header", "analyze")
    real = np.arange(60, dtype="<f4")
    real[7] = np.nan
    add("nan.nii", nifti((5, 4, 3), real.tobytes(), 16, 32), "NaN outside of the brain", "1 of 60 values is nan")
    wide = (np.arange(60, dtype="<f8") * 1e300).tobytes()
    add("wide.nii", nifti((5, 4, 3), wide, 64, 64), "values beyond float32", "infinite")
    return out


def dicom(pixels: np.ndarray, syntax: str = "1.2.840.10008.1.2.1", **elements: Any) -> bytes:
    """A DICOM file of (H, W) pixels; an element that is None is left out."""
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset, bits = Dataset(), pixels.dtype.itemsize * 8
    dataset.file_meta = FileMetaDataset()
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "SOPInstanceUID": "1.2.3.4",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
        **elements,
    }
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    data, plain = stream.getvalue(), b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    other = syntax.encode() + b"\0" * (len(syntax) % 2)
    named = plain[:6] + struct.pack("<H", len(other)) + other
    if syntax == "1.2.840.10008.1.2.1":
        return data
    at = data.index(plain)  # the group's length is that of what follows it
    (length,) = struct.unpack_from("<I", data, 140)
    data = data[:140] + struct.pack("<I", length + len(named) - len(plain)) + data[144:]
    return data[:at] + named + data[at + len(plain) :]


def _dicom(folder: Path) -> list[Nasty]:
    out: list[Nasty] = []

    def add(name: str, data: bytes, what: str, expected: np.ndarray | str) -> None:
        (folder / name).write_bytes(data)
        out.append(Nasty(folder / name, what, [expected]))

    pixels = np.random.default_rng(0).integers(0, 256, (6, 8), dtype=np.uint8)
    whole = dicom(pixels)
    add("fine.dcm", whole, "a DICOM among nasty ones", pixels[None])
    add("IM0001", whole, "a DICOM without a suffix", pixels[None])
    add("odd.dcm", dicom(pixels[:3, :3].copy()), "an odd number of pixels, padded to even", pixels[None, :3, :3])
    add("zero.dcm", b"", "a DICOM of 0 bytes", "empty (0 bytes)")
    add("text.dcm", b"no picture" * 99, "text called .dcm", "not a dicom file")
    add("head.dcm", whole[:131], "a DICOM cut within its preamble", "not a dicom file")
    add("meta.dcm", whole[:150], "a DICOM cut within its meta elements", "holds no picture")
    add("cut.dcm", whole[:-20], "a DICOM cut short", "cut short")
    add("none.dcm", dicom(pixels, PixelData=None), "no pixel data", "no pixel data")
    add("report.dcm", dicom(pixels, PixelData=None, Rows=None), "a report", "holds no picture")
    add("huge.dcm", dicom(pixels, Rows=65_535, Columns=65_535), "65,535 x 65,535 pixels", "65,535 x 65,535")
    add("frames.dcm", dicom(pixels, NumberOfFrames=99_999_999), "10^8 frames", "99,999,999 frames")
    add("lie.dcm", dicom(pixels, Rows=60), "more rows than there are", "cut short")
    add("empty.dcm", dicom(pixels, Columns=0), "no columns", "6 x 0 pixels")
    add("bits.dcm", dicom(pixels, BitsAllocated=12), "12 bits in a row", "12 bits")
    add("stored.dcm", dicom(pixels, BitsStored=99), "99 bits of 8", "99 of 8 bits")
    add("palette.dcm", dicom(pixels, PhotometricInterpretation="PALETTE COLOR"), "a palette", "palette color")
    add("samples.dcm", dicom(pixels, SamplesPerPixel=4), "four colours", "4 samples")
    add("slope.dcm", dicom(pixels, RescaleSlope=1e300, RescaleIntercept=0), "a slope of 10^300", "infinite")
    for name, uid, words in (
        ("lossless", "1.2.840.10008.1.2.4.70", "jpeg lossless"),
        ("jpegls", "1.2.840.10008.1.2.4.80", "jpeg-ls lossless image compression (1.2.840.10008.1.2.4.80)"),
        ("video", "1.2.840.10008.1.2.4.102", "mpeg-4"),
        ("unknown", "1.2.3.4.5", "transfer syntax 1.2.3.4.5"),
        ("deflated", "1.2.840.10008.1.2.1.99", "deflated explicit vr little endian"),
        ("jpeg2000", "1.2.840.10008.1.2.4.90", "broken dicom"),  # whose pixels are none
    ):
        add(f"{name}.dcm", dicom(pixels, uid), f"the transfer syntax {words}", words)
    for name, numbers, words in (
        ("gap", (0, 1, 2, 4, 5), "not evenly spaced"),
        ("same", (0, 1, 2, 2, 3), "lie at the same place"),
        ("one", (0,), "only slice"),
        ("bad", (0, 1, None, 3), "holds no picture"),
    ):
        (folder / name).mkdir()
        for i, number in enumerate(numbers):
            place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
            place |= {"Rows": None} if number is None else {"ImagePositionPatient": [0, 0, number]}
            (folder / name / f"{i}.dcm").write_bytes(dicom(pixels, **place))
        out.append(Nasty(folder / name, f"a series: {words}", [words]))
    return out


# ---- tar, TIFF, tables


def tar(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of files and, where a `TarInfo` is given, of anything."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as archive:
        for name, what in members.items():
            info = what if isinstance(what, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
            archive.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
    return stream.getvalue()


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """An entry of a tar that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.devmajor, info.devminor = kind, target, 1, 5
    return info


def resealed(data: bytes, at: int, change: bytes, to: int) -> bytes:
    """A tar whose header at byte `at` has `change` in it from byte `to` on, its checksum right."""
    header = bytearray(data[at : at + 512])
    header[to : to + len(change)] = change
    total = sum(header[:148]) + sum(header[156:]) + 8 * 32
    header[148:156] = b"%06o\0 " % total
    return data[:at] + bytes(header) + data[at + 512 :]


def _tars(folder: Path) -> list[Nasty]:
    rgb = picture()
    png = encoded(Image.fromarray(rgb), "PNG")
    good = {
        "fine.png": ("a picture among nasty ones", first(rgb)),
        "дом/with a space.png": ("a member with an unusual name", first(rgb)),
        "x" * 200 + ".png": ("a name of 204 letters", first(rgb)),
    }
    bad: dict[str, tuple[str, bytes | tarfile.TarInfo, str]] = {
        "../../escape.png": ("a path that leaves the archive", png, "path traversal"),
        "/absolute.png": ("an absolute path", png, "path traversal"),
        "c:/windows.png": ("a path with a drive", png, "path traversal"),
        "zero.png": ("a member of 0 bytes", b"", "empty (0 bytes)"),
        "link.png": ("a link out", entry("link.png", tarfile.SYMTYPE, "/etc/passwd"), "is a link (/etc/passwd)"),
        "hard.png": ("a hard link", entry("hard.png", tarfile.LNKTYPE, "fine.png"), "is a link (fine.png)"),
        "device.png": ("a device", entry("device.png", tarfile.CHRTYPE), "is a device"),
        "block.png": ("a block device", entry("block.png", tarfile.BLKTYPE), "is a device"),
        "pipe.png": ("a named pipe", entry("pipe.png", tarfile.FIFOTYPE), "named pipe"),
        "half.png": ("a broken picture", png[: len(png) // 2], "broken png"),
    }
    out = []
    inside: dict[str, bytes | tarfile.TarInfo] = dict.fromkeys(good, png) | {name: bad[name][1] for name in bad}
    for name, mode in (
        ("nasty.tar", "w"),
        ("nasty.tar.gz", "w:gz"),
        ("nasty.tar.bz2", "w:bz2"),
        ("nasty.tar.xz", "w:xz"),
    ):
        (folder / name).write_bytes(tar(inside, mode))
        out += [Nasty(folder / name, what, [wanted], member) for member, (what, wanted) in good.items()]
        out += [Nasty(folder / name, what, [words], member) for member, (what, _, words) in bad.items()]
    out.append(Nasty(folder / "nasty.tar", "a member that is not there", ["missing.png"], "missing.png"))

    plain = tar({"a.png": png, "b.png": png})
    second = 512 + -(-len(png) // 512) * 512
    sparse = resealed(plain, second, b"S", 156)
    long = tar({"y" * 200: png}, form=tarfile.GNU_FORMAT)
    pax = tar({"z" * 200: png})
    whole = {
        "cut.tar": (plain[: second - 9], "a tar cut within a member", "cut short"),
        "end.tar": (plain[:second], "a tar without its end mark", "cut short"),
        "sum.tar": (plain[:second] + b"\xff" + plain[second + 1 :], "a header with a wrong checksum", "broken tar"),
        "huge.tar": (resealed(plain, second, b"77777777777\0", 124), "a member of 8 GB", "cut short"),
        "minus.tar": (resealed(plain, second, b"\xff" * 12, 124), "a member of -1 bytes", "cut short"),
        "sparse.tar": (sparse, "a sparse member", "sparse"),
        "long.tar": (resealed(long, 0, b"77777777777\0", 124), "a name of 8 GB", "header of"),
        "pax.tar": (pax[:512] + b"999999 path=x\n" + pax[526:], "a pax header that lies", "pax header"),
        "cut.tar.gz": (tar({"a.png": png}, "w:gz")[:-20], "a tar.gz cut short", "cut short"),
        "cut.tar.xz": (tar({"a.png": png}, "w:xz")[:-20], "a tar.xz cut short", ""),
        "noise.tar.gz": (b"\x1f\x8b\x08\0" + bytes(range(200)), "noise called .tar.gz", "damaged"),
        "text.tar.bz2": (b"BZh9 no archive", "text called .tar.bz2", ""),
        "bomb.tar.bz2": (tar({"a.png": bytes(40 << 20)}, "w:bz2"), "40 MB of zeros in a tar.bz2", "packed size"),
        "bomb.tar.gz": (gzip.compress(bytes(40 << 20), 9), "40 MB of zeros called .tar.gz", "packed size"),
        "bomb.tar.xz": (tar({"a.png": bytes(40 << 20)}, "w:xz"), "40 MB of zeros in a tar.xz", "packed size"),
    }
    for name, (data, what, words) in whole.items():
        (folder / name).write_bytes(data)
        out.append(Nasty(folder / name, what, [words], "a.png"))
    return out


def _tiffs(folder: Path) -> list[Nasty]:
    out: list[Nasty] = []
    rng = np.random.default_rng(0)
    bands = rng.integers(0, 65536, (5, 12, 17), dtype=np.uint16)

    def add(name: str, data: bytes, what: str, expected: np.ndarray | str) -> None:
        (folder / name).write_bytes(data)
        out.append(Nasty(folder / name, what, [expected]))

    def written(array: np.ndarray, **options: Any) -> bytearray:
        stream = io.BytesIO()
        options = {"photometric": "minisblack", "planarconfig": "separate"} | options
        tifffile.imwrite(stream, array, metadata=None, **options)
        return bytearray(stream.getvalue())

    def tagged(data: bytearray, tag: int, value: int) -> bytes:
        """The first directory's `tag` with another value."""
        with tifffile.TiffFile(io.BytesIO(data)) as opened:
            found = opened.pages[0].tags[tag]
            kind = {3: "<H", 4: "<I", 16: "<Q"}[int(found.dtype)]
            struct.pack_into(kind, data, found.valueoffset, value)
        return bytes(data)

    plain, packed = written(bands), written(bands, compression="zlib")
    add("fine.tif", bytes(plain), "five bands of 16 bits", bands)
    for share in (0.1, 0.5, 0.99):
        add(f"cut{share}.tif", bytes(plain[: int(share * len(plain))]), "five bands cut short", "")
        add(f"cutz{share}.tif", bytes(packed[: int(share * len(packed))]), "five packed bands cut short", "")
    add("wide.tif", tagged(written(bands), 256, 60_000), "five bands that declare 60,000 columns", "")
    add("bomb.tif", tagged(written(bands, compression="zlib"), 256, 4_000_000), "a TIFF of 4,000,000 columns", "bomb")
    zeros = np.zeros((5, 4000, 4000), np.uint8)
    add("zeros.tif", bytes(written(zeros, compression="zstd")), "80 MB of zeros in some KB", "bomb")
    add("tile.tif", tagged(written(bands, tile=(16, 16)), 322, 60_000), "tiles larger than memory", "")
    add("samples.tif", tagged(written(bands), 277, 60_000), "60,000 samples a pixel", "")
    add("complex.tif", bytes(written(bands.astype(np.complex64))), "complex numbers", "unknown kind")
    holes = rng.normal(size=(4, 6, 7)).astype(np.float32)
    holes[1, 2, 3] = np.nan
    add("nan.tif", bytes(written(holes)), "a NaN in four bands", "1 of 168 values is nan or infinite")
    damaged = bytearray(packed)
    damaged[-40:-20] = bytes(20)
    add("damaged.tif", bytes(damaged), "packed bands with zeroed bytes", "")
    loop = written(bands[:1, None].repeat(2, 0)[:, 0], planarconfig=None)
    with tifffile.TiffFile(io.BytesIO(loop)) as opened:
        second = opened.pages[1].offset
    count = struct.unpack_from("<H", loop, second)[0]
    struct.pack_into("<I", loop, second + 2 + 12 * count, second)
    add("loop.tif", bytes(loop), "a directory that is followed by itself", "in a circle")
    return out


def _tables(folder: Path) -> list[Nasty]:
    out: list[Nasty] = []
    names = ",".join(f"t{i}" for i in range(8))
    steps = np.arange(8, dtype=np.float32)[None]
    good = "0,1,2,3,4,5,6,7"

    def add(name: str, text: str | bytes, what: str, expected: list[Any], many: bool = True) -> None:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        out.append(Nasty(folder / name, what, expected, many=many))

    head = f"{names},label\n"
    add("fine.csv", f"{head}{good},a\n", "a table among nasty ones", [steps])
    add("bom.csv", f"\ufeff{head}{good},a\n", "a byte order mark", [steps])
    add("wide.csv", f"{head}{good},a\n".encode("utf-16"), "UTF-16", [steps])
    add("crlf.csv", f"{head}{good},a\n".replace("\n", "\r\n"), "Windows line ends", [steps])
    add("semicolons.csv", f"{head}{good},a\n".replace(",", ";"), "semicolons", [steps])
    add("ragged.csv", f"{head}{good},a\n1,2\n{good},b\n", "a row too short", [steps, "line 3: it has 2 cells", steps])
    add(
        "word.csv",
        f"{head}{good},a\n{good},b\n0,1,two,3,4,5,6,7,a\n" + f"{good},a\n" * 3,
        "a word among numbers",
        [steps, steps, "line 4: 'two' is not a number", steps, steps, steps],
    )
    add("hole.csv", f"{head}0,1,,3,4,5,6,7,a\n{good},b\n", "a hole", ["line 2: 1 of 8 values is missing", steps])
    add("short.csv", f"{head}0,1,2,,,NaN,,,a\n{good},b\n", "a series that ends early", [steps[:, :3], steps])
    add("blank.csv", f"{head}{good},\n{good},b\n", "no label", ["line 2: its label is missing", steps])
    add(
        "quote.csv",
        f'{head}{good},"a\n{good},b\n',
        "a quote that is never closed",
        ["line 2: a quote is opened", steps],
    )
    add("infinite.csv", f"{head}0,1,2,3,4,5,6,1e999,a\n{good},b\n", "an infinite value", ["nan or infinite", steps])
    add(
        "ask.csv",
        f"{names},u,v\n{good},a,x\n{good},b,x\n{good},a,y\n",
        "two columns for the label",
        ["say it: --target"],
    )
    add("zero.csv", b"", "a table of 0 bytes", ["empty (0 bytes)"])
    add("lines.csv", b"\n\n\n", "blank lines alone", ["no rows"])
    add("header.csv", head, "a header alone", ["a header and no rows"])
    add("twice.csv", f"label,{head}a,{good},b\n", "two columns of one name", ["two columns called 'label'"])
    add("latin.csv", f"{head}{good},süß\n".encode("latin-1"), "Latin-1", ["is no utf-8 text"])
    add("bytes.csv", bytes(range(256)) * 4, "bytes called .csv", [""])
    add("zeros.csv", bytes(999), "zeros called .csv", ["zero bytes"])
    add("text.parquet", b"PAR1 no table" * 9, "text called .parquet", ["broken parquet"])
    stream = io.BytesIO()
    columns = {f"t{i}": [float(i)] * 3 for i in range(8)} | {"label": ["a", "b", "a"]}
    parquet.write_table(pyarrow.table(columns), stream)
    data = stream.getvalue()
    add("fine.parquet", data, "a Parquet table", [steps] * 3)
    for share in (0.1, 0.5, 0.99):
        add(f"cut{share}.parquet", data[: int(share * len(data))], "a Parquet file cut short", ["parquet"])
    add(
        "one.csv",
        "x,y\n1,2\n3,oops\n5,6\n7,8\n9,1\n2,3\n",
        "a word in a table that is one item",
        ["line 3: 'oops' is not a number"],
        many=False,
    )
    add("gap.csv", "x,y\n1,2\n3\n", "a row too short in one item", ["line 3: it has 1 cells"], many=False)
    return out


def manifests(folder: Path) -> dict[str, tuple[Path, list[str], list[str]]]:
    """Tables that list pictures, by what is wrong: the table, files that are left, words of each error in order."""
    folder.mkdir(parents=True)
    png = encoded(Image.fromarray(picture()), "PNG")
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(png)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        archive.writestr("x.png", png)
    cases: dict[str, tuple[str, list[str], list[str]]] = {
        "blank path": ("a.png,x\n,y\nb.png,y\n", ["a.png", "b.png"], ["line 3: has no path"]),
        "missing file": ("a.png,x\nno.png,y\nb.png,y\n", ["a.png", "b.png"], ["line 3: there is no file no.png"]),
        "blank label": ("a.png,x\nb.png,\nc.png,y\n", ["a.png", "c.png"], ["line 3: its label is missing"]),
        "two labels": ("a.png,x\na.png,y\nb.png,y\n", ["b.png"], ["line 2: two labels", "line 3: two labels"]),
        "same label twice": ("a.png,x\n./a.png,x\nb.png,y\n", ["a.png", "b.png"], []),
        "a folder": ("a.png,x\nfolder.png,y\nb.png,y\n", ["a.png", "b.png"], ["folder.png is an empty folder"]),
        "out of a zip": ("a.png,x\nz.zip!../a.png,y\nz.zip!x.png,y\n", ["a.png", "x.png"], ["points outside"]),
        "not in the zip": ("a.png,x\nz.zip!y.png,y\nb.png,y\n", ["a.png", "b.png"], ["no file z.zip!y.png"]),
        "a name too long": (f"a.png,x\n{'x' * 300}.png,y\nb.png,y\n", ["a.png", "b.png"], ["there is no file"]),
        "an address": ("a.png,x\nhttps://e.org/x.png,y\nb.png,y\n", ["a.png", "b.png"], ["there is no file https"]),
        "a quote": ('a.png,x\n"b.png,y\nc.png,y\n', ["a.png", "c.png"], ["line 3: a quote is opened"]),
    }
    out = {}
    for i, (what, (text, left, errors)) in enumerate(cases.items()):
        (folder / f"{i}.csv").write_text("path,label\n" + text)
        out[what] = (folder / f"{i}.csv", left, errors)
    return out


# ---- data sets


def folders(folder: Path) -> dict[str, Path]:
    """Data sets of pictures in class folders, each nasty as a whole, by what is nasty about it."""
    rng = np.random.default_rng(0)

    def write(place: Path, count: int, low: int) -> None:
        place.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(low, low + 100, (12, 12, 3), dtype=np.uint8)).save(place / f"{i:03}.png")

    def both(name: str) -> Path:
        write(folder / name / "dark", 30, 0)
        write(folder / name / "light", 30, 150)
        return folder / name

    out = {what: both(what) for what in ("one item", "empty class", "link loop", "same picture", "1 % bad", "10 % bad")}
    (out["one item"] / "single").mkdir()
    (out["one item"] / "dark" / "000.png").rename(out["one item"] / "single" / "000.png")
    (out["empty class"] / "nothing").mkdir()
    (out["link loop"] / "dark" / "back").symlink_to(out["link loop"])
    for part in ("train", "test"):
        for name in ("dark", "light"):
            write(folder / "leak" / part / name, 20, 0 if name == "dark" else 150)
    for i in range(3):
        twin = (folder / "leak" / "train" / "dark" / f"00{i}.png").read_bytes()
        (folder / "leak" / "test" / "dark" / f"00{i}.png").write_bytes(twin)
    out["the same picture in train and test"] = folder / "leak"
    twin = (out["same picture"] / "dark" / "000.png").read_bytes()
    (out["same picture"] / "light" / "000.png").write_bytes(twin)
    (out["1 % bad"] / "dark" / "bad.png").write_bytes(b"no picture")
    for i in range(6):
        (out["10 % bad"] / "dark" / f"bad{i}.png").write_bytes(twin[: 30 + i])
    return out
