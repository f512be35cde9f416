"""The report of sets, grades and numbers: what the page says equals what the run folder holds."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gridsight.core.console import dumps
from gridsight.core.run import RunFolder
from gridsight.data.alphabet import one_hot
from gridsight.data.spec import DataSpec
from gridsight.measure.calibration import Calibration
from gridsight.reporting import learning, regress
from gridsight.reporting.contents import load
from gridsight.reporting.figures import histogram_figure, scatter_figure, svg
from gridsight.reporting.page import render
from gridsight.reporting.pictures import show
from gridsight.tasks import make_task
from gridsight.verbs._judge import Judged, Kept, judge
from pages import Page, page

CLASSES = {"multilabel": ("cat", "dog", "owl"), "grade": ("0", "1", "2", "3"), "regress": ()}
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{1}")


def make(
    path: Path,
    task: str,
    *,
    n: int = 200,
    classes: tuple[str, ...] | None = None,
    unit: str = "years",
    calibrated: bool = True,
    perfect: bool = False,
) -> RunFolder:
    """A run folder as `train` leaves it, from random outputs of a network."""
    path.mkdir()
    run, rng = RunFolder(path), np.random.default_rng(0)
    names = CLASSES[task] if classes is None else classes
    k, noise = len(names), 0.0 if perfect else 1.0
    options: dict[str, Any] = {"unit": unit, "center": 50.0, "scale": 10.0} if task == "regress" else {}
    made = make_task(task, names, **options)
    y: np.ndarray
    if task == "multilabel":
        y = (rng.random((2 * n, k)) < 0.4).astype(np.float32)
        outputs = 3 * (2 * y - 1) + 2 * noise * rng.normal(size=(2 * n, k))
    elif task == "grade":
        y = np.arange(2 * n) % k
        outputs = 4 * (y[:, None] - np.arange(k - 1) - 0.5) + 4 * noise * rng.normal(size=(2 * n, 1))
    else:
        y = 50 + 10 * rng.normal(size=2 * n)
        outputs = ((y - 50) / 10 + 0.3 * noise * rng.normal(size=2 * n))[:, None]
    fitted = made.calibrate(outputs[n:], y[n:], 0.9) if calibrated else Calibration()
    outputs, y = outputs[:n], y[:n]
    items = (rng.random((n, 1, 12, 10)) * 200).astype(np.uint8)
    judged = Judged(np.arange(n), made.predict(outputs, fitted), made.predict(outputs, Calibration()))
    kept = Kept(run.predictions, [f"{i}.png" for i in range(n)], lambda rows: (items[rows], None))
    counts = (n,) if task == "regress" else tuple(y.sum(0).astype(int) if y.ndim == 2 else np.bincount(y, minlength=k))
    spec = DataSpec(
        "pets",
        "image",
        2,
        1,
        (12, 10),
        "uint8",
        names,
        counts={"train": counts, "test": counts},
        task=task,  # type: ignore[arg-type]
        target={"multilabel": "tags", "grade": "stage", "regress": "age"}[task],
        unit=unit if task == "regress" else "",
    )
    result = judge(made, judged, y, None, fitted, kept)
    result |= {"task": task, "skipped": 0, "seconds": 75.0, "split": "20 % held back", "test_reads": 1}
    rows = [
        {"event": "epoch", "phase": "training", "step": 10 * e, "epoch": e, "loss": 2 / e, "lr": 0.1}
        | {made.metric: -1 / e, f"val_{made.metric}": -2 / e, "val_loss": 3 / e}
        for e in range(1, 4)
    ]
    run.result.write_text(dumps(result))
    run.plan.write_text(dumps({"model": "gridnet", "parameters": 1234, "spec": spec.to_dict()}))
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.settings.write_text('data = "pets/"\n')
    return run


def near(text: str) -> str:
    """The page's text with plain spaces."""
    return text.replace("\u00a0", " ")


