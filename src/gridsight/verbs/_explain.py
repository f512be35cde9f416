"""Explanations item by item: maps, verdicts, figures and lines, each written as soon as it is there."""

import inspect
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gridsight.artifact.predictor import Predictor, load
from gridsight.attribution import EXPLAINERS, Explainer, Map, checked
from gridsight.attribution.judge import Verdict, judge
from gridsight.core.console import Console, counted, dumps
from gridsight.core.errors import UsageError, nearest
from gridsight.core.run import atomic_write
from gridsight.data.spec import DataSpec
from gridsight.nn.logmel import band_edges
from gridsight.verbs._arguments import given_arguments
from gridsight.verbs._subjects import Subject, Subjects
from gridsight.verbs.explain import METHOD, ExplainSettings, Explanations

BASELINES = {
    "zero": "zero, which is the mean of the training data",
    "mean": "the item's own mean, channel by channel",
    "blur": "the item itself, blurred",
}
LETTERS = 256
"""Most windows on a sequence."""
SHARED = ("layer", "baseline", "regions", "samples")
"""Options that go to the methods that have a setting of that name."""


@dataclass(eq=False)
class Method:
    """A method by its name with its settings; `reason` says why its layer was taken, once that is known."""

    name: str
    explainer: Explainer
    reason: str = ""
    fine: bool = False

    def on(self, x: Tensor, spec: DataSpec) -> Explainer:
        """The method for an item x (1, C, *spatial); where the user says nothing of windows, fine ones along a line.

        Letter by letter the maps of splice sites were twice as faithful as in windows of an eighth, at the same price;
        signals want windows of an eighth that overlap (0.7 against 0.5).
        """
        if not self.fine or x.dim() != 3:
            return self.explainer
        length = x.shape[2]
        size = -(-length // LETTERS) if spec.alphabet else -(-length // 8)
        return replace(self.explainer, size=size, stride=size if spec.alphabet else max(1, size // 4))  # type: ignore[type-var]

    @property
    def baseline(self) -> str | None:
        """What it takes for nothing, where it needs that."""
        return getattr(self.explainer, "baseline", None)

    def told(self, spec: DataSpec) -> list[str]:
        """Sentences about the baseline, the layer, and what speaks against the method."""
        tags = EXPLAINERS.get(self.name).tags
        lines = [] if tags["sound"] else [f"known to mislead: {tags['unsound']}"]
        if self.baseline is not None:
            empty = "no letter at all" if spec.alphabet and self.baseline == "zero" else BASELINES[self.baseline]
            if spec.kind == "sound" and self.baseline == "zero":
                empty = "zero, which is the mean level of the sound itself"
            lines.append(f"baseline: {empty}")
        if self.reason:
            lines.append(f"layer: {self.reason}")
        elif getattr(self.explainer, "layer", None):
            lines.append(f"layer: {self.explainer.layer}, as asked")  # type: ignore[attr-defined]
        return lines


def explain_items(settings: ExplainSettings, console: Console) -> Explanations:
    """One entry an item and method: answer, map, verdict, figure."""
    predictor = load(settings.run, settings.device, folded=False)
    methods = methods_of(settings, settings.method or (METHOD,))
    subjects = Subjects(predictor, settings, console)
    out, kept, maps, written = Folder(settings), list[dict[str, Any]](), list[Map | None](), 0
    told = set[str]()
    total = settings.items or (len(settings.paths) if settings.paths else 0)
    with console.progress("explaining", max(1, total)) as bar:
        for number, subject in enumerate(subjects, 1):
            if isinstance(subject, dict):
                console.emit(subject)
                console.say(f"{subject['path']}  no answer: {subject['error']}")
                kept += [subject] if console.quiet else []
                maps += [None] if console.quiet else []
                continue
            console.say(f"{subject.path}  {subject.words()}")
            for method in list(methods):
                try:
                    entry, found, verdict = explained(predictor, subject, method, settings)
                except UsageError as error:
                    if method.name in told:  # it is this item that it cannot explain
                        failed = {"path": subject.path, "method": method.name, "error": str(error)}
                        subjects.failed += 1
                        console.emit(failed)
                        console.say(f"  {method.name}: {error}")
                        kept += [failed] if console.quiet else []
                        maps += [None] if console.quiet else []
                        continue
                    if len(methods) == 1:
                        raise
                    console.warn(f"{method.name} is left out: {error}")
                    methods.remove(method)
                    continue
                if method.name not in told:
                    told.add(method.name)
                    for line in method.told(predictor.model.spec):
                        console.say(f"  {method.name}: {line}")
                out.write(number, subject, method, entry, found, verdict, settings.figures, predictor)
                written += 1
                console.emit(entry)
                console.say(f"  {_line(method.name, entry)}")
                if console.quiet:
                    kept.append(entry)
                    maps.append(found)
            bar.update(number)
    if not written and not subjects.failed:
        raise UsageError("no method was left that can explain this network")
    console.say(f"{counted(written, 'map')} in {out.path}" if written else "no map was made")
    return Explanations(out.path, kept, maps, subjects.failed)


def methods_of(settings: ExplainSettings, names: tuple[str, ...], strict: bool = True) -> list[Method]:
    """The methods with the settings that were given; `strict`: each of these must belong to one of them."""
    given = given_arguments(settings.set, "--set", "steps=64")
    shared = {name: value for name in SHARED if (value := getattr(settings, name)) is not None}
    used, methods = set[str](), []
    for name in dict.fromkeys(names):
        known = list(inspect.signature(EXPLAINERS.get(name).item).parameters)
        own = {key: value for key, value in {**shared, **given}.items() if key in known}
        used |= set(own)
        try:
            fine = name == METHOD and not {"size", "stride"} & set(own)
            methods.append(Method(name, EXPLAINERS.create(name, **own), fine=fine))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name}: {error}") from None
    every = sorted({key for name in names for key in inspect.signature(EXPLAINERS.get(name).item).parameters})
    for key in (*given, *shared):
        if key not in used and (strict or key in given):
            option = f"--{key}" if key in shared and key not in given else f"--set {key}"
            known_by = f"{' and '.join(dict.fromkeys(names))} {'has' if len(set(names)) == 1 else 'have'}"
            raise UsageError(f"{known_by} no setting {key!r} ({option}); {nearest(key, every)}")
    return methods


def explained(
    predictor: Predictor, subject: Subject, method: Method, settings: ExplainSettings
) -> tuple[dict[str, Any], Map, Verdict | None]:
    """The entry of one item, its map and its verdict."""
    started = time.monotonic()
    x, target = checked(subject.x, method.name), torch.tensor([subject.target], device=subject.x.device)
    explainer = method.on(x, predictor.model.spec)
    try:
        found = explainer(predictor.net, x, target)
    except (TypeError, ValueError) as error:  # a setting of a wrong type
        raise UsageError(f"{method.name} cannot be run with {vars(explainer)}: {error}") from None
    if found.layer is not None and getattr(method.explainer, "layer", "") is None:
        # one layer for all items, so that their maps can be compared
        method.reason = next((note for note in found.notes if note.startswith(found.layer)), found.layer)
        method.explainer = explainer = replace(method.explainer, layer=found.layer)  # type: ignore[type-var]
    verdict = None
    if settings.verdict:
        (verdict,) = judge(predictor.net, x, target, explainer, found, baseline=method.baseline or "zero")
    entry = {
        "path": subject.path,
        "answer": {key: value for key, value in subject.said.items() if key != "path"},
        "true": subject.truth,
        "mistake": subject.wrong,
        "method": method.name,
        "target": subject.name,
        "output": subject.target,
        "settings": plain_settings(explainer),
        "baseline": method.baseline,
        "layer": found.layer,
        "layer_reason": method.reason or None,
        "notes": [note for note in found.notes if note != method.reason],
        "residual": None if found.residual is None else float(found.residual[0]),
        "passes": found.passes,
        "verdict": None if verdict is None else told_verdict(verdict),
        "seconds": round(time.monotonic() - started, 3),
    }
    return entry, found, verdict


def told_verdict(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values."""
    checks = {check.name: {"value": check.value, "colour": check.colour} for check in verdict.checks}
    return {"colour": verdict.colour, "sentence": verdict.sentence, "checks": checks}


def plain_settings(explainer: Explainer) -> dict[str, Any]:
    """The settings of a method as plain values."""
    return {name: value for name, value in vars(explainer).items() if isinstance(value, str | int | float | None)}


def _line(name: str, entry: Mapping[str, Any]) -> str:
    verdict = entry["verdict"]
    judged = f"{verdict['colour'].upper()}: {verdict['sentence']}" if verdict else "not judged"
    figure = f"  {entry['figure']}" if entry.get("figure") else ""
    return f"{name} for {entry['target']}  {judged}{figure}"


class Folder:
    """Where figures, maps and explain.jsonl go; made when the first is written."""

    def __init__(self, settings: ExplainSettings) -> None:
        self.given = Path(settings.out) if settings.out is not None else None
        run = Path(settings.run)
        self.parent = run if run.is_dir() else run.parent
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The folder."""
        if self._path is None:
            self._path = self._made()
        return self._path

    def _made(self) -> Path:
        try:
            if self.given is not None:
                self.given.mkdir(parents=True, exist_ok=True)
                return self.given
            for number in range(1, 1_000_000):
                path = self.parent / f"explain-{number}"
                with suppress(FileExistsError):
                    path.mkdir()
                    return path
            raise UsageError(f"{self.parent} is full of explanations; give --out DIR")
        except OSError as error:
            place = self.given or self.parent
            raise UsageError(f"cannot write to {place}: {error.strerror}; give --out DIR") from None

    def write(
        self,
        number: int,
        subject: Subject,
        method: Method,
        entry: dict[str, Any],
        found: Map,
        verdict: Verdict | None,
        figures: str,
        predictor: Predictor,
    ) -> None:
        """The map, its figure and the entry, which then says where they are; what was there before stays."""
        name = f"{number:03d}-{slug(subject.path)}-{method.name}"
        entry["map"] = str(self.path / f"{name}.npz")
        save_map(Path(entry["map"]), found)
        if figures != "none":
            from gridsight.reporting.evidence import evidence_figure, save

            entry["figure"] = str(self.path / f"{name}.{figures}")
            save(evidence_figure(evidence_of(predictor, subject, method, entry, found, verdict)), Path(entry["figure"]))
        self.append(entry)

    def append(self, entry: Mapping[str, Any]) -> None:
        """A line of explain.jsonl."""
        with (self.path / "explain.jsonl").open("a", encoding="utf-8") as file:
            file.write(dumps(entry) + "\n")


def evidence_of(
    predictor: Predictor,
    subject: Subject,
    method: Method,
    entry: Mapping[str, Any],
    found: Map,
    verdict: Verdict | None,
) -> Any:
    """What the figure of one map shows."""
    from gridsight.reporting.evidence import Bands, Evidence

    spec, mel = predictor.model.spec, predictor.model.front.mel
    item = subject.x[0].cpu().numpy() if mel is not None else subject.raw
    own = tuple(slice(0, n) for n in item.shape[1:])  # the network may have seen padding beyond the item
    values = found.values[0].detach().cpu().numpy()[own]
    item = item[(slice(None), *(slice(0, n) for n in values.shape))]
    channels = None if found.channels is None else found.channels[0].detach().cpu().numpy()[(slice(None), *own)]
    told = "; ".join(method.told(spec))
    changes = None
    if spec.alphabet is not None:
        from gridsight.inside.mutagenesis import mutagenesis

        changes = mutagenesis(predictor.net, subject.x, subject.target).change[0].cpu().numpy()
    return Evidence(
        item=item,
        values=values,
        name=subject.path,
        said=f"answer: {subject.words()}",
        about=f"Evidence for {subject.name}, by {method.name.replace('_', ' ')}" + (f"; {told}" if told else ""),
        verdict=None if verdict is None else (verdict.colour, verdict.sentence),
        spec=spec,
        bands=None if mel is None else Bands(band_edges(mel.rate, mel.n_mels), mel.hop),
        channels=channels,
        spacing=spec.spacing,
        changes=changes,
    )


def save_map(path: Path, found: Map) -> None:
    """The arrays of the map of one item."""
    names = ("values", "channels", "grid", "regions", "parts", "gap", "error")
    save_arrays(path, {n: value[0].detach().cpu().numpy() for n in names if (value := getattr(found, n)) is not None})


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An .npz file, whole or not at all."""
    kept: dict[str, Any] = dict(arrays)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **kept)

    atomic_write(path, write)


def slug(path: str) -> str:
    """The end of a path as a part of a file's name.

    >>> slug("photos/My cat.jpg"), slug("x.npy[12]"), slug("a.zip!b/c.png")
    ('My_cat', 'x_12', 'c')
    """
    last = re.split(r"[/\\!]", path)[-1]
    last = re.sub(r"\.[A-Za-z0-9]{1,5}(?=$|\[)", "", last)
    return re.sub(r"[^A-Za-z0-9-]+", "_", last).strip("_")[:40] or "item"
