"""Every file of the nasty bank gives its array, or a `ReadError` with its path and words a user can act on."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import nasty
from gridsight.core.errors import ReadError
from gridsight.data.files import walk
from gridsight.data.sample import Sample


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> list[nasty.Nasty]:
    return nasty.build(tmp_path_factory.mktemp("bank"))


def problems(item: nasty.Nasty) -> Iterator[str]:
    try:
        got = nasty.outcome(item)
    except Exception as error:
        yield f"a traceback: {error!r}"
        return
    if len(got) != len(item.expected):
        yield f"{len(got)} items where {len(item.expected)} are expected: {[str(g)[:200] for g in got]}"
        return
    for value, wanted in zip(got, item.expected, strict=True):
        if isinstance(value, ReadError):
            if not isinstance(wanted, str):
                yield f"refused: {value}"
            elif wanted not in value.reason.lower():
                yield f"{wanted!r} is not in {value.reason!r}"
            if not value.path.startswith(str(item.path)) and "labels" not in item.what:  # then it may be their file
                yield f"the error's path is {value.path!r}"
            if "\n" in value.reason or not value.reason:
                yield f"not one line: {value.reason!r}"
        elif isinstance(wanted, str):
            yield f"read as {value.array.dtype} {value.array.shape} where an error with {wanted!r} is expected"
        elif value.array.dtype != wanted.dtype or value.array.shape != wanted.shape:
            yield f"{value.array.dtype} {value.array.shape} where {wanted.dtype} {wanted.shape} is expected"
        elif not np.array_equal(value.array, wanted):
            yield f"values differ by up to {np.abs(value.array.astype(float) - wanted).max()}"


def test_every_nasty_file(bank: list[nasty.Nasty]) -> None:
    assert len(bank) >= 150
    wrong = [f"{item.file} ({item.what}): {problem}" for item in bank for problem in problems(item)]
    assert not wrong, "\n".join(wrong)


def test_nothing_was_executed(bank: list[nasty.Nasty]) -> None:
    for item in bank:
        nasty.outcome(item)
    assert not nasty.Ran.mark.exists() and not Path("EXECUTED").exists()
    import pickle

    pickle.loads(pickle.dumps(nasty.Ran())).close()  # the trap works
    assert nasty.Ran.mark.exists()
    nasty.Ran.mark.unlink()


def test_threads_read_what_one_reads(bank: list[nasty.Nasty]) -> None:
    alone = [nasty.outcome(item) for item in bank]
    start = threading.Barrier(4)

    def work(_: int) -> list[list[Sample | ReadError]]:
        start.wait()
        return [nasty.outcome(item) for item in bank]

    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(work, range(4)):
            for item, one, other in zip(bank, alone, together, strict=True):
                assert len(one) == len(other), item
                for a, b in zip(one, other, strict=True):
                    if isinstance(a, ReadError):
                        assert str(a) == str(b)
                    else:
                        assert isinstance(b, Sample)
                        np.testing.assert_array_equal(a.array, b.array)


def test_walking_the_bank_ends(bank: list[nasty.Nasty], tmp_path: Path) -> None:
    places = nasty.folders(tmp_path / "sets")
    assert len(list(walk(places["link loop"]))) == 60
    assert len(list(walk(places["one item"]))) == 60
