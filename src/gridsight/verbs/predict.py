"""predict: labels with calibrated probabilities for files, folders, archives, arrays or standard input."""

from dataclasses import dataclass, field, replace
from math import isnan
from typing import TYPE_CHECKING, Any

from gridsight.core.console import Console
from gridsight.core.errors import UsageError
from gridsight.core.settings import argument, option
from gridsight.verbs import VERBS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridsight.core.errors import ReadError
    from gridsight.data.sample import Sample
    from gridsight.data.spec import DataSpec


@dataclass(frozen=True)
class PredictSettings:
    """Name what new items are, with calibrated probabilities, and say "unsure" where they are too low.

    A model of numbers says each with the interval that holds a promised share of new items.

    PATH is a file, a folder, a zip or tar, a table of files, an array file (.npy, .npz: one item or many) or - for
    standard input.

    examples:
      gridsight predict runs/photos-1 holiday/*.jpg
      gridsight predict runs/photos-1 inbox.zip --json > answers.jsonl
      gridsight predict runs/digits-1 scans.npy --coverage 0.8
      gridsight predict runs/tissue-1 slide.tif --whole
      cat one.png | gridsight predict runs/photos-1 -
    """

    run: str = argument("a run folder or a model file")
    paths: tuple[str, ...] = argument("what to predict")
    coverage: float | None = option(None, "share of items to be answered; the least certain rest is 'unsure'")
    top: int = option(3, "classes to show an item, the likeliest first")
    whole: bool = option(False, "items at their own resolution, in exact tiles: for networks trained on crops of it")
    overlap: float | None = option(None, "with --whole: windows of the trained size that share this part of an axis")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...", metavar="NAME")
    json: bool = option(False, "one JSON object an item")


@dataclass(frozen=True)
class Predictions:
    """`items` are the answers in the order of the input, one dict each as `--json` prints them.

    A command that prints them as they come keeps none, so that a million files need no more memory than one.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    @property
    def exit_code(self) -> int:
        """1 when an item has no answer."""
        return int(self.failed > 0)


@VERBS.register("predict", settings=PredictSettings)
def predict(settings: PredictSettings, console: Console) -> Predictions:
    """Answer for every item of the paths; an item that cannot be read or answered is an entry with "error"."""
    from gridsight.artifact.predictor import load
    from gridsight.verbs._judge import like_chance

    if settings.top < 1:
        raise UsageError(f"--top must be at least 1, not {settings.top}")
    predictor = load(settings.run, settings.device)
    calibration = predictor.model.calibration
    if predictor.model.spec.task == "regress":
        if calibration.margin is None:
            console.note("this model has no intervals: too few data, or none, were left to set them on")
    elif not calibration.calibrated:
        console.note("this model is not calibrated: its probabilities are the network's own")
    if text := like_chance(predictor.task, predictor.model.metrics, "held-out data"):
        console.warn(text)
    kept: list[dict[str, Any]] = []
    failed = answered = unsure = 0
    if settings.overlap is not None and not settings.whole:
        raise UsageError("--overlap is for --whole, which looks at items through windows")
    spec = predictor.model.spec
    # whole items are wanted at their own resolution, of which decoding may otherwise leave some out
    samples = _samples(settings.paths, replace(spec, fit="patch") if settings.whole else spec)
    if settings.whole:
        from gridsight.artifact.whole import whole_answers

        answers = whole_answers(predictor, samples, coverage=settings.coverage, overlap=settings.overlap)
    else:
        answers = predictor.answers(samples, coverage=settings.coverage)
    for item in answers:
        failed += "error" in item
        answered += "error" not in item
        unsure += bool(item.get("unsure"))
        console.emit(item)
        if not console.json:
            console.say(_line(item, settings.top))
        if console.quiet:
            kept.append(item)
    if answered + failed == 0:
        raise UsageError(f"nothing to predict in {', '.join(settings.paths)}")
    if answered + failed > 1:
        console.note(f"{answered:,} answered, {unsure:,} of them unsure; {failed:,} without an answer")
    if predictor.resized:
        size = "x".join(map(str, predictor.model.spec.spatial))
        console.warn(f"resized: {predictor.resized:,} (all training items had {size}, so answers are less certain)")
    return Predictions(kept, failed)


def _samples(paths: tuple[str, ...], spec: "DataSpec") -> "Iterator[Sample | ReadError]":
    from pathlib import Path

    from gridsight.artifact.inputs import read_path

    for path in paths:
        if path == "-":
            yield from _standard_input(spec)
        else:
            yield from read_path(Path(path), spec)


def _standard_input(spec: "DataSpec") -> "Iterator[Sample | ReadError]":
    """One file from standard input; its format is known by its content."""
    import sys
    import tempfile
    from pathlib import Path

    from gridsight.artifact.inputs import read_path
    from gridsight.core.errors import ReadError
    from gridsight.data.files import MAX_MEMBER
    from gridsight.data.sample import Sample

    with tempfile.TemporaryDirectory(prefix="gridsight-") as folder:
        path = Path(folder) / "input"
        content = sys.stdin.buffer.read(MAX_MEMBER + 1)
        if len(content) > MAX_MEMBER:
            yield ReadError("-", f"is over {MAX_MEMBER:,} bytes")
            return
        path.write_bytes(content)
        for sample in read_path(path, spec):
            name = sample.path.replace(str(path), "-", 1)
            yield replace(sample, path=name) if isinstance(sample, Sample) else ReadError(name, sample.reason)


def _line(item: dict[str, Any], top: int) -> str:
    if "error" in item:
        return f"{item['path']}  no answer: {item['error']}"
    unsure = f"unsure ({item['reason']}): " if item.get("unsure") else ""
    if "value" in item:
        unit = f" {item['unit']}" if item["unit"] else ""
        known = "" if isnan(item["low"]) else f"  ({item['low']:.4g} to {item['high']:.4g})"
        return f"{item['path']}  {unsure}{item['value']:.4g}{unit}{known}"
    if "labels" in item:
        said = "  ".join(f"{name} {item['probabilities'][name]:.1%}" for name in item["labels"])
        return f"{item['path']}  {unsure}{said or 'none of the classes'}"
    best = sorted(item["probabilities"].items(), key=lambda pair: -pair[1])[:top]
    shown = "  ".join(f"{name} {share:.1%}" for name, share in best)
    return f"{item['path']}  {unsure}{shown}"
