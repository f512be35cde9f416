"""From probabilities and targets to the figures of result.json and predictions.npz: shared by train and eval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gridsight.artifact.model_file import Calibration
from gridsight.core.console import Console
from gridsight.core.errors import DataError
from gridsight.core.run import atomic_write
from gridsight.measure import calibration as calibrations
from gridsight.measure import metrics
from gridsight.measure.words import confusion_in_words

WORST = 24
"""Mistakes that are kept as pictures for the report."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Answers to be judged: `probabilities` and `uncalibrated` (n, K), `target` (n,), and what the items are.

    `items(rows)` gives the raw arrays of some of the n.
    """

    probabilities: np.ndarray
    uncalibrated: np.ndarray
    target: np.ndarray
    paths: Sequence[str]
    classes: Sequence[str]
    groups: Sequence[str | None] | None
    items: Callable[[np.ndarray], np.ndarray]


def judge(judged: Judged, calibration: Calibration, file: Path | None) -> dict[str, Any]:
    """Metrics with intervals, per class, the confusion in counts and words; predictions.npz where `file` is given."""
    p, y = judged.probabilities, judged.target
    if len(y) == 0:
        raise DataError("there is nothing to measure: no item has a class that the model knows")
    confusion = metrics.confusion_matrix(p.argmax(1), y, len(judged.classes))
    result: dict[str, Any] = {
        "task": "classify",
        "n": len(y),
        "metrics": metrics.summary(p, y, judged.classes, judged.groups),
        "per_class": metrics.per_class(confusion, judged.classes),
        "confusion": confusion.tolist(),
        "confused": confusion_in_words(confusion, judged.classes),
        "calibration": {
            "calibrated": calibration.calibrated,
            "temperature": calibration.temperature,
            "threshold": calibration.threshold,
            "coverage": calibration.coverage,
            "ece": calibrations.expected_calibration_error(p, y),
            "ece_before": calibrations.expected_calibration_error(judged.uncalibrated, y),
        },
    }
    if file is not None:
        _keep(judged, file)
    return result


def _keep(judged: Judged, file: Path) -> None:
    """Probabilities and targets of every item, and the raw arrays of the mistakes made with most confidence."""
    p, y = judged.probabilities, judged.target
    wrong = np.flatnonzero(p.argmax(1) != y)
    worst = wrong[np.argsort(-p[wrong].max(1), kind="stable")][:WORST]
    arrays: dict[str, Any] = {
        "probabilities": p.astype(np.float32),
        "target": y,
        "paths": np.array(judged.paths, dtype=str),
        "classes": np.array(judged.classes, dtype=str),
        "worst_index": worst,
        "worst_x": judged.items(worst),
    }
    if judged.groups is not None:
        arrays["groups"] = np.array([str(group) for group in judged.groups])

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    atomic_write(file, write)


def fit_calibration(logits: np.ndarray, y: np.ndarray, coverage: float) -> Calibration:
    """Temperature by likelihood, then the threshold that lets a share `coverage` of the items through."""
    temperature = calibrations.fit_temperature(logits, y)
    probabilities = calibrations.softmax(logits, temperature)
    quantiles = tuple(float(q) for q in np.quantile(probabilities.max(1), np.linspace(0, 1, 101)))
    threshold = calibrations.unsure_threshold(probabilities, coverage)
    return Calibration(True, temperature, threshold, coverage, quantiles)


def percent(value: Mapping[str, float]) -> str:
    """ "99.17 % (95 % interval 97.6 to 99.7)" of a share with its interval."""
    return f"{value['value']:.2%} (95 % interval {value['low']:.2%} to {value['high']:.2%})".replace("%", " %").replace(
        "95  %", "95 %"
    )


def say_result(result: Mapping[str, Any], run: Path | None, console: Console) -> None:
    """The figures in words: metrics, what is confused with what, where everything is, what to type next."""
    n = result["n"]
    counts = np.sum(result["confusion"], 1)
    console.say()
    for name in metrics.headline(result["metrics"], counts):
        console.say(f"{name.replace('_', ' '):<18} {percent(result['metrics'][name])}  n = {n:,}")
    fitted = result["calibration"]
    if fitted["calibrated"]:
        console.say(
            f"{'calibration':<18} expected error {fitted['ece']:.2%}".replace("%", " %")
            + f" (before: {fitted['ece_before']:.2%}), temperature {fitted['temperature']:.2f}".replace("%", " %")
        )
    else:
        console.say(f"{'calibration':<18} none: no validation data, so probabilities are the network's own")
    for line in result["confused"][:3]:
        console.say(f"{'':<18} {line}")
    read = "" if "folds" in result["split"] else f"; reading {result['test_reads']} of this test data"
    console.say(f"{'measured on':<18} {result['split']}{read}")
    if result.get("training_seconds"):
        console.say(f"{'time':<18} {result['training_seconds']:.1f} s of training, {result['seconds']:.1f} s in all")
    if result["skipped"]:
        console.say(f"{'skipped':<18} {result['skipped']:,} items that could not be read")
    if run is not None:
        console.say(f"{'model':<18} {run / 'model.safetensors'}")
        if (run / "report.html").exists():
            console.say(f"{'report':<18} {run / 'report.html'}")
        console.say(f"next: gridsight predict {run} FILE ...")
