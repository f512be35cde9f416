"""Reading ahead from memory-mapped files: the right bytes are asked for, and the values are what they were."""

import mmap
import sys

import numpy as np
import pytest

from gridsight.data import paging
from gridsight.data.loader import Loader
from gridsight.data.ragged import Ragged


class Mapping:
    """Stands for the mapping of an array and notes what the kernel is told."""

    def __init__(self, size: int) -> None:
        self.size, self.told = size, []

    def __len__(self) -> int:
        return self.size

    def madvise(self, *what: int) -> None:
        self.told.append(what)


class Mapped(np.ndarray):
    """An array that claims to be mapped."""

    _mmap: Mapping


@pytest.fixture
def arrays(monkeypatch):
    monkeypatch.setattr(paging, "LARGE", 0)
    monkeypatch.setattr(paging, "_in_memory", lambda address: False)
    rng = np.random.default_rng(0)
    even = rng.integers(0, 60000, (50, 3, 20, 30), dtype=np.uint16)
    sizes = rng.integers(20, 60, (40, 2))
    flat = rng.integers(0, 255, int(2 * sizes.prod(1).sum()), dtype=np.uint8)
    return even, flat, sizes


def test_the_bytes_of_each_item_are_asked_for_from_the_start_of_their_page(arrays):
    even, flat, sizes = arrays
    for whole in (even, flat):
        mapped = whole.view(Mapped)
        mapped._mmap = Mapping(whole.nbytes)
        x = mapped if whole is even else Ragged(mapped, 2, sizes)
        rows = np.array([7, 0, 39])
        paging.expect(x, rows)
        assert mapped._mmap.told[0] == (mmap.MADV_RANDOM,)
        content = whole.tobytes()
        for row, (advice, start, length) in zip(rows, mapped._mmap.told[1:], strict=True):
            assert advice == mmap.MADV_WILLNEED and start % mmap.PAGESIZE == 0
            item = np.asarray(x[int(row)]).tobytes()
            assert content[start : start + length].endswith(item) and length < len(item) + mmap.PAGESIZE


def test_small_files_arrays_and_views_are_left_alone(arrays, tmp_path, monkeypatch):
    even, _, _ = arrays
    even.tofile(tmp_path / "x.bin")
    x = np.memmap(tmp_path / "x.bin", np.uint16, "r", shape=even.shape)
    order = np.arange(50)
    for source in (even, x, x[10:]):  # a view does not start where its file does
        y = np.zeros(len(source), np.int64)
        for workers in (0, 2):
            read = [batch.x.numpy() for batch in Loader(source, y, order[: len(source)], 16, workers).in_order()]
            assert (np.concatenate(read) == source).all()
    monkeypatch.setattr(paging, "LARGE", even.nbytes + 1)
    mapped = even.view(Mapped)
    mapped._mmap = Mapping(even.nbytes)
    paging.expect(mapped, order)
    assert mapped._mmap.told == []


def test_what_is_in_memory_is_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(paging, "LARGE", 0)
    x = np.zeros((50, 4096), np.uint8)
    mapped = x.view(Mapped)
    mapped._mmap = Mapping(x.nbytes)
    x[:] = 1
    paging.expect(mapped, np.arange(50))
    assert mapped._mmap.told == []
    if sys.platform == "linux":
        fresh = np.frombuffer(mmap.mmap(-1, 1 << 20), np.uint8)  # never touched, so not there
        page = fresh.ctypes.data
        assert not paging._in_memory(page) and paging._in_memory(x.ctypes.data + 4096)
