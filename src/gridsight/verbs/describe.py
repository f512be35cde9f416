"""describe: the layers of one network, with shapes, parameters, MACs, memory and receptive field."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridsight.core.console import Console
from gridsight.core.errors import UsageError
from gridsight.core.settings import argument, option
from gridsight.verbs import VERBS


@dataclass(frozen=True)
class DescribeSettings:
    """Show the layers of a network: shapes, parameters, MACs, activation memory, receptive field.

    MODEL is a name of `gridsight models`, a run folder or a model file. What is not given is the publisher's.

    examples:
      gridsight describe resnet18
      gridsight describe resnet18 --ndim 3 --channels 1 --classes 4 --size 24 128 128
      gridsight describe resnet20 --arguments width=32 zero_init=True
      gridsight describe runs/photos-1
    """

    model: str = argument("name of a network, a run folder or a model file")
    ndim: int | None = option(None, "spatial axes: 1, 2 or 3 (default: 2)")
    channels: int | None = option(None, "channels of the input")
    classes: int | None = option(None, "numbers that the network answers with")
    size: tuple[int, ...] = option((), "size of the input: one number, or one an axis", metavar="N")
    arguments: tuple[str, ...] = option((), "arguments of the network, such as width=32", metavar="NAME=VALUE")
    json: bool = option(False, "print the result as one JSON object")


@VERBS.register("describe", settings=DescribeSettings)
def describe(settings: DescribeSettings, console: Console) -> dict[str, Any]:
    """The table of layers and the totals."""
    if Path(settings.model).exists():
        if settings != DescribeSettings(settings.model, json=settings.json):
            raise UsageError(f"{settings.model} is a trained model: its channels, classes and size are given by it")
        table = _describe_file(settings.model)
    else:
        arguments = dict(_pair(word) for word in settings.arguments)
        table = describe_model(
            settings.model, settings.ndim, settings.channels, settings.classes, settings.size, arguments
        )
    shape = " x ".join(map(str, (table["in_channels"], *table["spatial"])))
    console.say(f"{table['name']} on {shape}")
    rows = [row | {"name": row["name"] or "(itself)"} for row in table["layers"]]
    columns = ["name", "kind", "shape", "parameters", "macs", "activation_bytes", "receptive_field", "jump", "start"]
    console.table(rows, columns)
    console.say(
        f"total: {table['parameters']:,} parameters, {table['macs']:,} MACs, "
        f"{table['activation_bytes'] / 1e6:,.2f} MB of activations an item; not in the MACs: "
        f"{', '.join(table['uncounted']) or 'nothing'}"
    )
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
    import torch

    from gridsight.models import MODELS, create, published_input

    MODELS.require(name)
    ndim, channels, size = published_input(name, ndim)
    channels = channels if in_channels is None else in_channels
    if spatial:
        size = tuple(spatial) * (ndim if len(spatial) == 1 else 1)
    if len(size) != ndim or min(size) < 1:
        raise UsageError(f"size {' x '.join(map(str, size))} does not fit {ndim} axes: give one number, or {ndim}")
    given = dict(arguments or {})
    if MODELS.accepts(name, "spatial"):
        given.setdefault("spatial", size)
    try:
        with torch.device("meta"):
            net = create(name, ndim=ndim, in_channels=channels, num_classes=num_classes, **given)
    except (TypeError, ValueError, RuntimeError) as error:
        values = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise UsageError(f"{name} cannot be built with {values}: {error}") from None
    return _table(name, net, channels, size)


def _describe_file(path: str) -> dict[str, Any]:
    import torch

    from gridsight.artifact.predictor import load

    model = load(path).model
    with torch.no_grad():
        seen = model.front_end()(torch.zeros(1, model.spec.channels, *model.spec.spatial))
    return _table(model.architecture, model.net, model.in_channels, tuple(seen.shape[2:]))


def _table(name: str, net: Any, in_channels: int, spatial: tuple[int, ...]) -> dict[str, Any]:
    from gridsight.measure.cost import cost

    total = cost(net, (in_channels, *spatial))
    return {
        "name": name,
        "ndim": len(spatial),
        "in_channels": in_channels,
        "spatial": list(spatial),
        "parameters": total.parameters,
        "macs": total.macs,
        "activation_bytes": total.activation_bytes,
        "uncounted": list(total.uncounted),
        "layers": total.rows(),
    }


def _pair(word: str) -> tuple[str, Any]:
    """`width=32` -> ("width", 32); a value that is no Python literal is text."""
    name, equals, value = word.partition("=")
    if not equals:
        raise UsageError(f"--arguments {word}: write NAME=VALUE, such as width=32")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
