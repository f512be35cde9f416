"""Items along the first axis of a big array, read from a stream a block at a time, never the whole array.

Shared by the readers whose files are arrays with many items (.npy, .npz, IDX). A `Layout` comes from a header that
may lie: its bytes are compared with what the file really holds before anything of that size is made.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from math import prod
from typing import IO

import numpy as np

from gridsight.core.errors import ReadError, UsageError
from gridsight.data.axes import channels_first, stack_axes
from gridsight.data.labels import Labels
from gridsight.data.names import SPLITS
from gridsight.data.sample import Sample

BLOCK = 1 << 20  # bytes read at once, at least one item
MAX_ITEM = 2 << 30  # bytes of one item
MAX_LABELS = 1 << 30  # bytes of a label array, which is read whole

DATA_WORDS = ("x", "images", "image", "imgs", "data", "inputs", "features", "signals", "series", "samples")
LABEL_WORDS = ("y", "labels", "label", "targets", "target")
LENGTH_WORDS = ("lengths", "length", "lens")


@dataclass(frozen=True)
class Layout:
    """Shape with N first, type and order of an array as its header declares them."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes that the array takes in the file (Python's integers: a lying header cannot overflow them)."""
        return prod(self.shape) * self.dtype.itemsize


@contextmanager
def reading(file: object) -> Iterator[None]:
    """Errors of the file system and of compressed streams become `ReadError`s of `file`."""
    try:
        yield
    except EOFError:
        raise ReadError(file, "is cut short: its compressed data end early") from None
    except OSError as error:
        raise ReadError(file, (error.strerror or str(error) or type(error).__name__).lower()) from None
    except (zlib.error, zipfile.BadZipFile, LZMAError, UnicodeDecodeError, struct.error) as error:
        raise ReadError(file, f"its compressed data are damaged ({error})") from None
    except (RuntimeError, NotImplementedError) as error:  # zipfile's words for encryption and unknown compression
        raise ReadError(file, str(error)) from None


def read_exact(file: object, stream: IO[bytes], count: int) -> bytearray:
    """Exactly `count` bytes, in a buffer that arrays may write to; fewer is a `ReadError`."""
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise ReadError(file, f"is cut short: {count:,} more bytes were promised and {done:,} are there")
        done += got
    return data


def read_whole(file: object, stream: IO[bytes], layout: Layout, limit: int = MAX_ITEM) -> np.ndarray:
    """The whole array."""
    if layout.nbytes > limit:
        raise ReadError(file, f"is an array of {layout.nbytes:,} bytes; at most {limit:,} are read at once")
    array = np.frombuffer(read_exact(file, stream, layout.nbytes), layout.dtype)
    return array.reshape(layout.shape, order="F" if layout.fortran else "C")


