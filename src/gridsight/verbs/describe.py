"""describe: the layers of one network, with shapes, parameters, MACs, memory and receptive field; and a drawing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridsight.core.console import Console
from gridsight.core.errors import UsageError
from gridsight.core.settings import argument, option
from gridsight.verbs import VERBS
from gridsight.verbs._arguments import given_arguments


@dataclass(frozen=True)
class DescribeSettings:
    """Show the layers of a network: shapes, parameters, MACs, activation memory, receptive field.

    MODEL is a name of `gridsight models`, a run folder or a model file. What is not given is the publisher's.

    examples:
      gridsight describe resnet50 --spatial 224,224
      gridsight describe resnet50 --svg resnet50.svg
      gridsight describe resnet18 --ndim 3 --channels 1 --classes 4 --spatial 24,128,128
      gridsight describe resnet20 --arguments width=32 zero_init=True
      gridsight describe runs/photos-1
    """

    model: str = argument("name of a network, a run folder or a model file")
    ndim: int | None = option(None, "spatial axes: 1, 2 or 3 (default: 2)")
    channels: int | None = option(None, "channels of the input")
    classes: int | None = option(None, "numbers that the network answers with")
    spatial: tuple[int, ...] = option((), "cells of the input: one number, or one an axis (224,224)", metavar="N")
    arguments: tuple[str, ...] = option((), "arguments of the network, such as width=32", metavar="NAME=VALUE")
    svg: str | None = option(None, "also draw the network into this file", metavar="FILE")
    json: bool = option(False, "print the result as one JSON object")


OPTIONS = {
    "name": "MODEL",
    "ndim": "--ndim",
    "in_channels": "--channels",
    "num_classes": "--classes",
    "spatial": "--spatial",
}
"""Arguments of every network that are no --arguments."""


@VERBS.register("describe", settings=DescribeSettings)
def describe(settings: DescribeSettings, console: Console) -> dict[str, Any]:
    """The table of layers and the totals; with `svg` the drawing, too."""
    from gridsight.reporting.markup import memory

    if Path(settings.model).exists():
        if settings != DescribeSettings(settings.model, svg=settings.svg, json=settings.json):
            raise UsageError(f"{settings.model} is a trained model: its channels, classes and size are given by it")
        subject = _trained(settings.model)
    else:
        arguments = given_arguments(settings.arguments)
        subject = _named(
            settings.model, settings.ndim, settings.channels, settings.classes, settings.spatial, arguments
        )
    table = _table(subject)
    if settings.svg is not None:
        try:
            Path(settings.svg).write_text(_drawing(subject, table), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--svg {settings.svg} cannot be written: {error.strerror}") from None
    shape = " x ".join(map(str, (table["in_channels"], *table["spatial"])))
    console.say(f"{table['name']} on {shape}")
    rows = [row | {"name": row["name"] or "(itself)"} for row in table["layers"]]
    columns = ["name", "kind", "shape", "parameters", "macs", "activation_bytes", "receptive_field", "jump", "start"]
    console.table(rows, columns)
    console.say(
        f"total: {table['parameters']:,} parameters, {table['macs']:,} MACs, "
        f"{memory(table['activation_bytes'])} of activations an item; not in the MACs: "
        f"{', '.join(table['uncounted']) or 'nothing'}"
    )
    if settings.svg is not None:
        console.say(f"drawing: {settings.svg}")
        table["svg"] = settings.svg
    console.emit(table)
    return table


def describe_model(
    name: str,
    ndim: int | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    spatial: Sequence[int] = (),
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Layers and totals of a network by name; no weights are made. `spatial` () is the publisher's, one int an axis."""
    return _table(_named(name, ndim, in_channels, num_classes, spatial, arguments or {}))


@dataclass(frozen=True)
class _Subject:
    """A network, maybe without weights, and the (in_channels, *spatial) that it is described on.

    `arguments` are those that the caller asked for.
    """

    name: str
    net: Any
    shape: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _named(
    name: str,
    ndim: int | None,
    in_channels: int | None,
    num_classes: int | None,
    spatial: Sequence[int],
    arguments: Mapping[str, Any],
) -> _Subject:
    import torch

    from gridsight.models import MODELS, create, published_input

    MODELS.require(name)
    for key in arguments:
        if key in OPTIONS:
            raise UsageError(f"{key} is no argument of the network here: {OPTIONS[key]} says it")
    if ndim is None and len(spatial) > 1:
        ndim = len(spatial)
    ndim, channels, size = published_input(name, ndim)
    channels = channels if in_channels is None else in_channels
    if spatial:
        size = tuple(spatial) * (ndim if len(spatial) == 1 else 1)
    if len(size) != ndim or min(size) < 1:
        shown = ",".join(map(str, size))
        raise UsageError(f"--spatial {shown} does not fit {ndim} axes: give one number above 0, or {ndim}")
    given = dict(arguments)
    if MODELS.accepts(name, "spatial"):
        given["spatial"] = size
    with torch.device("meta"):
        net = create(name, ndim=ndim, in_channels=in_channels, num_classes=num_classes, **given)
    return _Subject(name, net, (channels, *size), arguments)


def _trained(path: str) -> _Subject:
    import torch

    from gridsight.artifact.predictor import load

    model = load(path).model
    with torch.no_grad():
        seen = model.front_end()(torch.zeros(1, model.spec.channels, *model.spec.spatial))
    return _Subject(model.architecture, model.net, (model.in_channels, *seen.shape[2:]))


def _table(subject: _Subject) -> dict[str, Any]:
    from gridsight.measure.cost import cost
    from gridsight.models import refusing

    with refusing(f"{subject.name} cannot be run", subject.arguments):
        total = cost(subject.net, subject.shape)
    return {
        "name": subject.name,
        "ndim": len(subject.shape) - 1,
        "in_channels": subject.shape[0],
        "spatial": list(subject.shape[1:]),
        "parameters": total.parameters,
        "macs": total.macs,
        "activation_bytes": total.activation_bytes,
        "uncounted": list(total.uncounted),
        "layers": total.rows(),
    }


def _drawing(subject: _Subject, table: Mapping[str, Any]) -> str:
    from gridsight.measure.graph import graph
    from gridsight.reporting.diagram import draw

    return draw(graph(subject.net, subject.shape), subject.name, subject.shape, table)
