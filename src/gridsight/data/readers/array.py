"""NumPy arrays: `.npy` (one array) and `.npz` (a zip of several), never pickled ones.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
`read`: many items along the first axis, N. Labels come from the same `.npz` (x/y, images/labels, data/target,
x_train/y_train/x_val/..., train_images/train_labels/... as MedMNIST has them) or from the `.npy` beside it (x.npy and
y.npy, X_train.npy and y_train.npy, name.npy and name_labels.npy), and mean what `data/labels.py` says; an array of
texts called classes, class_names or the like names the classes. Items that are padded to one size are cut to their own
where the `.npz` says it: lengths (n,) of series, else (n, ndim). `read_single`: the whole array is one item.
Items become (C, *spatial) uint8, uint16, int16 or float32 (`data/rows.py`), their axes guessed by `data/axes.py` unless
told. Items are read from the stream one block after the other, so arrays may be larger than memory; those in Fortran
order are read whole.
"""

import io
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data import rows
from gridsight.data.axes import channels_first, match_axes
from gridsight.data.files import File
from gridsight.data.labels import Labels, read_labels
from gridsight.data.names import split_in
from gridsight.data.readers import READERS, Reader
from gridsight.data.rows import Layout
from gridsight.data.sample import Header, Sample

MAGIC = b"\x93NUMPY"
MAX_HEADER = 64 << 10
MAX_MEMBERS = 10_000
NAME_KEYS = ("class_names", "label_names", "target_names", "classes")


@dataclass(frozen=True)
class Member:
    """One array of a file: what errors and items call it, and how to open it at its start; `size` in bytes."""

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    size: int


@dataclass(frozen=True)
class Part:
    """The items of one split, and the arrays that say something of each of them."""

    data: Member
    split: str | None = None
    labels: Member | None = None
    lengths: Member | None = None


@READERS.register("array", suffixes=(".npy", ".npz"), ndims=(1, 2, 3), many=True)
class ArrayReader(Reader):
    """`.npy` and `.npz`."""

    version = 3

    def sniff(self, file: File, head: bytes) -> bool:
        if head.startswith(MAGIC):
            return True
        # an .npz is a zip whose members are .npy files; a .zip of them is a folder of files
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return head.startswith(b"PK\x03\x04") and first.endswith(b".npy") and not file.name.lower().endswith(".zip")

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        if _is_npy(file):
            if data := _data_beside(file):
                raise ReadError(file, f"holds the labels of {data.name}; give that file")
            beside = _labels_beside(file)
            labels = _file_member(beside) if beside else None
            yield from _items(Part(_file_member(file), split_in(file.name)[0], labels), None, axes)
            return
        with _archive(file) as arrays:
            names = _class_names(arrays)
            for part in _parts(file, arrays):
                yield from _items(part, names, axes)

    def read_single(self, file: File, axes: str | None = None) -> Sample:
        with nullcontext() if _is_npy(file) else _archive(file) as arrays:
            member = _file_member(file) if arrays is None else _only(file, arrays)
            with member.open() as stream:
                layout = _layout(member, stream)
                rows.check_layout(member.name, layout)
                return rows.single(file, rows.read_whole(member.name, stream, layout), axes)

    def read_as(self, file: File, ndim: int, channels: int, axes: str | None = None) -> Iterator[Sample | ReadError]:
        with nullcontext() if _is_npy(file) else _archive(file) as arrays:
            for part in [Part(_file_member(file))] if arrays is None else _parts(file, arrays):
                with part.data.open() as stream:
                    layout = _layout(part.data, stream)
                letters = match_axes(layout.shape, layout.dtype, ndim, channels, axes)
                if letters is None:
                    wanted = f"{ndim} axes and {channels} channel" + ("s" if channels > 1 else "")
                    raise ReadError(part.data.name, f"has shape {layout.shape} where the model takes items of {wanted}")
                yield from _items(Part(part.data, lengths=part.lengths), None, letters)

    def probe(self, file: File, axes: str | None = None) -> Header:
        with nullcontext() if _is_npy(file) else _archive(file) as arrays:
            member = _file_member(file) if arrays is None else _only(file, arrays)
            with member.open() as stream:
                layout = _layout(member, stream)
        rows.check_layout(member.name, layout)
        if layout.dtype.kind in "iu" and layout.dtype.itemsize > 2:  # the type depends on the values
            return super().probe(file, axes)
        item = Layout((1, *layout.shape), layout.dtype)
        given = axes and axes.upper().removeprefix("N")
        _, letters = rows.item_axes(file, item, given and "N" + given)
        shape = channels_first(np.broadcast_to(np.uint8(0), layout.shape), letters).shape
        return Header(shape[0], shape[1:], rows.target_dtype(layout, list).name)

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
        series = rng.normal(size=(4, 2, 30))
        names = ["north", "süd", "north", "süd"]
        np.save(folder / "x_train.npy", images)
        np.save(folder / "y_train.npy", np.arange(5.0))
        np.savez_compressed(folder / "one.npz", x=series, y=np.array(names))
        np.savez(
            folder / "splits.npz",
            train_images=images.astype(np.int64),
            train_labels=np.arange(5)[:, None],
            test_images=images[:2].astype(np.int64),
            test_labels=np.arange(2)[:, None],
        )
        pictures = images.transpose(0, 3, 1, 2)
        return [
            (
                folder / "x_train.npy",
                [Sample(a, f"{folder / 'x_train.npy'}[{i}]", str(i), "train") for i, a in enumerate(pictures)],
            ),
            (
                folder / "one.npz",
                [Sample(a, f"{folder / 'one.npz'}[{i}]", names[i]) for i, a in enumerate(series.astype(np.float32))],
            ),
            (
                folder / "splits.npz",
                [
                    Sample(a, f"{folder / 'splits.npz'}!{split}_images[{i}]", str(i), split)
                    for split, count in (("train", 5), ("test", 2))
                    for i, a in enumerate(pictures[:count])
                ],
            ),
        ]