def read_blocks(file: object, stream: IO[bytes], layout: Layout) -> Iterator[np.ndarray]:
    """Blocks (n, *item) that follow each other along the first axis."""
    if layout.fortran:  # items are strewn over the whole file
        yield read_whole(file, stream, layout)
        return
    count, item = layout.shape[0], layout.shape[1:]
    size = prod(item) * layout.dtype.itemsize
    if size > MAX_ITEM:
        raise ReadError(file, f"has items of {size:,} bytes; at most {MAX_ITEM:,} are read")
    step = max(1, BLOCK // size)
    for start in range(0, count, step):
        here = min(step, count - start)
        yield np.frombuffer(read_exact(file, stream, here * size), layout.dtype).reshape(here, *item)


def check_layout(file: object, layout: Layout) -> None:
    """Refuse what is no array of numbers, or has none."""
    kind, shape = layout.dtype.kind, layout.shape
    if layout.dtype.hasobject:
        raise ReadError(
            file,
            "holds Python objects (dtype object), which are pickled and could run code when loaded; "
            "save numbers with a numeric dtype, and names with array.astype(str)",
        )
    if kind == "c":
        raise ReadError(file, "holds complex numbers; save the real and imaginary parts as two channels")
    if kind not in "biuf":
        raise ReadError(file, f"holds {layout.dtype} values; numbers are wanted (integers, floats or booleans)")
    if any(size < 0 for size in shape):
        raise ReadError(file, f"declares an impossible shape {shape}")
    if not shape:
        raise ReadError(file, "holds a single number, not an array of items")
    if 0 in shape:
        raise ReadError(file, f"is empty: its shape is {shape}")


def target_dtype(layout: Layout, blocks: Callable[[], Iterable[np.ndarray]]) -> np.dtype:
    """The smallest type that keeps an array's values: uint8, uint16, int16 or float32, the same for all its items.

    Integers of 32 and 64 bits are looked through once: uint8 when all are within 0 to 255, else float32 (exact up to
    16,777,216). Floats become float32.
    """
    kind, bits = layout.dtype.kind, layout.dtype.itemsize * 8
    if kind == "b":
        return np.dtype(np.uint8)
    if kind in "iu" and bits <= 16:
        return np.dtype({"u8": np.uint8, "i8": np.int16, "u16": np.uint16, "i16": np.int16}[f"{kind}{bits}"])
    if kind in "iu" and all(block.min() >= 0 and block.max() <= 255 for block in blocks()):
        return np.dtype(np.uint8)
    return np.dtype(np.float32)


def convert(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`array` as `dtype`; a float64 beyond float32 becomes infinite, which the caller counts."""
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)


def not_finite(bad: int, of: int) -> str:
    """The words for values that are no numbers."""
    return f"{bad:,} of {of:,} values {'is' if bad == 1 else 'are'} NaN or infinite"


def item_axes(file: object, layout: Layout, axes: str | None) -> tuple[bool, str]:
    """Whether the array holds many items, and one item's axes; what does not fit is a `ReadError`."""
    try:
        return stack_axes(axes, layout.shape, layout.dtype)
    except UsageError as error:
        raise ReadError(file, str(error)) from None


def single(file: object, array: np.ndarray, axes: str | None) -> Sample:
    """The whole array as one item."""
    try:
        _, letters = stack_axes(axes and axes.upper().removeprefix("N"), (1, *array.shape), array.dtype)
    except UsageError as error:
        raise ReadError(file, str(error)) from None
    array = convert(array, target_dtype(Layout(array.shape, array.dtype), lambda: [array]))
    if bad := array.size - np.count_nonzero(np.isfinite(array)):
        raise ReadError(file, not_finite(int(bad), array.size))
    return Sample(channels_first(array, letters), str(file))


def samples(
    path: str,
    blocks: Iterable[np.ndarray],
    axes: str,
    dtype: np.dtype,
    labels: Labels | None,
    split: str | None,
    sizes: np.ndarray | None = None,
) -> Iterator[Sample | ReadError]:
    """The items of all blocks, called `path[i]`; one with NaN or infinite values, or without its label, is an error.

    `sizes` (n, ndim) from `read_sizes` are those of items that are padded to the array's: what lies beyond is not read.
    """
    index = 0
    for block in blocks:
        block = convert(block, dtype)
        bad = None
        if dtype.kind == "f" and not (finite := np.isfinite(block)).all():
            bad = (~finite).reshape(len(block), -1).sum(1)
        for i, item in enumerate(channels_first(block, axes, stacked=True)):
            name = f"{path}[{index}]"
            label = None if labels is None else labels.texts[index]
            size, index = None if sizes is None else sizes[index], index + 1
            if size is not None:
                if (size < 1).any() or (size > item.shape[1:]).any():
                    have, said = ("x".join(map(str, each)) for each in (item.shape[1:], size.tolist()))
                    yield ReadError(name, f"its length is {said}, and the array has {have} cells an item")
                    continue
                item = item[(slice(None), *map(slice, size))]
                if bad is not None and bad[i]:  # perhaps in its padding alone
                    bad[i] = item.size - np.count_nonzero(np.isfinite(item))
            if bad is not None and bad[i]:
                yield ReadError(name, not_finite(int(bad[i]), item.size))
            elif labels is not None and label is None:
                yield ReadError(name, "its label is missing (NaN or empty)")
            else:
                yield Sample(item, name, label, split, column=None if labels is None else labels.column)


def read_sizes(file: object, array: np.ndarray, count: int, ndim: int) -> np.ndarray:
    """(n, ndim) int64: the cells that items have along each axis, from an array of lengths."""
    wanted = f"({count},)" if ndim == 1 else f"({count}, {ndim}): the cells along each axis"
    if array.shape not in ((count, ndim), *([(count,)] if ndim == 1 else [])):
        raise ReadError(file, f"lengths have shape {array.shape}; what is wanted is {wanted}")
    if array.dtype.kind not in "iuf" or not (array == np.floor(array)).all():
        raise ReadError(file, f"lengths are whole numbers of cells, not values of type {array.dtype}")
    return array.astype(np.int64).reshape(count, ndim)


def key_role(key: str) -> tuple[str, str | None, int] | None:
    """What an array's name says: ("data", "labels" or "lengths", split, rank; lower is more likely), None when nothing.

    `x_train`, `train_images`, `X`, `data` are data; `y_test`, `val_labels`, `target` labels; `lengths_train` and
    `x_lengths` lengths.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", key.lower()) if word]
    splits = [SPLITS[word] for word in words if word in SPLITS]
    rest = [word for word in words if word not in SPLITS]
    if len(rest) == 2 and rest[0] in DATA_WORDS and rest[1] in LENGTH_WORDS:
        rest = rest[1:]
    if len(splits) > 1 or len(rest) > 1 or not words:
        return None
    split = splits[0] if splits else None
    if not rest:  # `train` beside `train_labels`
        return "data", split, len(DATA_WORDS)
    for role, known in (("data", DATA_WORDS), ("labels", LABEL_WORDS), ("lengths", LENGTH_WORDS)):
        if rest[0] in known:
            return role, split, known.index(rest[0])
    return None
