"""Every file format, one a file, and the contract they keep."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gridsight.core.errors import ReadError
from gridsight.core.registry import Registry
from gridsight.data.files import File, is_tar, is_zip
from gridsight.data.sample import Header, Sample

READERS = Registry("reader", "gridsight.data.readers")


class Reader:
    """One format. Register with `suffixes`, `ndims`, and `many`: True when a file holds many items with their labels.

    A format that cannot tell a file that was cut short between two items from a whole one says why with `truncated`.
    Samples' arrays may be views that are not contiguous and share memory with other samples: never write to them.
    `version` is part of the cache key: raise it when the same file gives other arrays. Whatever is wrong with a file
    is a `ReadError` that names it; nothing in a file is ever executed, and sizes it declares are bounded before use.
    """

    version = 1

    def sniff(self, file: File, head: bytes) -> bool:
        """Whether the file is of this format, from its first 512 bytes and its name."""
        raise NotImplementedError

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        """Every item of the file; one bad item of many is yielded as a `ReadError`, a bad file raises it.

        `axes` overrides a guessed order of array axes, such as "NCL" or "NHWC".
        """
        raise NotImplementedError

    def read_single(self, file: File, axes: str | None = None) -> Sample:
        """The file as one item, as when its label comes from its folder or its name; of several it is a `ReadError`."""
        samples = list(islice(self.read(file, axes), 2))
        if len(samples) != 1:
            raise ReadError(file, "holds several items where one is wanted" if samples else "holds no items")
        if isinstance(samples[0], ReadError):
            raise samples[0]
        return samples[0]

    def read_as(self, file: File, ndim: int, channels: int, axes: str | None = None) -> Iterator[Sample | ReadError]:
        """Every item of a file that is to be predicted by a model of `ndim` axes and `channels` channels.

        `axes` are those that the model's training data were told to have.
        """
        yield from self.read(file)

    def fitting(self, spatial: tuple[int, ...]) -> "Reader":
        """The reader of pictures that will be brought to `spatial`: it may give them smaller than they are, at least
        twice that size, where it thereby decodes them in less time."""
        return self

    def probe(self, file: File, axes: str | None = None) -> Header:
        """Shape and type of a file that is one item, without decoding where the format allows it."""
        return Header.of(self.read_single(file, axes))

    def headers(self, file: File, axes: str | None = None) -> Iterator[Header]:
        """The headers of a file of many items; a format that knows them without decoding need not decode."""
        yield from (Header.of(sample) for sample in self.read(file, axes) if isinstance(sample, Sample))

    def in_series(self, file: File) -> bool:
        """Whether the file is a part of an item that fills its folder (the slices of a volume).

        Then `read_single` and `probe` are given the folder.
        """
        return False

    def are_frames(self, folder: File) -> bool:
        """Whether the files of a folder can be the frames of one clip; `read_single` is given the folder."""
        return False

    def columns(self, file: File) -> tuple[str, ...]:
        """Columns besides label and split that the items of a file of many have: `group` where they say theirs."""
        return ()

    def beside(self, file: File) -> tuple[File, ...]:
        """Files that are read with this one and are no items themselves: the values that belong to a header."""
        return ()

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        """Write small examples into `folder`; each file with the samples that reading it must give back."""
        raise NotImplementedError


def find_reader(file: File) -> tuple[str, Reader] | None:
    """The reader whose `sniff` accepts the file, with its registered name; None when no format is known."""
    head = file.head()
    if not head:
        raise ReadError(file, "is empty (0 bytes)")
    suffix_first = sorted(
        READERS.entries(), key=lambda entry: not file.name.lower().endswith(tuple(entry.tags["suffixes"]))
    )
    for entry in suffix_first:
        reader: Reader = entry.item()
        if reader.sniff(file, head):
            return entry.name, reader
    return None


def is_archive(path: Path) -> bool:
    """Whether `path` is an archive to look into; one that a reader knows as a whole (CIFAR's) is a file."""
    if is_zip(path):
        return True
    try:
        return is_tar(path) and find_reader(File(path)) is None
    except ReadError:
        return False


def missing(file: object, package: str, extra: str) -> ReadError:
    """The error where an optional package is needed that is not installed."""
    return ReadError(file, f'needs the package {package}, which is not installed; pip install "gridsight[{extra}]"')
