"""Training on patches: each is a function of (seed, epoch, number), read in place; answers are about whole items."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gridsight.__main__ import main
from gridsight.artifact.predictor import load
from gridsight.data.loader import Loader
from gridsight.data.ragged import Ragged, cut, gather, stack


def ragged(sizes: list[tuple[int, int]], channels: int = 2) -> Ragged:
    rng = np.random.default_rng(0)
    flat = rng.integers(1, 255, sum(channels * h * w for h, w in sizes)).astype(np.uint8)
    return Ragged(flat, channels, np.array(sizes))


def test_ragged_items_are_views_of_the_flat_array() -> None:
    x = ragged([(3, 4), (5, 2), (1, 1)])
    assert [item.shape for item in (x[0], x[1], x[2])] == [(2, 3, 4), (2, 5, 2), (2, 1, 1)]
    assert np.array_equal(np.concatenate([x[i].ravel() for i in range(3)]), x.flat)
    padded, sizes = gather(x, [2, 0])
    assert padded.shape == (2, 2, 3, 4) and sizes.tolist() == [[1, 1], [3, 4]]
    assert np.array_equal(padded[1], x[0]) and padded[0].sum() == x[2].sum()
    fixed, none = gather(x, [1], (3, 3))
    assert none is None and np.array_equal(fixed[0, :, :, :2], x[1][:, 1:4]) and not fixed[0, :, :, 2].any()


def test_a_patch_lies_inside_and_every_place_is_met() -> None:
    x = ragged([(6, 3)])
    seen = set()
    for share in np.linspace(0, 1, 41):
        patch = cut(x, [0], (4, 2), np.array([[share, 1 - share]]))[0]
        found = [(r, c) for r in range(3) for c in range(2) if np.array_equal(patch, x[0][:, r : r + 4, c : c + 2])]
        assert len(found) == 1
        seen |= set(found)
    assert {r for r, _ in seen} == {0, 1, 2} and {c for _, c in seen} == {0, 1}
    small = cut(x, [0], (8, 2), np.array([[0.9, 0.0]]))[0]
    assert np.array_equal(small[:, :6], x[0][:, :, :2]) and not small[:, 6:].any()


def test_an_epoch_cuts_each_item_so_often_each_time_elsewhere() -> None:
    x = ragged([(20, 20), (31, 12), (9, 40)])
    loader = Loader(x, np.arange(3), np.array([0, 2]), 4, patch=(5, 5), repeats=6)
    batches = list(loader.epoch(seed=1, epoch=0))
    assert len(batches) == len(loader) == 3
    numbers = torch.cat([batch.items for batch in batches])
    assert sorted(numbers.tolist()) == sorted(i + 3 * visit for visit in range(6) for i in (0, 2))
    assert torch.cat([batch.y for batch in batches]).tolist() == (numbers % 3).tolist()
    patches = {int(n): x.numpy() for batch in batches for n, x in zip(batch.items, batch.x, strict=True)}
    assert len({patch.tobytes() for patch in patches.values()}) > 8
    # the same for any batch size, start and number of workers; others in another epoch
    again = [b for size in (5,) for b in Loader(x, np.arange(3), np.array([0, 2]), size, 2, patch=(5, 5), repeats=6)
             .epoch(1, 0)]  # fmt: skip
    for batch in again:
        for number, patch in zip(batch.items, batch.x, strict=True):
            assert np.array_equal(patch.numpy(), patches[int(number)])
    other = {int(n): p.numpy() for b in loader.epoch(1, 1) for n, p in zip(b.items, b.x, strict=True)}
    assert sum(not np.array_equal(other[n], patches[n]) for n in patches) > 8
    middle = next(loader.in_order())
    assert np.array_equal(middle.x[0].numpy(), x[0][:, 8:13, 8:13])


def test_stack_cuts_the_middle_of_what_is_longer() -> None:
    item = np.arange(10)[None]
    assert stack([item], (4,))[0].tolist() == [[[3, 4, 5, 6]]]


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of many sizes whose class is the direction of fine stripes: shrunk to a few cells it would be lost."""
    folder = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(0)
    for name, axis in (("across", 0), ("along", 1)):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(12):
            h, w = rng.integers(60, 130, 2)
            wave = np.sin(2 * np.pi * np.mgrid[:h, :w][axis] / 4 + rng.uniform(0, 6))
            picture = (128 + 60 * wave + rng.normal(0, 20, (h, w))).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / "data" / name / f"{i}.png")
    return folder


def test_the_command_trains_on_patches_and_answers_about_whole_pictures(
    textures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = textures / "run"
    words = ["train", str(textures / "data"), "--patch", "16", "--epochs", "2", "--out", str(run), "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["metrics"]["accuracy"]["value"] == 1.0
    assert "patches of 16x16" in captured.err and "middle patch" not in captured.err  # there is no validation
    plan = json.loads((run / "plan.json").read_text())
    assert plan["repeats"] > 10 and plan["spec"]["fit"] == "patch"
    assert main(["eval", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]
    picture = textures / "data" / "along" / "3.png"
    assert main(["predict", str(run), str(picture), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["label"] == "along"
    # what it says of the whole picture is what one pass over it gives
    predictor = load(run)
    x = torch.from_numpy(np.array(Image.open(picture)))[None, None]
    with torch.no_grad():
        logits = predictor.net(predictor.front(x)).numpy()
    expected = predictor.task.predict(logits, predictor.model.calibration)["probabilities"]
    assert answer["probabilities"]["along"] == pytest.approx(expected[0, 1], abs=1e-5)


def test_the_plan_says_what_epochs_are_compared_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    parts = {"train": 16, "val": 8, "test": 8}
    arrays = {f"x_{name}": rng.normal(size=(n, 1, 32)).astype(np.float32) for name, n in parts.items()}
    np.savez("a.npz", **arrays, **{f"y_{name}": np.arange(n) % 2 for name, n in parts.items()})
    words = ["train", "a.npz", "--axes", "NCL", "--patch", "16", "--epochs", "1", "--no-report"]
    assert main(words) == 0
    assert "compared by the middle patch of each validation item" in capsys.readouterr().out


def test_patch_and_size_exclude_each_other(textures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(textures / "data"), "--patch", "16", "--size", "32"]) == 2
    assert "--patch keeps items at their own size" in capsys.readouterr().err
