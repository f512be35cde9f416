"""models: every network that `--model` takes, with the publisher's figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gridsight.core.console import Console
from gridsight.core.settings import option
from gridsight.verbs import VERBS


@dataclass(frozen=True)
class ModelsSettings:
    """List the networks, with parameters, MACs and receptive field at the publisher's input size.

    examples:
      gridsight models
      gridsight models --json
    """

    json: bool = option(False, "print one JSON object a network")


@VERBS.register("models", settings=ModelsSettings)
def list_models(settings: ModelsSettings, console: Console) -> list[dict[str, Any]]:
    """A row a network, sorted by name."""
    from gridsight.models import MODELS

    rows = [_row(name) for name in MODELS.names()]
    console.table(rows, ["name", "ndims", "parameters", "macs", "receptive_field", "published", "paper"])
    for row in rows:
        console.emit(row)
    return rows


def _row(name: str) -> dict[str, Any]:
    import torch

    from gridsight.measure.cost import cost
    from gridsight.models import MODELS, create, published_input

    tags = MODELS.get(name).tags
    ndim, in_channels, spatial = published_input(name)
    with torch.device("meta"):
        net = create(name, ndim=ndim)
    total = cost(net, (in_channels, *spatial))
    return {
        "name": name,
        "ndims": list(tags["ndims"]),
        "parameters": total.parameters,
        "macs": total.macs,
        "receptive_field": one_or_each(total.stages[-1].size),
        "paper": tags["paper"] or None,
        "published": tags["published"] or None,
    }


def one_or_each(values: Sequence[int | None]) -> int | list[int | None] | None:
    """The number that all axes share, else one an axis."""
    return values[0] if len(set(values)) == 1 else list(values)
