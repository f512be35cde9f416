"""Every file of the nasty bank gives its array, or a `ReadError` with its path and words a user can act on.

Names that are not UTF-8 go through a whole run.
"""

import io
import json
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import nasty
from gridsight.__main__ import main
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


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_names_that_are_not_utf8_go_through_a_whole_run(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Latin-1 disks have them: the run ends, can be resumed and repeated, and answers with the same names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))
    data = tmp_path / os.fsdecode(b"ph\xe9")
    try:
        data.mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    rng = np.random.default_rng(0)
    for low, name in enumerate((b"caf\xe9", "thé".encode())):
        folder = data / os.fsdecode(name)
        folder.mkdir()
        for i in range(20):
            pixels = rng.integers(120 * low, 120 * low + 120, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / os.fsdecode(b"%d\xff.png" % i))
    if form == "tar":
        with tarfile.open(tmp_path / "photos.tar", "w") as archive:
            archive.add(data, "photos")
        data = tmp_path / "photos.tar"
    classes = {os.fsdecode(b"caf\xe9"), "thé"}
    assert main(["train", str(data), "--out", "run", "--epochs", "1", "--model", "simple_cnn", "--json"]) == 0
    result = json.loads(Path("run/result.json").read_text(encoding="utf-8"))
    assert set(json.loads(Path("run/plan.json").read_text(encoding="utf-8"))["spec"]["classes"]) == classes
    assert "caf\N{REPLACEMENT CHARACTER}" in Path("run/report.html").read_text(encoding="utf-8")

    Path("run/result.json").unlink()
    capsys.readouterr()
    assert main(["resume", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "utf-8", "strict", write_through=True))
    assert main(["predict", "run", str(data), "--json"]) == 0
    answers = [json.loads(line) for line in sys.stdout.buffer.getvalue().decode().splitlines()]  # type: ignore[attr-defined]
    assert [set(answer["probabilities"]) for answer in answers] == [classes] * 40
    if form == "folder":
        assert {answer["path"] for answer in answers} == {str(path) for path in data.glob("*/*")}
        # the settings of a run are those of another: they do not name its folder
        assert main(["train", "--settings", "run/settings.toml", "--seed", "1", "--no-report"]) == 0
        (again,) = Path("runs").iterdir()
        assert json.loads((again / "result.json").read_text(encoding="utf-8"))["n"] == result["n"]
