"""The report: what the page says equals what the run folder holds, and nothing in it comes from or goes outside."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from gridsight.__main__ import main
from gridsight.core.run import RunFolder
from gridsight.data.spec import DataSpec
from gridsight.measure.calibration import reliability, softmax
from gridsight.measure.metrics import confusion_matrix, per_class
from gridsight.reporting import curves
from gridsight.reporting.contents import load
from gridsight.reporting.figures import Mark, confusion_figure, line_figure, reliability_figure, svg
from gridsight.reporting.page import render, write
from gridsight.reporting.pictures import middle_slices, pixels, show, slice_names, spectrogram, trace
from pages import Page, page

SHAPES = {"image": (12, 10), "series": (60,), "sound": (4000,), "volume": (6, 8, 10)}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{1}",
    "a\x00b\udcff & c\nd",
    "]]>--><!--",
    "猫",
)


def make(
    path: Path,
    kind: str = "image",
    classes: tuple[str, ...] = ("cat", "dog", "owl"),
    channels: int = 1,
    n: int = 120,
    validation: bool = True,
    calibrated: bool = True,
    dtype: str = "uint8",
) -> RunFolder:
    """A run folder with everything that `train` writes, from random numbers."""
    rng = np.random.default_rng(0)
    path.mkdir()
    k = len(classes)
    target = np.arange(n) % k
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), target] += 2
    p = softmax(logits).astype(np.float32)
    wrong = np.flatnonzero(p.argmax(1) != target)
    worst = wrong[np.argsort(-p[wrong].max(1), kind="stable")][:6]
    x = (rng.random((len(worst), channels, *SHAPES[kind])) * 200).astype(dtype)
    np.savez_compressed(
        path / "predictions.npz",
        probabilities=p,
        target=target,
        paths=np.array([f"{classes[t]}/{i}.png" for i, t in enumerate(target)]),
        classes=np.array(classes),
        worst_index=worst,
        worst_x=x,
    )
    confusion = confusion_matrix(p.argmax(1), target, k)
    spec = DataSpec(
        name="birds",
        kind=kind,
        ndim=len(SHAPES[kind]),
        channels=channels,
        spatial=SHAPES[kind],
        dtype=dtype,
        classes=classes,
        rate=8000.0 if kind == "sound" else None,
        counts={"train": tuple(range(700, 700 + k)), "test": tuple(confusion.sum(1).tolist())},
        split="test: 20 % held back",
        notes=("7 items were gray",),
    )
    accuracy = float((p.argmax(1) == target).mean())
    result = {
        "task": "classify",
        "n": n,
        "skipped": 3,
        "metrics": {
            "accuracy": {"value": accuracy, "low": 0.6123, "high": 0.9345},
            "balanced_accuracy": {"value": 0.8111, "low": 0.7, "high": None},
            "roc_auc": {"value": 0.98765, "low": 0.9701, "high": 0.9902},
        },
        "run": str(path),
        "model": str(path / "model.safetensors"),
        "seconds": 75.0,
        "split": "test: 20 % held back, seed 0",
        "test_reads": 2,
        "confusion": confusion.tolist(),
        "per_class": per_class(confusion, classes),
        "calibration": {
            "calibrated": calibrated,
            "temperature": 1.7 if calibrated else 1.0,
            "ece": 0.0312,
            "ece_before": 0.0789,
            "threshold": 0.55 if calibrated else None,
            "coverage": 0.95,
        },
        "bad": ["cat/broken.png: truncated"],
        "duplicates": [{"a": "cat/1.png", "b": "cat/2.png", "splits": ["train", "test"]}],
    }
    rows = [{"event": "epoch", "phase": "calibration 1 of 3", "step": 5, "epoch": 1, "loss": 99.0, "accuracy": 0.0}]
    for epoch in range(1, 6):
        row = {"event": "epoch", "phase": "training", "step": 10 * epoch, "epoch": epoch, "loss": 2 / epoch}
        row |= {"accuracy": 1 - 0.5 / epoch, "lr": 0.1 / epoch, "items_per_second": 10.0, "seconds": 1.0 * epoch}
        rows.append(row | ({"val_loss": 2.1 / epoch, "val_accuracy": 1 - 0.6 / epoch} if validation else {}))
    rows.insert(4, {"event": "resumed", "phase": "training", "step": 25, "text": "resumed at step 25"})
    plan = {
        "model": "gridnet",
        "arguments": {"widths": [8, 16]},
        "parameters": 123_456,
        "macs": 7_654_321,
        "receptive_field": [25, 25],
        "recipe": {"optimizer": "sgd", "augment": [["shift", 0.1], ["flip", 1.0]]},
        "epochs": 5,
        "steps": 50,
        "spec": spec.to_dict(),
        "seconds_expected": 60.0,
        "memory_expected": 3.2e8,
    }
    (path / "result.json").write_text(json.dumps(result))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "plan.json").write_text(json.dumps(plan))
    (path / "environment.json").write_text(json.dumps({"torch": "2.13.0", "processor": "Xeon 9000"}))
    (path / "settings.toml").write_text('data = "birds/"\nseed = 4711\n')
    return RunFolder(path)


def test_numbers_equal_the_inputs(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    result = run.read_json(run.result)
    text = page(run).text
    accuracy = result["metrics"]["accuracy"]["value"]
    assert f"{100 * accuracy:.2f} % of 120 held-back items" in text
    assert "95 % interval: 61.23 % to 93.45 %" in text
    assert f"{120 - round(120 * accuracy)} mistakes" in text
    for stated in (
        "0.9877",  # metrics: value and interval
        "0.9701 to 0.9902",
        "81.11 %",
        "read twice",
        "1 min 15 s (1 min 0 s expected)",
        "123,456",
        "7,654,321",
        "320 MB",
        "shift 0.1; flip 1",
        "Xeon 9000",
        "4,711",
        "7 items were gray",
        "Of all data 3 items could not be used",
        "cat/broken.png: truncated",
        "cat/1.png and cat/2.png (train and test)",
        "temperature of 1.7",
        "3.12 %",
        "7.89 %",
        "step 25: resumed at step 25",
        "12 × 10",
    ):
        assert stated in text, stated
    for index, count in enumerate((700, 701, 702)):
        assert str(count) in text and result["per_class"][index]["class"] in text
    for row in result["per_class"]:
        for name in ("precision", "recall", "specificity", "f1"):
            entry = row[name]
            low, high = 100 * entry["low"], 100 * entry["high"]
            assert f"{100 * entry['value']:.1f} % {low:.1f}–{high:.1f}" in text


def test_confusion_says_every_cell(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    contents = load(run)
    counts, names = contents.confusion, contents.classes
    figure, tips = confusion_figure(counts, names)
    cells = figure.axes[0].patches
    places = [(round(cell.get_y() + 0.5), round(cell.get_x() + 0.5)) for cell in cells]
    assert places == [(i, j) for i in range(3) for j in range(3) if counts[i, j]]
    for (i, j), cell, tip in zip(places, cells, tips, strict=True):
        share = counts[i, j] / counts[i].sum()
        assert cell.get_alpha() == pytest.approx(np.sqrt(share))
        assert f"{counts[i, j]} of {counts[i].sum()} ({100 * share:.1f} %)" in tip
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written[::2] == [str(counts[i, j]) for i, j in places]
    html = render(contents)
    most = max((counts[i, j], i, j) for i, j in places if i != j)[0]
    assert f"It most often takes {contents.confused[0].split('takes ')[1]}" in Page(html).text
    assert f"({most} of " in contents.confused[0]
    assert all(f"<title>{tip}</title>" in html for tip in tips)


def test_training_curves_are_the_rows(tmp_path: Path) -> None:
    contents = load(make(tmp_path / "run"))
    line = curves.series(contents.epochs, "val_loss", "validation")
    assert line.x.tolist() == [1, 2, 3, 4, 5]  # the calibration run's epoch is not the kept network's
    assert line.y == pytest.approx(2.1 / np.arange(1, 6), abs=0)
    assert curves.epoch_of(25, contents.epochs) == 2.5
    assert [event["event"] for event in contents.events] == ["resumed"]
    drawn = line_figure([line], "epoch", "loss", marks=[Mark(2.5, None, "resumed")]).axes[0]
    assert drawn.lines[0].get_xdata().tolist() == line.x.tolist()
    assert drawn.lines[0].get_ydata().tolist() == line.y.tolist()
    assert drawn.lines[1].get_xdata() == [2.5, 2.5]
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("epoch", "loss")


def test_a_loss_that_is_not_finite_is_a_gap() -> None:
    rows = [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": None}, {"epoch": 3}]
    assert np.isnan(curves.series(rows, "loss", "training").y).tolist() == [False, True, True]
    assert curves.series(rows, "val_loss", "validation") is None


@pytest.mark.parametrize("rounded", [False, True])
def test_ranking_curves_equal_scikit_learn(rounded: bool) -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(300) < 0.3
    p = rng.normal(size=300) + positive
    if rounded:  # many equal scores
        p = np.round(p)
    x, y, area = curves.roc(p, positive)
    theirs = roc_curve(positive, p, drop_intermediate=False)
    assert x == pytest.approx(theirs[0]) and y == pytest.approx(theirs[1])
    assert area == pytest.approx(roc_auc_score(positive, p))
    recall, precision, area = curves.precision_recall(p, positive)
    theirs = precision_recall_curve(positive, p)
    assert recall == pytest.approx(theirs[1][::-1][1:]) and precision == pytest.approx(theirs[0][::-1][1:])
    assert area == pytest.approx(average_precision_score(positive, p))


def test_many_classes_are_shown_as_their_mean() -> None:
    rng = np.random.default_rng(2)
    target = np.arange(400) % 20
    p = softmax(rng.normal(size=(400, 20)) + 2 * np.eye(20)[target])
    for kind, theirs in (
        (curves.roc, roc_auc_score(target, p, multi_class="ovr")),
        (curves.precision_recall, average_precision_score(np.eye(20)[target], p)),
    ):
        (line,), (_, low, high) = curves.by_class(p, target, [str(i) for i in range(20)], kind, "area")
        assert line.summary == f"area {theirs:.4f}"
        # the curve's own area differs from the mean of the areas by the grid alone
        assert np.mean(line.y) == pytest.approx(theirs, abs=0.01)
        if kind is curves.roc:
            each = [roc_curve(target == c, p[:, c], drop_intermediate=False)[:2] for c in range(20)]
            stack = [np.interp(line.x, *points) for points in each]
            assert line.y == pytest.approx(np.mean(stack, 0))
            assert np.stack([low, high]) == pytest.approx(np.percentile(stack, [10, 90], axis=0))
    lines, band = curves.by_class(p[:, :3], np.zeros(400, int), ["a", "b", "c"], curves.roc, "area")
    assert lines == [] and band is None


def test_temperature_is_undone() -> None:
    logits = np.random.default_rng(3).normal(size=(50, 4)) * 3
    assert curves.before_temperature(softmax(logits, 1.7), 1.7) == pytest.approx(softmax(logits))


def test_reliability_figure_draws_the_table() -> None:
    rng = np.random.default_rng(4)
    p = softmax(rng.normal(size=(200, 3)) * 2)
    target = np.array([rng.choice(3, p=row) for row in p])
    table = reliability(p, target)
    share, items = reliability_figure(table, table).axes
    after = next(line for line in share.lines if line.get_label() == "after")
    filled = [row for row in table if row.n]
    assert after.get_xdata() == pytest.approx([row.confidence for row in filled])
    assert after.get_ydata() == pytest.approx([row.accuracy for row in filled])
    assert [bar.get_height() for bar in items.patches] == [row.n for row in filled]
    assert sum(bar.get_height() for bar in items.patches) == 200


def test_unsure_is_told_on_these_items(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    found = load(run).predictions
    answered = found.confidence >= 0.55
    right = (found.predicted == found.target)[answered].mean()
    text = page(run).text
    assert f"answers {100 * answered.mean():.2f} % of these items, and {100 * right:.2f} % of its answers" in text


@pytest.mark.parametrize(
    ("kind", "channels", "dtype"),
    [
        ("image", 1, "uint8"),
        ("image", 3, "uint8"),
        ("image", 5, "uint16"),
        ("series", 2, "float32"),
        ("sound", 1, "int16"),
        ("volume", 1, "float32"),
    ],
)
def test_every_kind_of_item_is_shown(tmp_path: Path, kind: str, channels: int, dtype: str) -> None:
    run = make(tmp_path / "run", kind=kind, channels=channels, dtype=dtype)
    contents, found = load(run), page(run)
    worst = contents.predictions.worst_index
    pictures = [a for tag, a in found.tags if tag == "img"]
    assert len(pictures) == {"image": 1, "volume": 3}.get(kind, 0) * len(worst)
    for index in worst:
        true, said = contents.predictions.target[index], contents.predictions.predicted[index]
        chance = f"{100 * contents.predictions.confidence[index]:.1f} %"
        card = f"{contents.classes[true]} taken for {contents.classes[said]} , {chance}"
        assert card in found.text and f"{contents.classes[true]}/{index}.png" in found.text
    if kind == "sound":
        assert "frequency (kHz)" in found.text and "time (s)" in found.text and "8,000 Hz" in found.text
    if kind == "series":
        assert "sample" in found.text and "one line a channel" in found.text
    if kind == "volume":
        assert "middle of axis 3" in found.text


def test_pictures_have_the_items_values() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    assert (pixels(gray) == gray[0]).all()
    colour = np.arange(36, dtype=np.uint8).reshape(3, 3, 4)
    assert (pixels(colour) == np.moveaxis(colour, 0, -1)).all()
    deep = np.array([[[0, 1000], [500, 2000]]], np.uint16)
    assert pixels(deep).tolist() == [[0, 128], [64, 255]]
    assert (pixels(np.full((1, 2, 2), np.nan, np.float32)) == 0).all()
    volume = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    parts = middle_slices(volume)
    assert (parts[0] == volume[:, 1]).all() and (parts[1] == volume[:, :, 2]).all()
    assert (parts[2] == volume[..., 2]).all()
    spec = DataSpec("v", "volume", 3, 1, (3, 4, 5), "uint8", ("a", "b"), axes="DHW")
    assert slice_names(3, spec) == ["middle of axis D", "middle of axis H", "middle of axis W"]
    lines = trace(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), 10.0)
    assert [line.y.tolist() for line in lines] == [[1, 2], [3, 4]] and lines[0].x.tolist() == [0, 0.1]


def test_spectrogram_peaks_at_the_tone() -> None:
    rate, tone = 8000.0, 1000.0
    wave = np.sin(2 * np.pi * tone * np.arange(8000) / rate)
    values = spectrogram((20_000 * wave).astype(np.int16)[None], rate)
    frequencies = np.linspace(0, rate / 2, len(values))
    assert (np.abs(frequencies[values.argmax(0)] - tone) < 20).all()
    assert values.max() == 0 and values.min() >= -80
    assert (spectrogram(np.zeros((1, 5), np.int16), rate) == -80).all()  # silence, and shorter than a window
    assert "<svg" in show(np.zeros((2, 50), np.int16), None, "no data description")


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = make(tmp_path / "run", classes=HOSTILE, n=60)
    html = render(load(run))
    page(run)
    assert "<script" not in html and "<img src=x" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\x00" not in html
    assert "$\\frac{1}" in unescape(html)  # not taken for a formula
    assert html.count("猫") > 3


def test_sixty_classes(tmp_path: Path) -> None:
    names = tuple(f"species {i}" for i in range(60))
    run = make(tmp_path / "run", classes=names, n=600)
    text = page(run).text
    assert "mean of 60 classes" in text and "middle 80 % of classes" in text
    assert all(name in text for name in names)
    figure, tips = confusion_figure(load(run).confusion, names)
    assert len(figure.axes[0].patches) == len(tips) == np.count_nonzero(load(run).confusion)


def test_more_than_a_hundred_classes_show_the_worst(tmp_path: Path) -> None:
    run = make(tmp_path / "run", classes=tuple(f"c{i}" for i in range(150)), n=600)
    assert "Shown are the 50 of 150 classes with the most mistakes." in page(run).text


def test_two_classes_without_validation(tmp_path: Path) -> None:
    run = make(tmp_path / "run", classes=("no", "yes"), validation=False, calibrated=False, kind="series")
    text = page(run).text
    assert "There is no validation set" in text and "There was no validation set" in text
    assert "The probabilities are not calibrated" in text and "uncalibrated scores" in text
    assert "the model answers every item" in text
    assert "areas are those of “yes”" in text


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("predictions.npz", "predictions.npz is missing, so mistakes cannot be shown"),
        ("metrics.jsonl", "metrics.jsonl has no finished epoch"),
        ("result.json", "Training has not reached its end"),
        ("plan.json", "plan.json has no data description"),
        ("environment.json", "not recorded"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, missing: str, said: str) -> None:
    run = make(tmp_path / "run")
    (run.path / missing).unlink()
    assert said in page(run).text


def test_a_fresh_run_and_damaged_files(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.predictions.write_bytes(run.predictions.read_bytes()[:200])
    run.result.write_text("{")
    text = page(run).text
    assert "predictions.npz cannot be read and is left out" in text and "result.json cannot be read" in text
    fresh = RunFolder(tmp_path / "fresh")
    fresh.path.mkdir()
    fresh.settings.write_text('data = "digits"\n')
    assert "Nothing is trained yet" in page(fresh).text


def test_what_was_not_looked_for_is_not_called_absent(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    result = run.read_json(run.result) | {"skipped": 0, "bad": []}
    run.result.write_text(json.dumps(result | {"duplicates": []}))
    text = page(run).text
    assert "All files could be read." in text and "No near-duplicates across splits were found." in text
    del result["duplicates"]  # as of folds and of items of unequal size
    run.result.write_text(json.dumps(result))
    text = page(run).text
    assert "All files could be read." in text and "Near-duplicates were not looked for" in text
    assert "were found" not in text


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    np.savez(run.predictions, probabilities=np.array([{}], object))
    assert "predictions.npz cannot be read" in page(run).text


def test_no_mistakes_and_one_epoch(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    target = np.arange(30) % 3
    empty = {"worst_index": np.zeros(0, np.int64), "worst_x": np.zeros((0, 1, 12, 10), np.uint8)}
    paths = np.array([str(i) for i in range(30)])
    p = np.eye(3, dtype=np.float32)[target]
    classes = np.array(["cat", "dog", "owl"])
    np.savez(run.predictions, probabilities=p, target=target, paths=paths, classes=classes, **empty)
    result = run.read_json(run.result)
    result["confusion"] = (10 * np.eye(3, dtype=int)).tolist()
    result["metrics"]["accuracy"] = {"value": 1.0, "low": 0.8865, "high": 1.0}
    run.result.write_text(json.dumps(result | {"n": 30}))
    run.metrics.write_text(json.dumps({"event": "epoch", "step": 1, "epoch": 1, "loss": 0.5, "accuracy": 0.5}) + "\n")
    text = page(run).text
    assert "There is no mistake to show." in text and "It makes no mistake in 30." in text
    assert "100.00 % of 30 held-back items labelled rightly: 0 mistakes" in text


def test_limits_name_small_and_uneven_classes(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    result = run.read_json(run.result)
    result["confusion"] = [[90, 5, 0], [2, 12, 0], [1, 0, 10]]
    run.result.write_text(json.dumps(result))
    text = page(run).text
    assert "2 classes of 3 have fewer than 30 held-back items: dog (14), owl (11)" in text
    assert "79.17 % of the held-back items are of one class" in text
    assert "Classes have uneven numbers of items, so read also: balanced accuracy (mean recall) 81.11 %" in text
    assert "Always answering “cat”, the most frequent class, would give 79.17 %" in text


@pytest.mark.parametrize(("words", "said"), [("test: 20 % held back", True), ("test: the 120 published items", False)])
def test_only_items_split_here_are_said_to_be(tmp_path: Path, words: str, said: bool) -> None:
    run = make(tmp_path / "run")
    plan = run.read_json(run.plan)
    plan["spec"]["split"] = words
    run.plan.write_text(json.dumps(plan))
    text = page(run).text
    assert words in text and ("The items were split one by one" in text) == said


def test_equal_runs_give_equal_bytes_and_no_global_state(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    run = make(tmp_path / "run")
    first = write(run, tmp_path / "a.html").read_bytes()
    assert write(run, tmp_path / "b.html").read_bytes() == first
    assert dict(matplotlib.rcParams) == before
    assert len(first) < 500_000


def test_figures_follow_the_page() -> None:
    """No colour is fixed, so that dark pages and paper work; text stays text."""
    text = svg(line_figure([curves.Line("a", np.arange(3.0), np.arange(3.0))], "x", "<y>"), "label")
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]*)", text)) <= {"none", *(f"var(--{v})" for v in NAMES)}
    assert "font-family" not in text and "&lt;y&gt;</text>" in text


NAMES = ("ink", "soft", "rule", "page", "c1", "c2", "c3", "c4", "c5")


def test_command_writes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "run")
    assert main(["report", str(run.path)]) == 0
    assert str(run.report) in capsys.readouterr().out and run.report.stat().st_size > 50_000
    out = tmp_path / "other.html"
    assert main(["report", str(run.path), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(out), "run": str(run.path)}
    assert out.read_bytes() == run.report.read_bytes()
    assert main(["report", str(run.path), "--out", str(tmp_path / "no" / "x.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nothing")]) == 2
