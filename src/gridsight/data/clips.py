"""Clips: one item (C, T, H, W) from the pictures in a folder, in natural order, or from an animated picture.

Frames are decoded when their clip is read, never before. They are of one size and type; gray frames among coloured ones
are repeated to three channels. A clip is one item, so it is never on two sides of a split; clips that were cut from one
recording are kept together by a pattern and a group.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data.files import File

MAX_BYTES = 1 << 30  # of one clip
MAX_FRAMES = 100_000


def read_frames(folder: File, frames: Sequence[File], read: Callable[[File], np.ndarray]) -> np.ndarray:
    """(C, T, H, W) of frames that `read` gives as (C, H, W)."""
    if len(frames) > MAX_FRAMES:
        raise ReadError(folder, f"holds {len(frames):,} frames; at most {MAX_FRAMES:,} are read")
    out: np.ndarray | None = None
    for i, frame in enumerate(frames):
        array = read(frame)
        if out is None:
            out = _room(folder, len(frames), array)
        if array.shape[1:] != out.shape[2:] or array.dtype != out.dtype:
            raise ReadError(
                folder,
                f"its frames differ: {frame.name} is {_words(array)}, and {frames[0].name} is {_words(out[:, 0])}",
            )
        if {len(array), len(out)} == {1, 3} and len(array) > len(out):
            out = np.repeat(out, 3, 0)
        if len(array) not in (1, len(out)):
            raise ReadError(folder, f"its frames differ: {frame.name} has {len(array)} channels, others {len(out)}")
        out[:, i] = array
    if out is None:
        raise ReadError(folder, "is a folder without frames")
    return out


def read_animation(file: File, picture: Any, frame: Callable[[Any], np.ndarray | None]) -> np.ndarray:
    """(C, T, H, W) of a picture that Pillow has opened; `frame` gives what it shows now as (C, H, W)."""
    count = getattr(picture, "n_frames", 1)
    if count > MAX_FRAMES:
        raise ReadError(file, f"holds {count:,} frames; at most {MAX_FRAMES:,} are read")
    width, height = picture.size
    _check(file, count, 3 * width * height)
    out = np.empty((3, count, height, width), np.uint8)
    for i, array in enumerate(_shown(file, picture, count, frame)):
        out[:, i] = array  # gray is repeated
    gray = bool((out[0] == out[1]).all() and (out[0] == out[2]).all())
    return out[:1] if gray else out


def _shown(file: File, picture: Any, count: int, frame: Callable[[Any], np.ndarray | None]) -> Iterator[np.ndarray]:
    for i in range(count):
        picture.seek(i)
        array = frame(picture)
        if array is None:
            raise ReadError(file, f"has the colour mode {picture.mode}, which is not read")
        yield array


def all_animated(files: Sequence[File], animated: Callable[[File], bool]) -> tuple[bool, str]:
    """Whether every file is an animated picture; if only the first ones are, the words to say so."""
    found = False
    for file in files:
        try:
            if not animated(file):
                words = f"of animated pictures the first frame is taken, because {file} is a still one"
                return False, words if found else ""
        except ReadError:
            continue  # decoding will name it
        found = True
    return found, ""


def _room(folder: File, count: int, first: np.ndarray) -> np.ndarray:
    _check(folder, count, 3 * first[0].nbytes if len(first) == 1 else first.nbytes)
    return np.empty((first.shape[0], count, *first.shape[1:]), first.dtype)


def _check(file: File, count: int, each: int) -> None:
    if count * each > MAX_BYTES:
        raise ReadError(
            file, f"is a clip of {count:,} frames, {count * each:,} bytes decoded; at most {MAX_BYTES:,} are read"
        )


def _words(array: np.ndarray) -> str:
    return f"{array.shape[-1]} x {array.shape[-2]} {array.dtype}"
