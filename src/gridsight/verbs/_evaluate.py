"""Evaluation of a finished model: on the test part of its own run, or on other data."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gridsight.artifact.predictor import NOT_FINITE, Predictor, load
from gridsight.core.console import Console, dumps
from gridsight.core.errors import DataError, ReadError, UsageError, nearest
from gridsight.core.run import RunFolder, atomic_write
from gridsight.core.settings import from_toml
from gridsight.data.conform import conform
from gridsight.data.decoding import decode
from gridsight.data.sample import Sample
from gridsight.data.source import Source, asked, find
from gridsight.data.spec import DataSpec
from gridsight.data.split import tests_published
from gridsight.data.target import Target, encode, number, parts
from gridsight.measure.calibration import Calibration
from gridsight.tasks import Task
from gridsight.verbs._judge import Judged, Kept, judge, say_result
from gridsight.verbs.evaluate import EvaluateSettings

BATCH = 256
SPLITS = ("auto", "test", "train", "val", "all")


@dataclass(frozen=True)
class Evaluation:
    """`result` as `--json` prints it, and more: per class, confusion, calibration."""

    result: Mapping[str, Any]
    exit_code: int = 0

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """{"accuracy": {"value", "low", "high"}, ...}."""
        return self.result["metrics"]


@dataclass
class _Read:
    """What was decoded: conformed items in batches became outputs at once, so memory stays small."""

    outputs: list[np.ndarray]
    labels: list[str]
    paths: list[str]
    groups: list[str | None]
    bad: list[str]


def run_evaluation(settings: EvaluateSettings, console: Console) -> Evaluation:
    """Decode, predict, judge; counts the reading in the run's result.json when it is the run's own test data."""
    if settings.split not in SPLITS:
        raise UsageError(f"--split is {settings.split!r}; {nearest(settings.split, SPLITS)}")
    started = time.monotonic()
    predictor = load(settings.run, settings.device)
    folder = RunFolder.open(settings.run) if Path(settings.run).is_dir() else None
    if settings.data is None:
        return _own_test(settings, folder, console)
    axes = settings.axes or (predictor.model.spec.axes if Path(settings.data).exists() else None)
    spec = predictor.model.spec
    like_the_model = {"axes": axes, "usual": spec.target, "clips": spec.kind == "video", "grouped": spec.group}
    # over a group only the intervals are drawn; the publisher's split stays
    source = find(settings.data, **asked(settings) | like_the_model, resplit=False)
    part = settings.split
    if part == "auto":
        part = "test" if _has_test(source) else "all"
    if folder is not None and _own(source, folder) and not (part == "test" and _held_back(folder)):
        console.warn(f"{settings.run} was trained on these data: the figures say little of new ones")
    read = _read(source, part, _other_names(source, predictor, console), predictor, console)
    total = len(read.labels) + len(read.bad)
    if len(read.bad) > 0.01 * total and not settings.accept_bad:
        raise DataError(
            f"{len(read.bad):,} of {total:,} items cannot be used (first: {read.bad[0]}); "
            "--accept-bad measures the others"
        )
    if not read.labels:
        raise DataError(f"there is nothing to measure in {source.name}: no item has a label that the model knows")
    task, calibration = predictor.task, predictor.model.calibration
    outputs = np.concatenate(read.outputs)
    if len(wrong := np.flatnonzero(~np.isfinite(outputs).all(1))):
        raise DataError(f"{NOT_FINITE} for {len(wrong):,} of {len(outputs):,} items (first: {read.paths[wrong[0]]})")
    judged = Judged(np.arange(len(outputs)), task.predict(outputs, calibration), task.predict(outputs, Calibration()))
    y = encode(Target(spec.task, spec.classes), read.labels)
    kept = Kept(None, read.paths, lambda rows: (np.empty((0, spec.channels, *spec.spatial)), None))
    result = judge(task, judged, y, read.groups if source.group else None, calibration, kept) | {
        "task": spec.task,
        "skipped": len(read.bad),
        "bad": read.bad[:100],
        "run": settings.run,
        "model": str(folder.model if folder else settings.run),
        "seconds": round(time.monotonic() - started, 2),
        "split": f"{part} of {source.name}" + (f" ({source.split})" if source.split else ""),
        "test_reads": 0,  # of the run's own test data alone
    }
    return _tell(result, task, settings, console)


def _own_test(settings: EvaluateSettings, folder: RunFolder | None, console: Console) -> Evaluation:
    """The run's test data again, with the run's own settings: the figures must come out the same."""
    for name in ("pattern", "axes", "group", "target", "frames"):
        if getattr(settings, name) not in (None, False):
            raise UsageError(f"--{name} belongs to DATA; the run's own test data are read as they were in training")
    if folder is None:
        raise UsageError(f"{settings.run} is a model file without data; give DATA to measure it on")
    from gridsight.verbs._run import reevaluate
    from gridsight.verbs.train import TrainSettings

    trained = from_toml(TrainSettings, folder.settings.read_text(encoding="utf-8"), str(folder.settings))
    result = reevaluate(folder, trained, settings.split, settings.device, console)
    return _tell(result, load(settings.run).task, settings, console)


def _tell(result: Mapping[str, Any], task: Task, settings: EvaluateSettings, console: Console) -> Evaluation:
    if settings.out:
        out = Path(settings.out)
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "result.json", dumps(result, indent=1) + "\n")
    say_result(result, task, None, console)
    console.emit({key: result[key] for key in ("task", "n", "skipped", "metrics", "run", "model")})
    return Evaluation(result, int(result["skipped"] > 0))


def _has_test(source: Source) -> bool:
    """Whether there is a test part: by folders and names, or within container files (x_test in an .npz)."""
    if any(item.split == "test" for item in source.items):
        return True
    inside = [item for item in source.items if item.label is None]
    return any(isinstance(s, Sample) and s.split == "test" for item in inside for s in decode(source, item))


def _own(source: Source, folder: RunFolder) -> bool:
    """Whether the run was trained on files of this name (a run keeps no list of its files)."""
    plan = folder.read_json(folder.plan) or {}
    return bool(plan.get("spec", {}).get("name") == source.name)


def _held_back(folder: RunFolder) -> bool:
    """Whether the published test part of its own data was kept from the run."""
    plan = folder.read_json(folder.plan) or {}
    return tests_published(str(plan.get("spec", {}).get("split")))


def _read(source: Source, part: str, names: Mapping[str, str], predictor: Predictor, console: Console) -> _Read:
    spec = predictor.model.spec
    found = _Read([], [], [], [], [str(error) for error in source.bad])
    waiting: list[np.ndarray] = []
    with console.progress("evaluating", len(source.items)) as bar:
        for done, item in enumerate(source.items, 1):
            if part != "all" and item.split not in (part, None):
                continue
            for sample in decode(source, item, spec):
                if isinstance(sample, ReadError):
                    found.bad.append(str(sample))
                    continue
                if part != "all" and sample.split != part:
                    continue
                _take(sample, names, spec, found, waiting)
                if len(waiting) == (BATCH if predictor.whole is None else 1):
                    found.outputs.append(predictor.outputs(waiting))
                    waiting.clear()
            bar.update(done)
    if waiting:
        found.outputs.append(predictor.outputs(waiting))
    return found


def _take(sample: Sample, names: Mapping[str, str], spec: DataSpec, found: _Read, waiting: list[np.ndarray]) -> None:
    if sample.label is None:
        found.bad.append(f"{sample.path}: has no label")
        return
    label = names.get(sample.label, sample.label)
    if wrong := _not_known(label, spec):
        found.bad.append(f"{sample.path}: {wrong}")
        return
    try:
        waiting.append(conform(sample, spec))
    except ReadError as error:
        found.bad.append(str(error))
        return
    found.labels.append(label)
    found.paths.append(sample.path)
    found.groups.append(sample.group)


def _not_known(label: str, spec: DataSpec) -> str:
    """Why a label cannot be compared with the model's answers, "" where it can."""
    if spec.task == "regress":
        return "" if number(label) is not None else f"its label {label!r} is no number"
    if spec.task == "grade":
        value = number(label)
        known = value is not None and value.is_integer() and str(int(value)) in spec.classes
        return "" if known else f"its grade {label!r} is none of the model's"
    wanted = parts(label) if spec.task == "multilabel" else [label]
    wrong = [name for name in wanted if name not in spec.classes]
    return f"its class {wrong[0]!r} is none of the model's" if wrong else ""


def _other_names(source: Source, predictor: Predictor, console: Console) -> dict[str, str]:
    """The model's name of each label that it knows by another: a model that numbers its classes takes them in order."""
    classes, labels = predictor.classes, source.classes
    if not labels or predictor.model.spec.task != "classify" or set(labels) & set(classes):
        return {}
    if len(labels) == len(classes) and list(classes) == [str(i) for i in range(len(classes))]:
        console.warn(
            f"the model names its classes by number; they are taken in order: {', '.join(labels[:5])}, ... "
            "(gridsight import --classes names them)"
        )
        return dict(zip(labels, classes, strict=True))
    raise UsageError(
        f"no class of {source.name} ({', '.join(labels[:5])}, ...) is one of the model's: {', '.join(classes[:5])}, ..."
    )
