"""From predictions and targets to the figures of result.json and predictions.npz: shared by train and eval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gridsight.core.console import Console
from gridsight.core.errors import DataError
from gridsight.core.run import atomic_write
from gridsight.measure.calibration import Calibration
from gridsight.tasks import Predicted, Task

WORST = 24
"""Mistakes that are kept as pictures for the report."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions to be judged, of the items numbered `index` (n,): calibrated, and without calibration."""

    index: np.ndarray
    predicted: Predicted
    plain: Predicted


@dataclass(frozen=True, eq=False)
class Kept:
    """What goes to predictions.npz (`file`, None for none): `paths` of the n items, raw arrays by `items(rows)`.

    With arrays of items of unequal size, which are padded, come their own sizes (N, ndim).
    """

    file: Path | None
    paths: Sequence[str]
    items: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def judge(
    task: Task,
    judged: Judged,
    y: np.ndarray,
    groups: Sequence[str | None] | None,
    calibration: Calibration,
    kept: Kept,
) -> dict[str, Any]:
    """The task's metrics with intervals, and how it was calibrated; predictions.npz where there is a file for it."""
    if len(y) == 0:
        raise DataError("there is nothing to measure: no item has a label that the model knows")
    result = {"n": len(y), **task.measure(judged.predicted, judged.plain, y, groups)}
    result["calibration"] = {
        "calibrated": calibration.calibrated,
        "temperature": calibration.temperature,
        "threshold": calibration.threshold,
        "coverage": calibration.coverage,
        "margin": calibration.margin,
        **result["calibration"],
    }
    if kept.file is not None:
        _keep(task, judged.predicted, y, groups, kept)
    return result


def _keep(task: Task, predicted: Predicted, y: np.ndarray, groups: Sequence[str | None] | None, kept: Kept) -> None:
    """Predictions and targets of every item, and the raw arrays of the worst mistakes."""
    worst = task.worst(predicted, y)[:WORST]
    raw, sizes = kept.items(worst) if len(worst) else (np.empty((0, 1, 1)), None)
    arrays: dict[str, Any] = {
        **{
            name: np.asarray(values, np.float32 if values.ndim > 1 else np.float64)
            for name, values in predicted.items()
        },
        "target": y,
        "paths": np.array(kept.paths, dtype=str),
        "classes": np.array(task.classes, dtype=str),
        "worst_index": worst,
        "worst_x": raw,
    }
    if sizes is not None:
        arrays["worst_size"] = sizes
    if groups is not None:
        arrays["groups"] = np.array([str(group) for group in groups])

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    assert kept.file is not None
    atomic_write(kept.file, write)


def say_result(result: Mapping[str, Any], task: Task, run: Path | None, console: Console) -> None:
    """The figures in words: metrics, what is confused with what, where everything is, what to type next."""
    n = result["n"]
    console.say()
    for name in task.headline(result):
        if name in result["metrics"]:
            console.say(f"{name.replace('_', ' '):<18} {task.words(name, result['metrics'][name])}  n = {n:,}")
    fitted = result["calibration"]
    if fitted["calibrated"] and "ece" in fitted:
        console.say(
            f"{'calibration':<18} expected error {fitted['ece']:.2%}".replace("%", " %")
            + f" (before: {fitted['ece_before']:.2%}), temperature {fitted['temperature']:.2f}".replace("%", " %")
        )
    elif fitted["margin"] is not None:
        unit = f" {result['unit']}" if result.get("unit") else ""
        share = f"{100 * fitted['coverage']:g} %"
        console.say(f"{'interval':<18} +- {fitted['margin']:.4g}{unit} holds {share} of new items (split conformal)")
    elif not fitted["calibrated"]:
        console.say(f"{'calibration':<18} none: no validation data, so the answers are the network's own")
    for line in result.get("confused", ())[:3]:
        console.say(f"{'':<18} {line}")
    reads = 0 if "folds" in result["split"] else result["test_reads"]
    read = f"; reading {reads} of this test data" if reads else ""
    console.say(f"{'measured on':<18} {result['split']}{read}")
    if text := like_chance(task, result["metrics"], "these data"):
        console.warn(text)
    if result.get("training_seconds"):
        console.say(f"{'time':<18} {result['training_seconds']:.1f} s of training, {result['seconds']:.1f} s in all")
    if result["skipped"]:
        console.say(f"{'skipped':<18} {result['skipped']:,} items that could not be read")
    if run is not None:
        console.say(f"{'model':<18} {run / 'model.safetensors'}")
        if (run / "report.html").exists():
            console.say(f"{'report':<18} {run / 'report.html'}")
        console.say(f"next: gridsight predict {run} FILE ...")


def like_chance(task: Task, metrics: Mapping[str, Any], data: str) -> str:
    """What must be known of a model whose figures on `data` do not exclude that it only guesses."""
    name, rate = task.chance()
    found = metrics.get(name)
    # without an interval nothing is shown either way
    if found is None or found["low"] is None or not found["low"] <= rate + 1e-9:
        return ""
    title = name.replace("_", " ")
    return (
        f"on {data} this model is not shown to be better than chance: {title} {task.words(name, found)}, and "
        f"guessing gives {f'{100 * rate:.2f} %' if rate else '0'}; do not trust its answers, however sure they look"
    )
