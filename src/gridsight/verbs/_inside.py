"""`explain --inside`: what a network has inside, as figures with their numbers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gridsight.artifact.predictor import Predictor, load
from gridsight.core.console import Console, counted
from gridsight.core.errors import UsageError
from gridsight.measure.layers import STAGE, find_layer, layers
from gridsight.reporting import inside_figures as draw
from gridsight.reporting.evidence import limit_of, save
from gridsight.verbs._explain import Folder, save_arrays
from gridsight.verbs._subjects import Subject, Subjects
from gridsight.verbs.explain import ExplainSettings, Explanations

MANY = 256
"""Items that patches, dreams, concepts and likeness are found on where no number is given."""
UNITS, PATCHES = 6, 8
TILES = {1: 64, 2: 64, 3: 24}
"""Filters or maps in a figure, by axes."""


@dataclass(eq=False)
class Found:
    """One figure: `head` lines above it, `facts` for the entry, `arrays` to keep."""

    name: str
    figure: Callable[[], Figure]
    said: str
    facts: dict[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(eq=False)
class Look:
    """What the looks share: the network, its items and what the user asked for."""

    predictor: Predictor
    settings: ExplainSettings
    console: Console
    failed: int = 0

    @property
    def net(self) -> Any:
        return self.predictor.net

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) of an item as the network sees it."""
        return tuple(self.predictor.example().shape[1:])

    @property
    def how(self) -> dict[str, Any]:
        """How parts of items are drawn."""
        model = self.predictor.model
        return {"alphabet": model.spec.alphabet, "sound": model.front.mel is not None, "spacing": model.spec.spacing}

    def layer(self, shape: tuple[int, ...]) -> str:
        """The layer that was asked for, or the last one of more than a cell."""
        if self.settings.layer is not None:
            return find_layer(self.net, shape, self.settings.layer).name
        known = [layer for layer in layers(self.net, shape) if prod(layer.shape[1:]) > 1]
        if not known:
            raise UsageError(f"{type(self.net).__name__} has no layer of more than one cell")
        return known[-1].name

    def subjects(self, most: int) -> list[Subject]:
        """Items of the paths, or of the run's own test data."""
        found = Subjects(self.predictor, self.settings, self.console, most=self.settings.items or most)
        kept = []
        for each in found:
            if isinstance(each, Subject):
                kept.append(each)
            else:
                self.console.say(f"{each['path']}  no answer: {each['error']}")
        self.failed = found.failed
        if not kept:
            raise UsageError("no item is left to look at")
        return kept

    def data(self) -> tuple[Tensor, list[Subject]]:
        """(N, C, *spatial) of the items of the most frequent size, and these items."""
        found = self.subjects(MANY)
        size, count = Counter(each.x.shape for each in found).most_common(1)[0]
        if count < len(found):
            self.console.note(f"{len(found) - count:,} of {len(found):,} items have another size and are left out")
        kept = [each for each in found if each.x.shape == size]
        return torch.cat([each.x for each in kept]), kept

    def units(self, count: int, default: Sequence[int]) -> list[int]:
        """The channels that were asked for, or `default`."""
        for unit in self.settings.unit:
            if not 0 <= unit < count:
                raise UsageError(f"--unit {unit}: the layer has channels 0 to {count - 1}")
        return list(self.settings.unit or default)


def look_inside(settings: ExplainSettings, console: Console) -> Explanations:
    """Figures of one look, written as they come."""
    predictor = load(settings.run, settings.device, folded=False)
    look, out, kept = Look(predictor, settings, console), Folder(settings), []
    assert settings.inside is not None
    for number, found in enumerate(LOOKS[settings.inside](look), 1):
        stem = f"{settings.inside}-{number:03d}-{found.name.replace(' ', '_')}"
        entry = {"inside": settings.inside, **found.facts}
        if found.arrays:
            entry["arrays"] = str(out.path / f"{stem}.npz")
            save_arrays(Path(entry["arrays"]), found.arrays)
        if settings.figures != "none":
            entry["figure"] = str(out.path / f"{stem}.{settings.figures}")
            save(found.figure(), Path(entry["figure"]))
        out.append(entry)
        console.emit(entry)
        console.say(found.said + (f"  {entry['figure']}" if "figure" in entry else ""))
        kept += [entry] if console.quiet else []
    return Explanations(out.path, kept, [], look.failed)


