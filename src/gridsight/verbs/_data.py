"""The data of a run: decoded or from the cache, and what was understood of them in words."""

import numpy as np

from gridsight.core.console import Console
from gridsight.data.cache import Cached, cached
from gridsight.data.source import Source
from gridsight.data.spacing import words
from gridsight.data.spec import DataSpec
from gridsight.data.split import Split, split
from gridsight.verbs._start import Start
from gridsight.verbs.train import TrainSettings

CHOICES = ("classify", "grade")
"""Tasks with one class an item: each must be trained on where it is tested."""


def decoded(source: Source, settings: TrainSettings, start: Start | None, console: Console) -> Cached:
    """The items of a source as the settings want them, of a size that suits the weights they start from."""
    return cached(
        source,
        console,
        size=settings.patch or settings.size,
        fit="patch" if settings.patch else settings.fit,
        task=settings.task,
        verify=settings.verify,
        sides=start.sides if start else None,
    )


def parts_of(data: Cached, settings: TrainSettings) -> Split:
    """Who of the data is trained on and who is tested, as the settings say."""
    if settings.folds:
        none = np.empty(0, np.int64)
        rest = "; the published split is not used" if any(data.splits) else ""
        return Split(np.arange(len(data)), none, none, f"{settings.folds} folds, each tested once{rest}")
    groups = data.groups if data.spec.group else None
    published = data.splits if any(data.splits) else None
    return split(data.strata, groups, published, settings.seed, classes=data.spec.task in CHOICES)


def describe_data(spec: DataSpec, split: Split, data: Cached, console: Console) -> None:
    """What was understood, before anything is trained."""
    size = "x".join(map(str, spec.spatial))
    unit = {"sound": f" samples at {spec.rate:,.0f} Hz" if spec.rate else "", "series": " steps"}.get(spec.kind, "")
    if spec.alphabet:
        unit = " letters of " + {"dna": "DNA", "protein": "protein"}[spec.alphabet]
    channels = f"{spec.channels} channel" + ("s" if spec.channels > 1 else "")
    console.say(f"data     {spec.name}: {spec.kind}, {channels}, {size}{unit}, {spec.dtype}")
    if spec.fit != "exact" and spec.sizes:
        low, high = ("x".join(map(str, side)) for side in spec.sizes)
        how = {
            "crop": "cut to its aspect and resized",
            "pad": "cut in the middle or given a margin" if spec.spacing else "padded with zeros or cut in the middle",
            "mask": "each at its own size, padding masked",
            "patch": f"each at its own size, trained on patches of {'x'.join(map(str, spec.spatial))}",
        }[spec.fit]
        console.say(f"         sizes {low if low == high else f'{low} to {high}'}: {how}")
    if spec.spacing and spec.spacings:
        low, high = map(words, spec.spacings)
        say = f"spacing {low} mm in all" if low == high else f"spacings from {low} to {high} mm"
        console.say(
            f"         {say}"
            + ("" if low == high == words(spec.spacing) else f": resampled to {words(spec.spacing)} mm")
        )
    if spec.task == "regress":
        low, middle, high = np.quantile(data.y, (0, 0.5, 1))
        unit = f" {spec.unit}" if spec.unit else ""
        console.say(
            f"number   {spec.target or 'target'}: {low:g} to {high:g}{unit}, median {middle:g} (--task overrides)"
        )
    else:
        shown = ", ".join(spec.classes[:12]) + (", ..." if spec.num_classes > 12 else "")
        what = {"multilabel": "any number of these an item", "grade": "ordered grades"}.get(spec.task, "")
        more = f" ({what}; --task overrides)" if what else ""
        console.say(f"classes  {spec.num_classes}: {shown}{more}")
        counts = data.y.sum(0) if spec.task == "multilabel" else np.bincount(data.y, minlength=spec.num_classes)
        _say_imbalance(spec, counts, console)
    console.say("split    " + ", ".join(f"{name} {len(index):,}" for name, index in split.named()))
    console.say(f"         {split.words}")
    for note in spec.notes:
        console.say(f"note     {note}")


def _say_imbalance(spec: DataSpec, counts: np.ndarray, console: Console) -> None:
    if counts.min() < 0.5 * counts.max():
        few, many = int(counts.argmin()), int(counts.argmax())
        rare, common = spec.classes[few], spec.classes[many]
        console.say(f"         imbalanced: {rare} has {int(counts[few]):,} items, {common} {int(counts[many]):,}")