def stated(metric: dict[str, float], form: str) -> str:
    """`1.5 years (1.2 years to 1.8 years)` as the page writes it."""
    value, low, high = (form.format(metric[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})".replace("%", " %")


def test_numbers(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "regress")
    contents, text = load(run), near(page(run).text)
    result, found = contents.result, contents.numbers
    mae, margin = result["metrics"]["mae"], result["calibration"]["margin"]
    assert f"{mae['value']:.4g} years mean absolute error of the age on 200 held-back items" in text
    assert f"95 % interval: {mae['low']:.4g} years to {mae['high']:.4g} years." in text
    assert f"R² {stated(result['metrics']['r2'], '{:.3f}')}" in text
    assert f"Intervals of ± {margin:.4g} years promise to hold 90 % of new items; they hold " in text
    assert stated(result["metrics"]["interval_coverage"], "{:.2%}") in text
    median = np.median(found.target)
    off = np.abs(found.target - median).mean()
    assert f"Always answering {median:.4g} years, the median of these items, would be off by {off:.4g} years" in text
    error = found.value - found.target
    way = "high" if error.mean() > 0 else "low"
    assert f"within {np.median(np.abs(error)):.4g} years of the true number" in text
    assert f"In the mean they are {abs(error.mean()):.4g} years too {way}" in text
    # the parts of the answers hold every item once
    order = np.argsort(found.value)
    for part in np.array_split(order, 5):
        inside = np.abs(error[part]) <= margin
        assert f"{found.value[part].min():.4g} to {found.value[part].max():.4g} 40 " in text
        assert f"{np.abs(error[part]).mean():.4g} years" in text and f"{100 * inside.mean():.1f} %" in text
    worst = np.argsort(-np.abs(error))[:24]
    for index in worst:
        high = "high" if error[index] > 0 else "low"
        card = f"is {found.target[index]:.4g} years , answered {found.value[index]:.4g} years"
        assert f"{card} : {abs(error[index]):.4g} years too {high} {index}.png" in text
    assert "a number in years" in text and "age" in text
    assert "accuracy" not in text and "probabilit" not in text


def test_numbers_are_drawn_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    axes = scatter_figure(x, y, "true", "said", slope=1, margin=0.5).axes[0]
    points = next(line for line in axes.lines if line.get_marker() == "o")
    assert points.get_xdata().tolist() == x.tolist() and points.get_ydata().tolist() == y.tolist()
    line = next(line for line in axes.lines if line.get_marker() != "o")
    assert (line.get_xdata() == line.get_ydata()).all() and axes.get_xlim() == axes.get_ylim()
    band = axes.collections[0].get_paths()[0].vertices
    assert np.abs(np.abs(band[:, 1] - band[:, 0])).max() == pytest.approx(0.5)
    flat = scatter_figure(x, y, "said", "too high by", slope=0).axes[0]
    assert not flat.collections and flat.lines[0].get_ydata().tolist() == [0, 0]
    bars = histogram_figure(y, "too high by", 1.0).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 50
    outside = [bar for bar in bars if bar.get_facecolor()[:3] != bars[15].get_facecolor()[:3]]
    assert all(abs(bar.get_x() + bar.get_width() / 2) > 1 for bar in outside)
    assert 0 < len(outside) < len(bars) == 31
    drawing = svg(scatter_figure(x, y, "true", "said", slope=1), "points")
    assert drawing.count("<use ") >= 50 and len(drawing) < 50 * 60 + 8000


def test_many_numbers_are_thinned_and_it_is_said(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "regress", n=4500)
    contents, html = load(run), render(load(run))
    shown = regress._some(contents.numbers)
    assert len(shown) == len(set(shown.tolist())) == 2000
    values = contents.numbers.target[shown]
    assert values.min() == contents.numbers.target.min() and values.max() == contents.numbers.target.max()
    assert "Drawn are 2,000 of 4,500 items" in Page(html).text
    assert len(html) < 600_000


@pytest.mark.parametrize("unit", ["", "years", "</b><script>"])
def test_numbers_without_interval(tmp_path: Path, unit: str) -> None:
    run = make(tmp_path / "run", "regress", unit=unit, calibrated=False)
    text = near(page(run).text)
    assert "Answers come without an interval" in text and "inside the interval" not in text
    assert "uncalibrated" not in text
    assert "<script" not in render(load(run))
    if not unit:
        assert "items with a number (age) each" in text


def test_sets(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "multilabel")
    contents, text = load(run), near(page(run).text)
    result, found = contents.result, contents.choices
    metrics, truth = result["metrics"], found.target > 0
    score = f"{metrics['average_precision']['value']:.2%}".replace("%", " %")
    assert f"{score} average precision, the mean over 3 classes, on 200 held-back items" in text
    for name in ("f1_macro", "accuracy"):
        assert stated(metrics[name], "{:.2%}") in text
    assert f"A random order would give {100 * truth.mean():.2f} %" in text
    assert "always answering “nothing”, the most frequent set" in text
    for row in result["per_class"]:
        assert f"{row['class']} {row['n']} " in text
        for name in ("precision", "recall", "f1", "average_precision"):
            entry = row[name]
            bounds = f"{100 * entry['low']:.1f}–{100 * entry['high']:.1f}"
            assert f"{100 * entry['value']:.1f} % {bounds}" in text
        assert f"{row['class']} AP {row['average_precision']['value']:.4f}" in text
    said = found.probabilities >= 0.5
    wrong = (said != truth).any(1)
    assert f"among {wrong.sum()} whose set is not right" in text
    for index in found.worst_index:
        given, answered = (", ".join(np.array(found.classes)[part[index]]) or "nothing" for part in (truth, said))
        assert f"has {given} , answered {answered} : " in text
    missed = [(i, c) for i in found.worst_index for c in range(3) if truth[i, c] and not said[i, c]]
    index, c = missed[0]
    assert f"{found.classes[c]} ({100 * found.probabilities[index, c]:.1f} %)" in text
    answered = np.maximum(found.probabilities, 1 - found.probabilities).min(1) >= result["calibration"]["threshold"]
    share, right = 100 * answered.mean(), 100 * (~wrong)[answered].mean()
    assert f"answers {share:.2f} % of these items, and {right:.2f} % of its answers are right" in text
    assert "entries a bin" in text and f"{100 * result['calibration']['ece']:.2f} %" in text
    assert "any number of 3 classes an item" in text and "A class that an item was not given" in text
    assert "What is taken for what" not in text


def test_grades(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "grade")
    contents, text = load(run), near(page(run).text)
    result, found = contents.result, contents.choices
    metrics = result["metrics"]
    kappa, mae = metrics["quadratic_kappa"], metrics["mae"]
    assert f"{kappa['value']:.3f} agreement (quadratic kappa) over 200 held-back items" in text
    assert f"95 % interval: {kappa['low']:.3f} to {kappa['high']:.3f}." in text
    assert f"off by {stated(mae, '{:.3f}')} grades in the mean; {stated(metrics['accuracy'], '{:.2%}')}" in text
    middle = np.median(found.target).astype(int)
    off = np.abs(found.target - middle).mean()
    assert f"Always answering {middle}, the middle grade of these items, would be off by {off:.3f}" in text
    distance = found.predicted - found.target
    for step in range(1, 3):
        if total := (np.abs(distance) == step).sum():
            name = "1 grade" if step == 1 else f"{step} grades"
            above, below = (distance == step).sum(), (distance == -step).sum()
            assert f"{name} {total} {100 * total / 200:.1f} % {above} {below}" in text
    assert "above 0 AP" in text and "above 2 AUC" in text and "above 3" not in text
    order = [np.abs(distance[i]) for i in found.worst_index]
    assert order == sorted(order, reverse=True)
    assert "4 ordered grades" in text and "kappa depends on how many items" in text


@pytest.mark.parametrize("task", ["multilabel", "grade", "regress"])
def test_training_curves_have_the_tasks_own_metric(tmp_path: Path, task: str) -> None:
    run = make(tmp_path / "run", task)
    metric = make_task(task, CLASSES[task] or ("a", "b")).metric
    assert learning.metric_of(load(run).epochs) == metric
    assert learning.METRICS[metric][0] in page(run).text
    if task == "regress":  # errors are drawn upwards
        drawn = [line.y.tolist() for line in learning._both(load(run), metric)]
        assert drawn == [[-1, -1 / 2, -1 / 3], [-2, -1, -2 / 3]]
        assert "loss (Huber)" in render(load(run))


@pytest.mark.parametrize("task", ["multilabel", "grade", "regress"])
@pytest.mark.parametrize("missing", ["predictions.npz", "metrics.jsonl", "result.json", "plan.json"])
def test_what_is_missing_is_said(tmp_path: Path, task: str, missing: str) -> None:
    run = make(tmp_path / "run", task)
    (run.path / missing).unlink()
    text = page(run).text
    said = {
        "predictions.npz": "predictions.npz is missing",
        "metrics.jsonl": "no finished epoch",
        "result.json": "Training has not reached its end",
        "plan.json": "no data description",
    }
    assert said[missing] in text


@pytest.mark.parametrize("task", ["multilabel", "grade", "regress"])
def test_perfect_answers(tmp_path: Path, task: str) -> None:
    run = make(tmp_path / "run", task, perfect=True)
    text = page(run).text
    if task != "regress":
        assert "There is no mistake to show." in text


def test_undefined_figures_are_dashes(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "regress")
    result = run.read_json(run.result)
    assert result is not None
    result["metrics"]["r2"] = {"value": None, "low": None, "high": None}
    run.result.write_text(json.dumps(result))
    text = page(run).text
    assert "R², the share of the variance explained r2 – –" in text and "R² " not in text


def test_hostile_names_and_paths_stay_text(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "multilabel", classes=HOSTILE)
    html = render(load(run))
    page(run)
    assert "<script" not in html and "<img src=x" not in html


def test_a_task_that_is_not_ours_has_a_page(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "grade")
    result = run.read_json(run.result)
    assert result is not None
    run.result.write_text(json.dumps(result | {"task": "count"}))
    text = page(run).text
    assert "quadratic_kappa" in text and "What is taken for what" not in text


def test_items_of_unequal_size_are_shown_without_their_padding(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "grade")
    with np.load(run.predictions) as file:
        found = dict(file)
    sizes = np.tile([6, 4], (len(found["worst_index"]), 1))
    np.savez(run.predictions, **found, worst_size=sizes)
    shown = load(run).predictions.worst(3)
    assert [x.shape for _, x in shown] == [(1, 6, 4)] * len(shown)
    assert (shown[0][1] == found["worst_x"][0][:, :6, :4]).all()
    page(run)


def test_sequences_are_letters() -> None:
    spec = DataSpec("s", "sequence", 1, 4, (30,), "uint8", ("a", "b"), alphabet="dna")
    text = re.sub("<[^>]*>", "", show(one_hot("ACGTACGTACNN-----", "dna"), spec, "label"))
    assert text == "ACGTACGTAC NN"
    long = re.sub("<[^>]*>", "", show(one_hot("ACGTACGTAC" * 100, "dna"), spec, "label"))
    assert "600 more" in long and long.startswith("ACGTACGTAC ACGT")