def _is_npy(file: File) -> bool:
    # by content, so that a wrong suffix does no harm; by name where the content is neither
    head = file.head(6)
    return head == MAGIC or (not head.startswith(b"PK") and file.name.lower().endswith(".npy"))


def _layout(member: Member, stream: IO[bytes]) -> Layout:
    """Read an .npy header; the stream is then at the first value, and holds as many bytes as the header promises."""
    prefix = stream.read(8)
    if prefix[:1] == b"\x80":
        raise ReadError(
            member.name,
            "is a Python pickle, which could run code when loaded; save the array with numpy.save(path, array)",
        )
    if not prefix.startswith(MAGIC):
        raise ReadError(member.name, "is not a NumPy file (.npy)")
    width = {1: 2, 2: 4}.get(prefix[6] if len(prefix) == 8 else 0)
    if width is None:
        raise ReadError(member.name, "has an .npy version that is not read; save it again with numpy.save")
    length = stream.read(width)
    size = int.from_bytes(length, "little")
    if size > MAX_HEADER:
        raise ReadError(member.name, f"declares an .npy header of {size:,} bytes; at most {MAX_HEADER:,} are read")
    text = re.sub(rb"(?<=\d)L(?=[,)])", b" ", stream.read(size))  # Python 2 wrote (60000L, 28L)
    if len(text) < size:
        raise ReadError(member.name, "is cut short within its header")
    read = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(io.BytesIO(length + text), max_header_size=MAX_HEADER)
    except Exception:  # numpy evaluates the text as a literal: hostile ones fail in any way
        raise ReadError(member.name, "its .npy header makes no sense") from None
    layout = Layout(shape, dtype, fortran)
    there = member.size - 8 - width - size
    if not dtype.hasobject and min(shape, default=0) >= 0 and layout.nbytes != there:
        what = "is cut short" if layout.nbytes > there else "is longer than it says"
        raise ReadError(
            member.name, f"{what}: its header declares {layout.nbytes:,} bytes {shape}, and {there:,} are there"
        )
    return layout


def _items(part: Part, names: list[str] | None, axes: str | None) -> Iterator[Sample | ReadError]:
    data = part.data
    with data.open() as stream:
        layout = _layout(data, stream)
    rows.check_layout(data.name, layout)
    many, letters = rows.item_axes(data.name, layout, axes)
    count, ndim = layout.shape[0], len(letters.replace("C", ""))
    said = _labels(part.labels, count, names) if part.labels and many else None
    if part.lengths is not None and not many:
        raise ReadError(part.lengths.name, "says the lengths of many items, and the array is one; cut it and save it")
    sizes = rows.read_sizes(part.lengths.name, _whole(part.lengths), count, ndim) if part.lengths else None

    def blocks() -> Iterator[np.ndarray]:
        with data.open() as stream:
            _layout(data, stream)
            yield from rows.read_blocks(data.name, stream, layout)

    if many:
        dtype = rows.target_dtype(layout, blocks)
        yield from rows.samples(data.name, blocks(), letters, dtype, said, part.split, sizes)
    else:
        with data.open() as stream:
            _layout(data, stream)
            yield rows.single(data.name, rows.read_whole(data.name, stream, layout), letters)


def _labels(member: Member, count: int, names: list[str] | None) -> Labels:
    return read_labels(member.name, _whole(member), count, names)


def _whole(member: Member) -> np.ndarray:
    """A small array of numbers or text."""
    with member.open() as stream:
        layout = _layout(member, stream)
        if layout.dtype.kind not in "US" or layout.dtype.itemsize == 0:
            rows.check_layout(member.name, layout)
        return rows.read_whole(member.name, stream, layout, rows.MAX_LABELS)


def _file_member(file: File) -> Member:
    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with rows.reading(file), file.open() as stream:
            yield stream  # type: ignore[misc]

    return Member(str(file), opened, file.size())