def _filters(look: Look) -> list[Found]:
    from gridsight.inside.filters import filters

    found = filters(look.net, look.settings.layer)
    chosen = look.units(len(found.weights), found.order[: TILES[found.weights.dim() - 2]])
    weights = found.weights.numpy()
    kernel = " x ".join(map(str, weights.shape[2:]))
    said = (
        f"{found.layer}: {len(weights):,} filters of {counted(weights.shape[1], 'channel')}, {kernel} cells; "
        f"scale from -{found.scale:.3g} to {found.scale:.3g}"
    )
    more = "" if len(chosen) == len(weights) else f"; shown: the {len(chosen)} longest"
    kind = " in colour" if weights.ndim == 4 and weights.shape[1] == 3 else ""
    kind = " (of each its strongest input channel)" if weights.ndim > 3 and weights.shape[1] not in (1, 3) else kind
    head = (f"Filters of {found.layer}{kind}", said + more)
    return [
        Found(
            found.layer,
            lambda: draw.tiles(head, [weights[i] for i in chosen], [str(i) for i in chosen], found.scale, "weight"),
            said,
            {"layer": found.layer, "filters": len(weights), "scale": found.scale, "units": chosen},
            {"weights": weights},
        )
    ]


def _maps(look: Look) -> list[Found]:
    from gridsight.inside.maps import feature_maps

    made = []
    for subject in look.subjects(1):
        layer = look.layer(tuple(subject.x.shape[1:]))
        (found,) = feature_maps(look.net, subject.x[0], [layer])
        values = found.values.cpu().numpy()
        strongest = np.argsort(-np.abs(values).reshape(len(values), -1).max(1))[: TILES[values.ndim - 1]]
        chosen = look.units(len(values), sorted(int(i) for i in strongest))
        limit = limit_of(values[chosen])
        said = (
            f"{layer}: {len(values):,} maps of {' x '.join(map(str, values.shape[1:]))} cells, up to {found.scale:.3g}"
        )
        head = (subject.path, f"answer: {subject.words()}", f"Maps of {said}; shown: {len(chosen)}")

        def figure(head: Sequence[str] = head, values: np.ndarray = values, chosen: Sequence[int] = tuple(chosen),
                   limit: float = limit) -> Figure:  # fmt: skip
            clipped = bool(np.abs(values[list(chosen)]).max() > limit * 1.0001)
            if values.ndim == 2:  # of a line: channels one below the other
                return draw.tiles(
                    head, [values[list(chosen)]], ["channels from top to bottom"], limit, "value", clipped=clipped
                )
            maps = [values[i][None] for i in chosen]
            return draw.tiles(head, maps, [str(i) for i in chosen], limit, "value", clipped=clipped)

        facts = {"path": subject.path, "layer": layer, "scale": found.scale, "units": chosen}
        made.append(Found(layer, figure, f"{subject.path}  {said}", facts, {"values": values}))
    return made


