"""The sections of the report around the results: the data, how the run was made, and what the figures do not tell."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from gridsight.data.spec import DataSpec
from gridsight.data.split import tests_published
from gridsight.reporting.contents import Contents
from gridsight.reporting.markup import (
    bullets,
    duration,
    esc,
    facts,
    how_often,
    memory,
    paragraph,
    plain,
    some,
    table,
)


def data(of: Contents) -> str:
    """What was understood of the data, items a class and split, and what was wrong with files."""
    spec = of.spec
    if spec is None:
        return paragraph("plan.json has no data description.")
    described = f"<div>{facts(_described(spec))}{bullets(spec.notes)}</div>"
    items = spec.counts or ({} if of.confusion is None else {"test": of.confusion.sum(1).tolist()})
    counts = f"<div>{_counts(spec, items)}</div>" if items else ""
    parts = [f'<div class="pair">{described}{counts}</div>']
    bad, twins = of.result.get("bad") or (), of.result.get("duplicates") or ()
    skipped = of.result.get("skipped", 0)
    if skipped:
        parts.append(
            paragraph(
                f"Of all data {some(skipped, 'item')} could not be used: neither learned from nor tested.", "note"
            )
        )
    if bad:
        parts.append(f"<h3>{esc(some(len(bad), 'bad file'))}</h3>" + bullets(bad))
    if twins:
        pairs = (f"{t['a']} and {t['b']} ({_splits(t.get('splits'))})" for t in twins)
        count = of.result.get("duplicates_count", len(twins))
        few = bullets(pairs, 12)
        parts.append(f"<h3>{esc(some(count, 'pair'))} of near-duplicates across splits</h3>{few}")
    if of.result and not (skipped or bad):
        parts.append(paragraph("All files could be read.", "soft"))
    if of.result and not twins:
        parts.append(paragraph(_no_twins("duplicates" in of.result), "soft"))
    return "".join(parts)


def _no_twins(looked: bool) -> str:
    if looked:
        return "No near-duplicates across splits were found."
    return (
        "Near-duplicates were not looked for: training compares them across one split of items of one size, not of "
        "very many. gridsight check looks for them in any data."
    )


def _described(spec: DataSpec) -> Mapping[str, Any]:
    unit = {"sound": " samples", "sequence": " letters"}.get(spec.kind, "")
    size = " × ".join(f"{v:,}" for v in spec.spatial) + unit
    fit = {
        "exact": "",
        "crop": ", cut to this aspect and resized",
        "pad": ", shorter ones filled with zeros",
        "mask": ", each at its own size",
        "patch": " patches of items at their own size",
    }[spec.fit]
    low, high = (" × ".join(map(str, s)) for s in spec.sizes) if spec.sizes else ("", "")
    length = f" ({spec.spatial[0] / spec.rate:.3g} s)" if spec.rate else ""
    return {
        "name": spec.name,
        "kind": f"{spec.kind}, {spec.ndim}-D",
        "size used": f"{size}{length}{fit}",
        "sizes found": None if low == high else f"{low} to {high}",
        "axes": spec.axes,
        "channels": spec.channels,
        "values": spec.dtype,
        "sampling rate": f"{spec.rate:,.6g} Hz" if spec.rate else None,
        "spacing": f"{_millimetres(spec.spacing)} mm" if spec.spacing else None,
        "alphabet": spec.alphabet,
        "classes": spec.num_classes if spec.task == "classify" else None,
        "labels": _labels(spec),
        "label column": spec.target,
        "split": spec.split,
        "grouped by": spec.group,
        "other columns": ", ".join(spec.fields),
    }


def _millimetres(spacing: Sequence[float]) -> str:
    return " × ".join(f"{value:.4g}" for value in spacing)


def _labels(spec: DataSpec) -> str | None:
    """What the labels are, where they are not one class an item."""
    return {
        "multilabel": f"any number of {spec.num_classes} classes an item",
        "grade": f"{spec.num_classes} ordered grades",
        "regress": "a number" + (f" in {spec.unit}" if spec.unit else ""),
    }.get(spec.task)


def _counts(spec: DataSpec, counts: Mapping[str, Sequence[int]]) -> str:
    most = max((max(column, default=0) for column in counts.values()), default=0) or 1
    first = next(iter(counts))

    def row(name: str, values: list[int]) -> list[str]:
        bar = f'<i class="bar" style="width:{90 * values[0] / most:.0f}px"></i>' if name != "all" else ""
        cells = [f"{value:,}" for value in values]
        return [esc(name), bar + cells[0], *cells[1:]]

    rows = [row(name, [column[i] for column in counts.values()]) for i, name in enumerate(spec.classes)]
    rows.append(row("all", [sum(column) for column in counts.values()]))
    if spec.task == "regress":
        return table(tuple(counts), [rows[0][1:]])
    head = ("class", f"{'labels' if spec.task == 'multilabel' else 'items'}: {first}", *list(counts)[1:])
    return table(head, rows, "tall" if len(rows) > 16 else "")


def _splits(value: Any) -> str:
    return value if isinstance(value, str) else " and ".join(map(str, value or ("other splits",)))


def making(of: Contents) -> str:
    """The plan, the settings, the machine and the time."""
    plan, spent = of.plan, of.result.get("seconds")
    recipe = plan.get("recipe") or {}
    done = {
        "model": plan.get("model"),
        "arguments": plan.get("arguments"),
        "parameters": plan.get("parameters"),
        "multiply-adds an item": plan.get("macs"),
        "receptive field": plan.get("receptive_field"),
        "epochs": _reached(of),
        "steps": plan.get("steps"),
        "time": _against(spent, plan.get("seconds_expected"), duration),
        "memory expected": memory(plan["memory_expected"]) if plan.get("memory_expected") else None,
    }
    pairs = [
        ("Plan", facts(done)),
        ("Recipe", facts({str(k): v for k, v in recipe.items() if k not in ("arguments", "model")})),
        ("Settings", facts(of.settings)),
        ("Environment", facts(of.environment)),
    ]
    missing = "not recorded"
    blocks = "".join(f"<div><h3>{name}</h3>{body or paragraph(missing, 'soft')}</div>" for name, body in pairs)
    return f'<div class="pair">{blocks}</div>'


def _reached(of: Contents) -> str | None:
    planned, done = of.plan.get("epochs"), len({row["epoch"] for row in of.epochs})
    if planned is None:
        return str(done) if done else None
    # the last epoch may be a part of one
    return f"{done} of {planned:g} planned" if done and done != ceil(planned) else f"{planned:g}"


def _against(spent: float | None, expected: float | None, write: Any) -> str | None:
    if spent is None and expected is None:
        return None
    if spent is None:
        return f"{write(expected)} expected"
    return write(spent) + (f" ({write(expected)} expected)" if expected is not None else "")


def limits(of: Contents, of_task: Sequence[str]) -> str:
    """What a reader might wrongly take from these figures, as far as this run can know; `of_task` is the task's own."""
    said: list[str] = list(of.notes)
    spec, n = of.spec, of.result.get("n")
    reads = of.result.get("test_reads") or 0
    if n is not None:
        said.append(
            "Intervals tell what the number of held-back items leaves open. They do not tell how the result would "
            "change with another seed, another split or another way of collecting items."
        )
        said.append(
            "The figures hold for items collected and selected as these were: another camera, place, person or time "
            "has to be measured."
        )
    if spec is not None and spec.group is None and n is not None and not tests_published(spec.split):
        said.append(
            "The items were split one by one. If several come from one source (person, device, recording, place), "
            "the same source may be in training and in test, and new sources will do worse; --group NAME measures "
            "that."
        )
    said += of_task
    if spec is not None and spec.group is not None and n is not None:
        said.append(
            "Intervals of single classes and of the reliability diagram count items as independent, although items "
            f"of one {spec.group} are alike: they are too narrow. The headline's is over {spec.group}s."
        )
    if reads > 1:
        said.append(
            f"The held-back items were read {how_often(reads)}. Whatever was chosen after the first reading, knowing "
            "its result, flatters the later ones."
        )
    if any("test" in str(twins.get("splits")) for twins in of.result.get("duplicates") or ()):
        said.append("Near-duplicates of training items are among the held-back ones; these are easier than new items.")
    if of.epochs and not any(row.get("val_loss") is not None for row in of.epochs):
        said.append("There was no validation set: the schedule was fixed beforehand and the last weights were kept.")
    if of.choices is not None and of.result and not of.calibration.get("calibrated"):
        said.append("Probabilities are uncalibrated scores: do not read 90 % as nine times in ten.")
    found = of.predictions
    if found is not None and n is not None and len(found.target) != n:
        said.append(
            f"predictions.npz holds {plain(len(found.target))} items and result.json speaks of {plain(n)}: curves and "
            "mistakes are of the former."
        )
    if not said:
        said.append("There is no result yet whose limits could be told.")
    return bullets(said)
