"""What `explain` explains: items as `predict` reads them, or some of the run's own test data, with the model's answer.

An item is a `Subject`: its raw cells, what the network sees of them, the answer, the truth where it is known, and the
output that is explained.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gridsight.artifact.inputs import read_path
from gridsight.artifact.predictor import Predictor
from gridsight.core.console import Console
from gridsight.core.errors import ReadError, UsageError, nearest
from gridsight.core.run import RunFolder
from gridsight.core.settings import from_toml
from gridsight.data.conform import conform
from gridsight.data.decoding import decode
from gridsight.data.files import exists
from gridsight.data.sample import Sample
from gridsight.data.source import Source, asked, find
from gridsight.data.spec import DataSpec
from gridsight.data.target import number
from gridsight.verbs._data import decoded, parts_of
from gridsight.verbs._start import find_start
from gridsight.verbs.explain import ExplainSettings
from gridsight.verbs.train import TrainSettings

OWN = 6
"""Items of the run's own test data where no number is given: as many right as wrong as unsure."""


@dataclass(frozen=True, eq=False)
class Subject:
    """`x` (1, C, *spatial) is what the network sees, `raw` (C, *spatial) the conformed item, `said` its answer.

    `target` is the number of the output that is explained and `name` what stands for it in words; `truth` the label
    where it is known.
    """

    path: str
    raw: np.ndarray
    x: Tensor
    said: dict[str, Any]
    target: int
    name: str
    truth: str | None = None

    @property
    def wrong(self) -> bool | None:
        """Whether the answer differs from the truth; None where that is not known or the answer is a number."""
        if self.truth is None or "label" not in self.said:
            return None
        return bool(self.said["label"] != self.truth)

    def words(self) -> str:
        """The answer, its probability, the truth, and whether the model is unsure, in one line."""
        said = self.said
        if "value" in said:
            text = f"{said['value']:.4g}{' ' + said['unit'] if said['unit'] else ''}"
        elif "labels" in said:
            text = " and ".join(said["labels"]) or "none of the classes"
        else:
            text = f"{said['label']}, {said['probability']:.1%}"
        notes = [f"unsure: {said['reason']}"] if said.get("unsure") else []
        if self.wrong:
            notes.append(f"MISTAKE: it is {self.truth}")
        elif self.wrong is False:
            notes.append("right")
        elif self.truth is not None:
            notes.append(f"true {self.truth}")
        return f"{text} ({'; '.join(notes)})" if notes else text


@dataclass
class Subjects:
    """The items of the paths one by one, or of the run's own test data; at most `most`.

    `failed` counts those that cannot be read or answered.
    """

    predictor: Predictor
    settings: ExplainSettings
    console: Console
    most: int | None = None
    failed: int = field(default=0)

    def __post_init__(self) -> None:
        spec = self.predictor.model.spec
        if spec.fit == "patch":
            self.console.note("this network is trained on patches: what is larger than one is explained at its middle")
        self.target = _target(self.settings.target, spec)
        # a name that means nothing must not be found out after an hour of explaining
        self.sources = [None if exists(Path(path)) else _set(path, spec) for path in self.settings.paths]

    def __iter__(self) -> Iterator[Subject | dict[str, Any]]:
        """Subjects, and {"path", "error"} of what cannot be explained."""
        settings, found = self.settings, 0
        most = self.most or settings.items
        own = not settings.paths
        samples = own_test(self.predictor, settings.run, most or OWN, self.console) if own else self._of_paths()
        for sample in islice(samples, most):
            found += 1
            each = self._subject(sample)
            self.failed += isinstance(each, dict)
            yield each
        if not found:
            raise UsageError(f"nothing to explain in {', '.join(settings.paths) or settings.run}")

    def _of_paths(self) -> Iterator[Sample | ReadError]:
        for path, source in zip(self.settings.paths, self.sources, strict=True):
            if source is None:
                yield from read_path(Path(path), self.predictor.model.spec)
            else:
                if not _has_test(source):
                    self.console.note(f"{path} has no test part: the network may have learned from these items")
                yield from _of_set(source, self.predictor.model.spec)

    def _subject(self, sample: Sample | ReadError) -> Subject | dict[str, Any]:
        predictor, spec = self.predictor, self.predictor.model.spec
        if isinstance(sample, ReadError):
            return {"path": sample.path, "error": sample.reason}
        try:
            raw = conform(sample, spec)
        except ReadError as error:
            return {"path": error.path, "error": error.reason}
        if spec.fit == "patch":
            raw = _middle(raw, spec.spatial)
            sample = replace(sample, array=raw)
        (said,) = predictor.answers([sample])
        if "error" in said:
            return said
        with torch.no_grad():
            x, _ = predictor.seen([raw])  # alone it has no padding that a mask would hide
        target, name = self.target or _answered(said, spec)
        return Subject(sample.path, raw, x.contiguous(), said, target, name, _truth(sample, spec))