def _pooled(look: Look) -> list[Found]:
    from gridsight.inside.pooled import pooled

    made = []
    for subject in look.subjects(1):
        found = pooled(look.net, subject.x[0], look.settings.layer)
        after, before, winner = (v.cpu().numpy() for v in (found.after, found.before, found.winner))
        best = int(after.reshape(len(after), -1).max(1).argmax())
        middle = [
            (kernel - 1) * dilation / 2 - padding
            for kernel, dilation, padding in zip(found.kernel, found.dilation, found.padding, strict=True)
        ]
        for unit in look.units(len(after), [best]):
            head = (
                subject.path,
                f"{found.layer}, channel {unit}: windows of {found.kernel} every {found.stride} cells",
            )

            def figure(head: Sequence[str] = head, unit: int = unit, before: np.ndarray = before,
                       after: np.ndarray = after, winner: np.ndarray = winner,
                       stride: tuple[int, ...] = found.stride, middle: Sequence[float] = middle) -> Figure:  # fmt: skip
                return draw.pool_figure(head, before[unit], after[unit], winner[unit], stride, middle)

            facts = {"path": subject.path, "layer": found.layer, "unit": unit}
            arrays = {"before": before[unit], "after": after[unit], "winner": winner[unit]}
            made.append(Found(found.layer, figure, f"{subject.path}  {head[1]}", facts, arrays))
    return made


def _patches(look: Look) -> list[Found]:
    from gridsight.inside.patches import top_patches

    x, subjects = look.data()
    layer = look.layer(tuple(x.shape[1:]))
    count = find_layer(look.net, tuple(x.shape[1:]), layer).shape[0]
    found = top_patches(look.net, x, layer, look.units(count, range(count)), k=PATCHES)
    order = np.argsort(-found.values[:, 0], kind="stable")[: len(look.settings.unit) or UNITS]
    rows = [[patch.numpy() for patch in found.rows[i]] for i in order]
    names = [f"channel {found.units[i]}" for i in order]
    captions = [[f"{value:.2f}" for value in found.values[i]] for i in order]
    size = " x ".join("all" if s is None else str(s) for s in found.seen.field.size)
    said = f"{layer}: what moves its channels most in {found.n:,} items, cut by what a cell sees ({size} cells)"
    head = (
        f"Patches of {layer}",
        said,
        "Numbers: the channel's value there. One scale a row; beyond an item's edge is zero.",
    )
    where = {str(found.units[i]): [subjects[int(n)].path for n in found.items[i]] for i in order}
    facts: dict[str, Any] = {"layer": layer, "units": [found.units[i] for i in order], "paths": where, "n": found.n}
    arrays: dict[str, np.ndarray] = {"values": found.values, "items": found.items, "cells": found.cells}
    return [Found(layer, lambda: draw.rows_of_items(head, rows, names, captions, **look.how), said, facts, arrays)]


def _dream(look: Look) -> list[Found]:
    from gridsight.inside.dream import dream, survey

    x, _ = look.data()
    layer, classes = look.settings.layer, look.predictor.classes
    if layer is not None:
        count = find_layer(look.net, tuple(x.shape[1:]), layer).shape[0]
        names = [f"channel {i}" for i in range(count)]
    else:
        names = list(classes) or ["a higher number"]
        if look.predictor.model.spec.task == "grade":
            names = [f"{name} or higher" for name in names[1:]]
    made, units = [], look.units(len(names), range(min(UNITS, len(names))))
    known = survey(look.net, layer, units, x)
    for unit, best in zip(units, known.best, strict=True):
        found = dream(look.net, layer, unit, known)
        reached = "beyond" if found.reached else "below"
        said = (
            f"{layer or 'answer'}, {names[unit]}: {found.figure:.3g}, more than {found.percentile:.1f} % of {len(x):,} "
            f"items reach ({reached} their 99.9th percentile, {found.aim:.3g})"
        )
        head = (f"What moves {names[unit]} most", said)

        def figure(head: Sequence[str] = head, dreamt: Tensor = found.x, best: Tensor = best) -> Figure:
            both = [dreamt.cpu().numpy(), best.cpu().numpy()]
            return draw.rows_of_items(head, [both], [""], [["dreamt", "the item that moves it most"]], **look.how)

        facts = {"layer": layer, "unit": unit, "figure_of": found.figure, "aim": found.aim, "reached": found.reached}
        made.append(Found(f"{layer or 'answer'}-{unit}", figure, said, facts, {"x": found.x.cpu().numpy()}))
    return made


