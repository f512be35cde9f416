"""What the report shows, read from a run folder and computed as plain numbers; `figures.py` only draws them.

Every file but settings.toml may be missing, unfinished or damaged: the part is None and `notes` says why, in words.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gridsight.core.run import RunFolder
from gridsight.core.settings import toml_values
from gridsight.data.spec import DataSpec
from gridsight.measure.metrics import confusion_matrix, per_class
from gridsight.measure.words import confusion_in_words


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What every task keeps of n test items: target (n, ...), paths, and raw inputs (m, C, *spatial) of the worst.

    Items of unequal size are padded in `worst_x`; `worst_size` (m, ndim) has their own sizes.
    """

    target: np.ndarray
    paths: np.ndarray
    worst_index: np.ndarray
    worst_x: np.ndarray
    worst_size: np.ndarray | None = None
    groups: np.ndarray | None = None

    def worst(self, most: int) -> list[tuple[int, np.ndarray]]:
        """Up to `most` of the worst items: their number, and the raw input (C, *spatial) at its own size."""
        found = []
        for row, (index, x) in enumerate(zip(self.worst_index[:most], self.worst_x[:most], strict=True)):
            own = () if self.worst_size is None else self.worst_size[row]
            found.append((int(index), x[(slice(None), *(slice(0, int(size)) for size in own))]))
        return found


@dataclass(frozen=True, kw_only=True)
class Choices(Predictions):
    """Answers by probabilities (n, K) of `classes`; target (n,) is a class or grade, (n, K) a set of classes."""

    probabilities: np.ndarray
    classes: tuple[str, ...]

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each item."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the most probable class."""
        return self.probabilities.max(1)


@dataclass(frozen=True, kw_only=True)
class Numbers(Predictions):
    """Answers that are numbers: value (n,) between low and high, which are NaN where no interval is known."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """How much too high each answer is."""
        return self.value - self.target


@dataclass(frozen=True)
class Contents:
    """Everything the page needs; what is None or empty is said to be missing."""

    name: str
    settings: Mapping[str, Any]
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    spec: DataSpec | None
    epochs: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    predictions: Predictions | None
    explained: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def task(self) -> str:
        """What the labels are: the name of the task."""
        return self.result.get("task") or (self.spec.task if self.spec is not None else "classify")

    @property
    def choices(self) -> Choices | None:
        """The predictions where they are probabilities of classes."""
        return self.predictions if isinstance(self.predictions, Choices) else None

    @property
    def numbers(self) -> Numbers | None:
        """The predictions where they are numbers."""
        return self.predictions if isinstance(self.predictions, Numbers) else None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, from the predictions or the data description."""
        if self.choices is not None:
            return self.choices.classes
        return self.spec.classes if self.spec is not None else ()

    @property
    def confusion(self) -> np.ndarray | None:
        """Counts (K, K), true in rows: as the result states them, else from predictions of one class an item."""
        stated = self.result.get("confusion")
        if stated is not None:
            return np.asarray(stated, np.int64)
        found = self.choices
        if found is None or found.target.ndim != 1:
            return None
        return confusion_matrix(found.predicted, found.target, len(self.classes))

    @property
    def confused(self) -> list[str]:
        """The most frequent mistakes in words."""
        if self.confusion is None:
            return list(self.result.get("confused") or ())
        return confusion_in_words(self.confusion, self.classes, most=3 if len(self.classes) <= 3 else 10)

    @property
    def per_class(self) -> Sequence[Mapping[str, Any]]:
        """The figures of each class: as the result states them, else from the confusion."""
        computed = [] if self.confusion is None else per_class(self.confusion, self.classes)
        stated = self.result.get("per_class") or computed
        # a result may lack figures that the confusion gives
        return [{**other, **row} for row, other in zip(stated, computed or [{}] * len(stated), strict=True)]

    @property
    def calibration(self) -> Mapping[str, Any]:
        """The result's calibration entry, or an empty one."""
        return self.result.get("calibration") or {}


def load(run: RunFolder) -> Contents:
    """Read a run folder; what cannot be read is left out and noted."""
    notes: list[str] = []

    def tried(what: str, read: Any, default: Any) -> Any:
        try:
            return read()
        except Exception as error:  # a damaged file must not cost the rest of the page
            notes.append(f"{what} cannot be read and is left out ({type(error).__name__}: {error}).")
            return default

    plan = tried("plan.json", lambda: run.read_json(run.plan), None) or {}
    rows = main_phase(tried("metrics.jsonl", run.read_metrics, []))
    return Contents(
        name=run.path.resolve().name,
        settings=tried("settings.toml", lambda: toml_values(run.settings.read_text(encoding="utf-8"), "the file"), {}),
        plan=plan,
        environment=tried("environment.json", lambda: run.read_json(run.environment), None) or {},
        result=tried("result.json", lambda: run.read_json(run.result), None) or {},
        spec=tried("the data description", lambda: DataSpec.from_dict(plan["spec"]), None) if "spec" in plan else None,
        epochs=[row for row in rows if row.get("event") == "epoch"],
        events=[row for row in rows if row.get("event") not in (None, "epoch")],
        predictions=tried("predictions.npz", lambda: _predictions(run), None),
        explained=tried("explained.npz", lambda: _explained(run), None),
        notes=tuple(notes),
    )


def _explained(run: RunFolder) -> dict[str, Any] | None:
    """Items, maps, and what is said of them."""
    if not run.explained.exists():
        return None
    with run.explained.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        found: dict[str, Any] = {name: file[name] for name in file.files}
    return found | {"about": json.loads(str(found["about"]))}


def _predictions(run: RunFolder) -> Predictions | None:
    if not run.predictions.exists():
        return None
    # opened here, as np.load leaves a damaged file open
    with run.predictions.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    common: dict[str, Any] = {
        "target": found["target"],
        "paths": found["paths"],
        "worst_index": found["worst_index"],
        "worst_x": found["worst_x"],
        "worst_size": found.get("worst_size"),
        "groups": found.get("groups"),
    }
    if "value" in found:
        return Numbers(value=found["value"], low=found["low"], high=found["high"], **common)
    return Choices(
        probabilities=found["probabilities"].astype(np.float64),
        classes=tuple(str(name) for name in found["classes"]),
        **common,
    )


def main_phase(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of the network that was kept: those of folds and of calibration runs are left out."""
    phases = list(dict.fromkeys(row.get("phase") for row in rows))
    kept = next((p for p in ("training", "final network") if p in phases), phases[-1] if phases else None)
    return [row for row in rows if row.get("phase") == kept]
