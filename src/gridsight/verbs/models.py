"""models: every network that `--model` takes, with what it costs, its paper and its published accuracy."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

from gridsight.core.console import Console
from gridsight.core.errors import UsageError, nearest
from gridsight.core.settings import argument, option
from gridsight.verbs import VERBS


@dataclass(frozen=True)
class ModelsSettings:
    """List the networks, with parameters, MACs and receptive field at the publisher's input size.

    PATTERN is part of a name, or a whole one with * and ?. Networks of one paper stand together, the smallest first.
    What the table cuts off is whole with --json.

    examples:
      gridsight models
      gridsight models resnet
      gridsight models 'vgg*_bn'
      gridsight models --json
    """

    pattern: str = argument("show only networks of such a name", default="")
    json: bool = option(False, "print one JSON object a network")


@VERBS.register("models", settings=ModelsSettings)
def list_models(settings: ModelsSettings, console: Console) -> list[dict[str, Any]]:
    """A row a network: families by name, in each a paper after the other, its networks by size."""
    from gridsight.models import MODELS

    names = MODELS.names()
    chosen = [name for name in names if _matches(name, settings.pattern)]
    if not chosen:
        hint = nearest(settings.pattern.strip("*"), names, otherwise="gridsight models lists them all")
        raise UsageError(f"no network is called {settings.pattern!r}; {hint}")
    rows = sorted(map(_row, chosen), key=lambda row: (row["family"], row["paper"] or "", row["parameters"]))
    if not console.json and not console.quiet:
        _show(rows, console)
    for row in rows:
        console.emit(row)
    return rows


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) if set("*?") & set(pattern) else pattern in name


def _row(name: str) -> dict[str, Any]:
    from gridsight.models import MODELS
    from gridsight.models._catalogue import published

    entry = MODELS.get(name)
    weights = published(name)
    shape = input_shape(name)
    known = recorded().get(name, {})
    figures = known if known.get("input") == list(shape) else measured(name)
    return {
        "name": name,
        "family": entry.item.__name__,
        "ndims": list(entry.tags["ndims"]),
        "input": list(shape),
        "parameters": figures["parameters"],
        "macs": figures["macs"],
        "receptive_field": one_or_each(figures["receptive_field"]),
        "weights": weights and {"url": weights.url, "licence": weights.licence, "tried": weights.tried},
        "published": entry.tags["published"] or None,
        "paper": entry.tags["paper"] or None,
    }


@cache
def recorded() -> dict[str, Any]:
    """`measured` of every network that comes with the package: to build and to trace them all takes a minute."""
    return json.loads(files("gridsight.models").joinpath("costs.json").read_text("utf-8"))


def measured(name: str) -> dict[str, Any]:
    """Parameters, MACs and receptive field on the publisher's input; the test of costs.json compares it with these."""
    import torch

    from gridsight.measure.cost import cost
    from gridsight.models import create

    shape = input_shape(name)
    with torch.device("meta"):
        net = create(name, ndim=len(shape) - 1)
    total = cost(net, shape)
    field = list(total.stages[-1].size)
    return {"input": list(shape), "parameters": total.parameters, "macs": total.macs, "receptive_field": field}


def input_shape(name: str) -> tuple[int, ...]:
    """(in_channels, *spatial) of the publisher."""
    from gridsight.models import published_input

    _, in_channels, spatial = published_input(name)
    return (in_channels, *spatial)


def one_or_each(values: Sequence[int | None]) -> int | list[int | None] | None:
    """The number that all axes share, else one an axis."""
    return values[0] if len(set(values)) == 1 else list(values)


def _show(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The rows as wide as the terminal, a blank line between the papers."""
    shown: list[dict[str, str]] = []
    for before, row in zip([None, *rows], rows, strict=False):
        if before and (before["family"], before["paper"]) != (row["family"], row["paper"]):
            shown.append(dict.fromkeys(shown[0], ""))
        shown.append(_cells(row))
    columns = list(shown[0])
    taken = sum(max(len(column), *(len(cells[column]) for cells in shown)) + 2 for column in columns[:-1])
    room = max(20, shutil.get_terminal_size((120, 24)).columns - taken)
    for cells in shown:
        cells[columns[-1]] = _cut(cells[columns[-1]], room)
    console.table(shown, columns)
    console.say("\nsees: receptive field of the last stage, in cells; weights in brackets: not tried by this project")


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    from gridsight.reporting.svg import short

    field, weights = row["receptive_field"], row["weights"]
    seen = [field] if isinstance(field, int | None) else field
    publisher = re.sub(r"^https://(?:download\.)?([^/]+)/.*", r"\1", weights["url"]) if weights else "-"
    paper = re.search(r"(arXiv|doi):\S+", row["paper"] or "")
    return {
        "name": row["name"],
        "ndims": " ".join(map(str, row["ndims"])),
        "parameters": short(row["parameters"]).rjust(10),
        "MACs": short(row["macs"]).rjust(6),
        "sees": "x".join("all" if cells is None else str(cells) for cells in seen).rjust(5),
        "weights": f"({publisher})" if weights and not weights["tried"] else publisher,
        "paper": _cut(paper[0], 18) if paper else "-",
        # the number and what it is of; where it stands is in --json
        "published": re.split(r", | \(", row["published"] or "-")[0].replace(" on ", ", "),
    }