@contextmanager
def _archive(file: File) -> Iterator[dict[str, Member]]:
    """The arrays of an .npz by key; members stay packed until they are read."""
    if file.size() == 0:
        raise ReadError(file, "is empty (0 bytes)")
    try:
        # a private handle: threads that share one wait for each other; within another zip it is read whole
        archive = zipfile.ZipFile(file.path if file.member is None else io.BytesIO(file.read()))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ReadError(file, f"is not a readable .npz archive ({str(error).lower()})") from None
    with archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if not infos or len(infos) > MAX_MEMBERS:
            raise ReadError(file, "holds no arrays" if not infos else f"holds {len(infos):,} arrays, too many")

        def member(key: str, info: zipfile.ZipInfo) -> Member:
            name = f"{file}!{key}"

            @contextmanager
            def opened() -> Iterator[IO[bytes]]:
                with rows.reading(name), archive.open(info) as stream:
                    yield stream

            return Member(name, opened, info.file_size)

        keys = [info.filename.removesuffix(".npy") for info in infos]
        yield {key: member(key, info) for key, info in zip(keys, infos, strict=True)}


def _parts(file: File, arrays: dict[str, Member]) -> list[Part]:
    """Every split that an .npz holds, or all its items."""
    best: dict[tuple[str, str | None], tuple[int, str]] = {}
    unknown = []
    for key in arrays:
        known = rows.key_role(key)
        if known is None:
            if key.lower() not in NAME_KEYS:
                unknown.append(key)
            continue
        role, split, rank = known
        best[role, split] = min(best.get((role, split), (rank, key)), (rank, key))
    splits: list[str | None] = [split for split in ("train", "val", "test", None) if ("data", split) in best]
    if not splits and len(unknown) == 1:
        best["data", None] = (0, unknown[0])
        splits = [None]
    if not splits:
        raise ReadError(
            file,
            f"its arrays are called {', '.join(list(arrays)[:10])}; call them x and y, images and labels, "
            "or x_train, y_train, x_test, y_test",
        )
    for (role, split), (_, key) in best.items():
        if role == "lengths" and split not in splits:
            raise ReadError(
                file, f"its array {key} says the lengths of no other array; call them x_train, lengths_train"
            )

    def said(role: str, split: str | None) -> Member | None:
        return arrays[best[role, split][1]] if (role, split) in best else None

    out = []
    for split in splits:
        data = arrays[best["data", split][1]]
        if len(splits) == 1:  # a file with one set of items needs no key in their names
            data = Member(str(file), data.open, data.size)
        out.append(Part(data, split, said("labels", split), said("lengths", split)))
    return out


def _only(file: File, arrays: dict[str, Member]) -> Member:
    """The array that is the item, of an .npz that is one item."""
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    found = _parts(file, arrays)
    if len(found) > 1:
        raise ReadError(file, f"holds several arrays ({', '.join(list(arrays)[:10])}) where one item is wanted")
    if found[0].lengths is not None:
        raise ReadError(found[0].lengths.name, "says the lengths of many items where one is wanted; cut it and save it")
    return found[0].data


def _class_names(arrays: dict[str, Member]) -> list[str] | None:
    key = next((key for key in arrays if key.lower() in NAME_KEYS), None)
    if key is None:
        return None
    array = _whole(arrays[key])
    if array.ndim != 1 or array.dtype.kind not in "US":
        return None
    return [name or str(i) for i, name in enumerate(read_labels(arrays[key].name, array, len(array)).texts)]


def _renamed(file: File, old: Iterable[str], new: Iterable[str]) -> Iterator[str]:
    """File names with one word of `old` in the stem replaced by one of `new`, in the cases that people write."""
    stem, dot, suffix = file.name.rpartition(".")
    pieces = re.split(r"([^A-Za-z0-9]+)", stem)
    for place, piece in enumerate(pieces):
        if piece.lower() in old:
            for word in new:
                for written in (word, word.upper(), word.capitalize()):
                    yield "".join([*pieces[:place], written, *pieces[place + 1 :]]) + dot + suffix


def _labels_beside(file: File) -> File | None:
    stem, dot, suffix = file.name.rpartition(".")
    named = [f"{stem}_{word}{dot}{suffix}" for word in rows.LABEL_WORDS]
    candidates = [*_renamed(file, rows.DATA_WORDS, rows.LABEL_WORDS), *named]
    return next(filter(None, map(file.sibling, candidates)), None)


def _data_beside(file: File) -> File | None:
    stem, dot, suffix = file.name.rpartition(".")
    named = [stem[: -len(word) - 1] + dot + suffix for word in rows.LABEL_WORDS if stem.lower().endswith(f"_{word}")]
    candidates = [*_renamed(file, rows.LABEL_WORDS, rows.DATA_WORDS), *named]
    return next(filter(None, map(file.sibling, candidates)), None)