def _target(given: str | None, spec: DataSpec) -> tuple[int, str] | None:
    """(output, in words) of `--target`; None where each item's own answer is explained."""
    if given is None:
        return None
    if spec.task == "regress":
        raise UsageError("this model says one number, which is what is explained: --target is for classes")
    if given in spec.classes:
        index = spec.classes.index(given)
    elif given.isdecimal() and int(given) < len(spec.classes):
        index = int(given)
    else:
        last = len(spec.classes) - 1
        raise UsageError(f"there is no class {given!r} (numbers go from 0 to {last}); {nearest(given, spec.classes)}")
    if spec.task != "grade":
        return index, spec.classes[index]
    if index == 0:
        raise UsageError(f"{spec.classes[0]} is the lowest grade, which no output speaks for: explain a higher one")
    return index - 1, f"{spec.classes[index]} or higher"


def _answered(said: dict[str, Any], spec: DataSpec) -> tuple[int, str]:
    """The output that stands for an answer, and what it says in words."""
    if spec.task == "regress":
        return 0, "a higher number"
    if spec.task == "multilabel":
        name = max(said["probabilities"], key=said["probabilities"].__getitem__)
        return spec.classes.index(name), name
    index = spec.classes.index(said["label"])
    if spec.task == "grade":
        index = max(1, index)
        return index - 1, f"{spec.classes[index]} or higher"
    return index, said["label"]


def _truth(sample: Sample, spec: DataSpec) -> str | None:
    """The label that the data give, or the innermost folder that has the name of a class."""
    if sample.label is not None:
        if spec.task != "grade":
            return sample.label
        value = number(sample.label)
        return sample.label if value is None else f"{value:g}"
    if spec.task not in ("classify", "grade"):
        return None
    folders = re.split(r"[/!\\]", sample.path)[:-1]
    return next((name for name in reversed(folders) if name in spec.classes), None)


def _middle(raw: np.ndarray, spatial: Sequence[int]) -> np.ndarray:
    boxes = [slice(max(0, (n - size) // 2), max(0, (n - size) // 2) + size) for n, size in
             zip(raw.shape[1:], spatial, strict=True)]  # fmt: skip
    return raw[(slice(None), *boxes)]


def _set(name: str, spec: DataSpec) -> Source:
    """The data set of that name, as the model reads it."""
    return find(name, usual=spec.target, clips=spec.kind == "video", grouped=spec.group, resplit=False)


def _has_test(source: Source) -> bool:
    return any(item.split == "test" for item in source.items)


def _of_set(source: Source, spec: DataSpec) -> Iterator[Sample | ReadError]:
    """The test items of a data set, or all where it has no test part."""
    only = _has_test(source)
    for item in source.items:
        if not only or item.split in ("test", None):
            for sample in decode(source, item, spec):
                if isinstance(sample, ReadError) or not only or sample.split == "test":
                    yield sample


def own_test(predictor: Predictor, run: str, count: int, console: Console) -> Iterator[Sample]:
    """Some of the run's own test items: mistakes, unsure ones and right ones in turn, the clearest of each first."""
    if not Path(run).is_dir():
        raise UsageError(f"{run} is a model file without data; give PATH to explain")
    folder = RunFolder.open(run)
    trained = from_toml(TrainSettings, folder.settings.read_text(encoding="utf-8"), str(folder.settings))
    source = find(trained.data, **asked(trained))
    data = decoded(source, trained, find_start(folder, trained, console), Console(quiet=True))
    if data.fingerprint != (folder.read_json(folder.plan) or {}).get("fingerprint"):
        raise UsageError(f"the data have changed since {folder.path} was trained; give PATH to explain")
    spec, test = predictor.model.spec, parts_of(data, trained).test
    rows = {path: i for i, path in enumerate(data.paths)} if trained.folds else {}
    for number_of, path in _chosen(folder, count):
        index = rows[path] if trained.folds else int(test[number_of])
        array = np.ascontiguousarray(data.x[index])
        label = _label(data.y[index], spec)
        yield Sample(array, data.paths[index], label, rate=spec.rate, spacing=spec.spacing, alphabet=spec.alphabet)


def _label(y: Any, spec: DataSpec) -> str:
    if spec.task == "regress":
        return f"{float(y):.4g}"
    if spec.task == "multilabel":
        return " and ".join(name for name, has in zip(spec.classes, y, strict=True) if has) or "none of the classes"
    return spec.classes[int(y)]


def _chosen(folder: RunFolder, count: int) -> list[tuple[int, str]]:
    """(number among the test items, path) of `count` of them."""
    from gridsight.reporting.contents import load

    found = load(folder).predictions
    if found is None:
        raise UsageError(f"{folder.path} holds no predictions.npz; give PATH to explain")
    sure = getattr(found, "confidence", None)
    if sure is None or found.target.ndim != 1:  # numbers and sets of classes: the worst, and evenly spread ones
        rest = np.linspace(0, len(found.target) - 1, min(count, len(found.target))).round().astype(int)
        order = [*found.worst_index[: count // 2], *rest]
    else:
        wrong = np.asarray(getattr(found, "predicted", found.target) != found.target)
        by_sure = np.argsort(-sure, kind="stable")
        groups = [by_sure[wrong[by_sure]], by_sure[::-1], by_sure[~wrong[by_sure]]]
        order = [int(group[i]) for i in range(count) for group in groups if i < len(group)]
    unique = list(dict.fromkeys(int(i) for i in order))[:count]
    return [(i, str(found.paths[i])) for i in unique]
