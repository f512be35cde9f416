"""The contract of every reader: its own examples come back, hostile and broken ones give `ReadError` with the path."""

import pickle
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gridsight.core.errors import ReadError
from gridsight.core.registry import Entry
from gridsight.data.files import File
from gridsight.data.readers import READERS, Reader, find_reader
from gridsight.data.sample import Sample

ENTRIES = READERS.entries()
Example = tuple[Path, list[Sample]]

pytestmark = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def reader(entry: Entry) -> Reader:
    return entry.item()


def examples(entry: Entry, folder: Path) -> list[Example]:
    folder.mkdir(exist_ok=True)
    found = reader(entry).write_example(folder)
    assert found and all(path.is_file() and samples for path, samples in found)
    return found


def assert_same(got: Any, wanted: Sample, *, path: str | None = None) -> None:
    assert isinstance(got, Sample), got
    assert got.path == (wanted.path if path is None else path)
    assert (got.label, got.split, got.group, got.rate) == (wanted.label, wanted.split, wanted.group, wanted.rate)
    assert got.array.dtype == wanted.array.dtype
    np.testing.assert_array_equal(got.array, wanted.array)


def everything(entry: Entry, file: File) -> list[Sample | ReadError]:
    """All that reading gives, the error of the whole file last; any other exception is a failure."""
    out: list[Sample | ReadError] = []
    try:
        out.extend(reader(entry).read(file))
    except ReadError as error:
        out.append(error)
    return out


def errors(entry: Entry, file: File) -> list[ReadError]:
    """The errors of a file that cannot be right, through each way of reading."""
    found = [error for error in everything(entry, file) if isinstance(error, ReadError)]
    for way in (reader(entry).read_single, reader(entry).probe):
        try:
            way(file)
        except ReadError as error:
            found.append(error)
    assert all(error.path.startswith(str(file)) and error.reason for error in found)
    return found


def test_tags(entry: Entry) -> None:
    assert entry.tags["suffixes"] and all(suffix == suffix.lower() for suffix in entry.tags["suffixes"])
    assert set(entry.tags["ndims"]) <= {1, 2, 3}
    assert isinstance(entry.tags["many"], bool)
    assert reader(entry).version >= 1


def test_round_trip(entry: Entry, tmp_path: Path) -> None:
    for path, wanted in examples(entry, tmp_path):
        got = list(reader(entry).read(File(path)))
        assert len(got) == len(wanted), path
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
            assert one.array.dtype.name in ("uint8", "uint16", "int16", "float32")


def test_probe_says_what_reading_gives(entry: Entry, tmp_path: Path) -> None:
    for path, wanted in examples(entry, tmp_path):
        if len(wanted) == 1:
            header, array = reader(entry).probe(File(path)), reader(entry).read_single(File(path)).array
            assert (header.channels, *header.spatial) == array.shape
            assert (header.dtype, header.rate) == (array.dtype.name, wanted[0].rate)


def test_many_items_are_not_one(entry: Entry, tmp_path: Path) -> None:
    """A file of several items never gives just its first where one item is wanted."""
    for path, wanted in examples(entry, tmp_path):
        if len(wanted) > 1:
            try:
                single = reader(entry).read_single(File(path))
            except ReadError:
                continue
            assert single.array.size >= sum(sample.array.size for sample in wanted)


def test_sniff_takes_its_own_and_no_other(entry: Entry, tmp_path: Path) -> None:
    for other in ENTRIES:
        for path, _ in examples(other, tmp_path / other.name):
            file = File(path)
            assert reader(entry).sniff(file, file.head()) == (other.name == entry.name), path.name
            if other.name == entry.name:
                found = find_reader(file)
                assert found is not None and found[0] == entry.name
    for other in (b"", b"x", b"plain text\n" * 50, bytes(512), bytes(range(256)) * 2, b"PK\x05\x06" + bytes(18)):
        path = tmp_path / "unknown"
        path.write_bytes(other)
        assert not reader(entry).sniff(File(path), other)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_same_from_within_a_zip(entry: Entry, method: int, tmp_path: Path) -> None:
    found = examples(entry, tmp_path / "out")
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w", method) as out:
        for path in sorted((tmp_path / "out").iterdir()):
            out.write(path, f"in here/{path.name}")
    for path, wanted in found:
        file = File(archive, f"in here/{path.name}")
        assert reader(entry).sniff(file, file.head())
        got = list(reader(entry).read(file))
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other, path=other.path.replace(str(path), str(file)))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.8, 0.95, -1])
def test_cut_short(entry: Entry, share: float, tmp_path: Path) -> None:
    """No length gives other samples than the whole file's first ones, and an error says that something is missing."""
    for path, wanted in examples(entry, tmp_path):
        data = path.read_bytes()
        path.write_bytes(data[: -1 if share < 0 else max(1, int(share * len(data)))])
        got = everything(entry, File(path))
        for one, other in zip(got, wanted, strict=False):
            if isinstance(one, Sample):
                assert_same(one, other)
        assert sum(isinstance(one, Sample) for one in got) <= len(wanted)
        if 0 < share < 0.9 and "truncated" not in entry.tags:
            assert isinstance(got[-1], ReadError), path.name
            assert str(path) in str(got[-1])


def test_empty_garbage_and_missing(entry: Entry, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for path, _ in examples(entry, tmp_path):
        start = path.read_bytes()[:16]
        for data in (b"", b"\0", bytes(5000), rng.bytes(5000), b"not this format\n" * 99, start):
            path.write_bytes(data)
            assert errors(entry, File(path)), (path.name, data[:20])
        path.write_bytes(start + rng.bytes(5000))
        everything(entry, File(path))  # right by chance where values are stored plainly; never another exception
        path.unlink()
        assert errors(entry, File(path))
        path.mkdir()
        assert errors(entry, File(path))
        path.rmdir()


def test_flipped_bytes(entry: Entry, tmp_path: Path) -> None:
    """Whatever is flipped, only samples and `ReadError`s come, and never more than twice the items."""
    rng = np.random.default_rng(0)
    for path, wanted in examples(entry, tmp_path):
        data = path.read_bytes()
        for i in range(40):
            changed = bytearray(data)
            for _ in range(1 + i % 3):
                place = rng.integers(min(len(data), 64) if i % 2 else len(data))
                changed[place] = rng.integers(256)
            path.write_bytes(changed)
            assert len(everything(entry, File(path))) <= 2 * len(wanted) + 2
        path.write_bytes(data)


class Trap:
    """Unpickling this creates the file `mark`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.mark), "w")


def test_nothing_is_executed(entry: Entry, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(Trap(mark), protocol)
        for path, _ in examples(entry, tmp_path / "out"):
            path.write_bytes(data)
            assert errors(entry, File(path))
    assert not mark.exists()


def test_threads(entry: Entry, tmp_path: Path) -> None:
    found = examples(entry, tmp_path)

    def work(_: int) -> Iterator[tuple[Sample | ReadError, Sample]]:
        return iter([pair for p, w in found for pair in zip(everything(entry, File(p)), w, strict=True)])

    with ThreadPoolExecutor(4) as pool:
        for pairs in pool.map(work, range(16)):
            for got, wanted in pairs:
                assert_same(got, wanted)
