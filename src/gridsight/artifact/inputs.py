"""What `predict` takes: paths of files, folders, archives and tables, arrays, and lists of these, as samples.

The model's DataSpec says what one item is where a file leaves it open: a (28, 28) array is one picture, (10, 28, 28)
ten; the still pictures of a folder are the frames of one clip where items have three axes. What cannot be read is a
`ReadError` in its place, and the others go on.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gridsight.core.errors import GridsightError, ReadError, UsageError
from gridsight.data import rows
from gridsight.data.axes import match_axes, stack_axes
from gridsight.data.conform import is_resized
from gridsight.data.files import File, exists, walk
from gridsight.data.manifest import listed_files
from gridsight.data.readers import READERS, find_reader, is_archive
from gridsight.data.sample import Sample
from gridsight.data.series import folder_of
from gridsight.data.spec import DataSpec
from gridsight.data.table import Table


def read_inputs(inputs: Any, spec: DataSpec) -> Iterator[Sample | ReadError]:
    """Samples of whatever `predict` accepts."""
    if isinstance(inputs, str | Path):
        yield from read_path(Path(inputs), spec)
    elif isinstance(inputs, np.ndarray) or torch.is_tensor(inputs):
        yield from _read_array(np.asarray(inputs), spec)
    elif isinstance(inputs, Iterable):
        for item in inputs:
            yield from read_inputs(item, spec)
    else:
        raise UsageError(f"predict takes paths and arrays, not {type(inputs).__name__}")


def read_path(path: Path, spec: DataSpec) -> Iterator[Sample | ReadError]:
    """Every item of a file, folder, archive or table of files; a file of an unknown format gives a `ReadError`."""
    if not exists(path):
        yield ReadError(path, "there is no such file or folder")
        return
    empty, taken = True, set[File]()
    try:
        for file in _files(path):
            empty = False
            if isinstance(file, ReadError):
                yield file
            elif file not in taken:  # else it was read with another
                try:
                    yield from _samples(file, file.member is not None or file.path != path, spec, taken)
                except GridsightError as error:
                    yield error if isinstance(error, ReadError) else ReadError(file, str(error))
    except ReadError as error:
        yield error
    else:
        if empty:
            yield ReadError(path, "is a folder without files")


def _files(path: Path) -> Iterator[File | ReadError]:
    """The files of a folder or archive, those that a table lists, or the one file."""
    if path.is_dir() or is_archive(path):
        yield from walk(path)
        return
    file = File(path, None, path.parent)
    listed = listed_files(file)
    if listed is None:
        yield file
    else:
        yield from listed


def _samples(file: File, inside: bool, spec: DataSpec, taken: set[File]) -> Iterator[Sample | ReadError]:
    """The items of one file, or of the folder that it is a part of; `inside`: it was not named by itself."""
    folder = file if file.is_folder else folder_of(file)
    first = next(iter(file.inside()), file) if file.is_folder else file
    found = find_reader(first)
    if found is None:
        yield ReadError(first, "is of no known format")
        return
    reader = found[1].fitting(spec.spatial) if is_resized(spec) else found[1]
    if found[0] == "table":  # whose columns and letters are those of the model
        reader = READERS.create("table", target=_label_column(first, spec), group=spec.group, alphabet=spec.alphabet)
    taken.update(reader.beside(first))
    if file.is_folder or (spec.ndim == 3 and inside and (reader.in_series(first) or reader.are_frames(folder))):
        taken.update(folder.inside())
        yield reader.read_single(folder)
    else:
        yield from reader.read_as(file, spec.ndim, spec.channels, spec.axes)


def _label_column(file: File, spec: DataSpec) -> str | None:
    """The column of a table that held the labels in training; by its place only where there are more than steps."""
    table = Table(file)
    longest = (spec.sizes[1] if spec.sizes else spec.spatial)[0]
    return spec.target if spec.target and (table.named or len(table.names) > longest) else None


def _read_array(array: np.ndarray, spec: DataSpec) -> Iterator[Sample | ReadError]:
    """One item or a stack of them, as the model's axes and channels say."""
    axes = match_axes(array.shape, array.dtype, spec.ndim, spec.channels, spec.axes)
    if axes is None:
        raise UsageError(
            f"an array of shape {array.shape} is neither one item nor a stack of items with {spec.ndim} axes and "
            f"{spec.channels} channels"
        )
    many, letters = stack_axes(axes, array.shape, array.dtype)
    stack = array if many else array[None]
    layout = rows.Layout(stack.shape, stack.dtype)
    rows.check_layout("array", layout)
    yield from rows.samples("array", [stack], letters, rows.target_dtype(layout, lambda: [stack]), None, None)