def _concepts(look: Look) -> list[Found]:
    from gridsight.inside.concepts import find_concepts

    x, _ = look.data()
    layer = look.layer(tuple(x.shape[1:]))
    found = find_concepts(look.net, x, layer)
    top = found.top
    rows = [[patch.numpy() for patch in row[:PATCHES]] for row in top.rows]
    names = [f"concept {i + 1}" for i in range(len(rows))]
    captions = [[f"{value:.2f}" for value in row[:PATCHES]] for row in top.values]
    said = f"{layer}: {len(rows)} concepts hold {found.explained:.0%} of what it says of {found.n:,} items"
    head = (f"Concepts of {layer}", said, "Numbers: how strongly the concept is there.")
    classes = list(look.predictor.classes) or ["the number"]
    if look.predictor.model.spec.task == "grade":
        classes = [f"{name} or higher" for name in classes[1:]]
    about = (
        "Mean change of each output by a concept; a dot: its interval is off 0, and few random directions do as much"
    )
    head_of_effects = (f"Effects of the concepts of {layer}", said, about)
    facts = {"layer": layer, "explained": found.explained, "effect": found.effect.tolist(), "low": found.low.tolist(),
             "high": found.high.tolist(), "n": found.n}  # fmt: skip
    return [
        Found(
            layer,
            lambda: draw.rows_of_items(head, rows, names, captions, **look.how),
            said,
            facts,
            {"basis": found.basis.cpu().numpy()},
        ),
        Found(
            f"{layer}-effects",
            lambda: draw.effects_figure(head_of_effects, found.effect, found.beyond, classes),
            f"{layer}: what each concept does to each output",
            {"layer": layer},
        ),
    ]


def _similarity(look: Look) -> list[Found]:
    from gridsight.inside.similarity import similarity

    x, _ = look.data()
    known = layers(look.net, tuple(x.shape[1:]))
    names = [each.name for each in known if each.name.startswith(STAGE)] or [each.name for each in known][:16]
    if look.settings.layer is not None:
        names = list(dict.fromkeys([look.layer(tuple(x.shape[1:])), *names]))
    found = similarity(look.net, x, names)
    said = f"how alike layers are (linear CKA) over {found.n:,} items"
    head = ("Likeness of layers", f"{said}; 1: they say the same up to a turn, 0: nothing in common")
    facts = {"layers": names, "values": found.values.tolist(), "n": found.n}
    return [Found("layers", lambda: draw.matrix_figure(head, found.values, found.rows, found.columns), said, facts,
                  {"values": found.values})]  # fmt: skip


def _receptive(look: Look) -> list[Found]:
    from gridsight.inside.receptive import effective

    x, _ = look.data()
    layer = look.layer(tuple(x.shape[1:]))
    made = []
    for unit in look.settings.unit or (None,):
        found = effective(look.net, x, layer, unit)
        heat = found.heat.cpu().numpy()
        size = " x ".join(str(high - low) for low, high in found.box)
        said = f"{layer}, cell {found.cell}: sees {size} cells, and uses {found.share:.0%} of these ({found.n:,} items)"
        head = (f"What a cell of {layer} looks at", f"{said}; colour: mean gradient, box: all that it could see")

        def figure(head: Sequence[str] = head, heat: np.ndarray = heat, box: Any = found.box) -> Figure:
            return draw.field_figure(head, heat, box, look.predictor.model.spec.spacing)

        facts = {"layer": layer, "unit": unit, "box": found.box, "share": found.share, "n": found.n}
        made.append(Found(layer, figure, said, facts, {"heat": heat}))
    return made


LOOKS: Mapping[str, Callable[[Look], Sequence[Found]]] = {
    "filters": _filters,
    "maps": _maps,
    "pooled": _pooled,
    "patches": _patches,
    "dream": _dream,
    "concepts": _concepts,
    "similarity": _similarity,
    "receptive": _receptive,
}
