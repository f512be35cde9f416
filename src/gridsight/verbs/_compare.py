"""`explain --compare`: every method on the same items, as a table of what its maps are worth."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from gridsight.artifact.predictor import load
from gridsight.attribution import EXPLAINERS
from gridsight.attribution.judge import COLOURS
from gridsight.attribution.judge.compare import compare
from gridsight.core.console import Console, counted, dumps
from gridsight.core.errors import UsageError
from gridsight.core.run import atomic_write
from gridsight.verbs._explain import Folder, methods_of, plain_settings
from gridsight.verbs._subjects import Subject, Subjects
from gridsight.verbs.explain import ExplainSettings, Explanations

MOST = 4
"""Items that methods are compared on where no number is given: all of them on one take minutes on a large network."""
AXIOMS = ("efficiency", "dummy", "symmetry")
FIGURES = ("faithful", "p", "alike", "change", "residual", *AXIOMS, "passes", "seconds")


def compare_methods(settings: ExplainSettings, console: Console) -> Explanations:
    """One entry a method: the colour of its verdict, medians of the figures behind it, the axioms, the price."""
    predictor = load(settings.run, settings.device, folded=False)
    ndim = len(predictor.example().shape) - 2
    every = tuple(entry.name for entry in EXPLAINERS.entries() if ndim in entry.tags["ndims"])
    methods = methods_of(settings, settings.method or every, strict=bool(settings.method))
    subjects = Subjects(predictor, settings, console, most=settings.items or MOST)
    found = _alike(list(subjects), console)
    x = torch.cat([subject.x for subject in found])
    target = torch.tensor([subject.target for subject in found], device=x.device)
    out, rows, order = Folder(settings), [], [*COLOURS, None]
    with console.progress("comparing", len(methods)) as bar:
        for done, method in enumerate(methods):
            bar.update(done, method.name)
            explainer = method.on(x, predictor.model.spec)
            given = {method.name: vars(explainer)}
            baseline = settings.baseline or method.baseline or "zero"
            (row,) = compare(predictor.net, x, target, [method.name], settings=given, baseline=baseline)
            entry = asdict(row) | {"method": row.name, "settings": plain_settings(explainer)}
            del entry["name"]
            rows.append(entry)
            rows.sort(key=lambda row: (order.index(row["colour"]), -(row["faithful"] or 0.0)))
            summary = {"run": settings.run, "items": [subject.path for subject in found], "methods": rows}
            atomic_write(out.path / "compare.json", dumps(summary, indent=1) + "\n")  # whole at any moment
            console.emit(entry)
            out.append(entry)
        bar.update(len(methods))
    _say(rows, console)
    console.say(f"table of {counted(len(found), 'item')}: {out.path / 'compare.json'}")
    return Explanations(out.path, rows, [], subjects.failed)


def _alike(found: Sequence[Subject | dict[str, Any]], console: Console) -> list[Subject]:
    """The items of the most frequent size, with their answers said."""
    items = []
    for each in found:
        if isinstance(each, Subject):
            items.append(each)
        else:
            console.say(f"{each['path']}  no answer: {each['error']}")
    if not items:
        raise UsageError("no item is left to compare methods on")
    size = Counter(each.x.shape for each in items).most_common(1)[0][0]
    kept = [each for each in items if each.x.shape == size]
    for each in kept:
        console.say(f"{each.path}  {each.words()}; explained: {each.name}")
    if len(kept) < len(items):
        console.note(f"{len(items) - len(kept):,} items of other sizes are left out of the table")
    return kept


def _say(rows: Sequence[dict[str, Any]], console: Console) -> None:
    shown = [row for row in rows if row["colour"] is not None]
    console.say()
    console.table(shown, ["method", "colour", *FIGURES])
    console.say()
    console.say("faithful: 0 by luck, higher is better; alike: to maps of shuffled weights; change: under noise;")
    console.say(
        "residual: of the sum a method claims; efficiency, dummy, symmetry: Shapley's axioms, 0 where they hold"
    )
    for row in shown:
        if row["colour"] != "green":
            console.say(f"  {row['method']}: {row['says']}")
    for row in rows:
        if row["colour"] is None:
            console.say(f"  {row['method']}: {row['says']}")
