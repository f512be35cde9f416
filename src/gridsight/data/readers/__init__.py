"""Every file format, one a file, and the contract they keep."""

from collections.abc import Iterator
from pathlib import Path

from gridsight.core.registry import Registry
from gridsight.data.files import File
from gridsight.data.sample import Header, Sample

READERS = Registry("reader", "gridsight.data.readers")


class Reader:
    """One format. Register with `suffixes`, `ndims`, and `many`: True when a file holds many items with their labels.

    `version` is part of the cache key: raise it when the same file gives other arrays. Whatever is wrong with a file
    is a `ReadError` that names it; nothing in a file is ever executed, and sizes it declares are bounded before use.
    """

    version = 1

    def sniff(self, file: File, head: bytes) -> bool:
        """Whether the file is of this format, from its first 512 bytes and its name."""
        raise NotImplementedError

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample]:
        """Every item of the file. `axes` overrides a guessed order of array axes, such as "NCL" or "NHWC"."""
        raise NotImplementedError

    def probe(self, file: File, axes: str | None = None) -> Header:
        """Shape and type without decoding where the format allows it; the default reads the file."""
        samples = list(self.read(file, axes))
        first = samples[0].array
        return Header(first.shape[0], first.shape[1:], first.dtype.name, samples[0].rate, len(samples))

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        """Write small examples into `folder`; each file with the samples that reading it must give back."""
        raise NotImplementedError


def find_reader(file: File) -> tuple[str, Reader] | None:
    """The reader whose `sniff` accepts the file, with its registered name; None when no format is known."""
    head = file.head()
    suffix_first = sorted(
        READERS.entries(), key=lambda entry: not file.name.lower().endswith(tuple(entry.tags["suffixes"]))
    )
    for entry in suffix_first:
        reader: Reader = entry.item()
        if reader.sniff(file, head):
            return entry.name, reader
    return None
