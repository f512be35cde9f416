"""Published weights by the name of the network: where they are, what they were trained on, how to prepare pictures.

The table is `weights.toml`, copied from the publisher. Reading it takes no torch.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Published:
    """One published checkpoint of the network `name`.

    `size` is the most bytes that it can have (publishers state it rounded), `sha256` the first hex digits of its hash;
    `spatial` and `resize` in cells, `mean` and `std` a channel of values from 0 to 1, `top1` the publisher's accuracy
    in percent on `data`; `tried` whether this project has seen the file and what it answers.
    """

    name: str
    url: str
    size: int
    sha256: str
    weights: str
    spatial: tuple[int, ...]
    resize: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    top1: float
    data: str
    classes: int
    source: str
    licence: str
    tried: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The class names in the order of the outputs where this project has them: those of ImageNet."""
        if self.data != "ImageNet-1K":
            return ()
        return tuple(files("gridsight.data").joinpath("imagenet_classes.txt").read_text("utf-8").splitlines())


def published(name: str) -> Published | None:
    """The checkpoint that `--pretrained` takes for the network `name`, if there is one.

    >>> found = published("resnet18")
    >>> found.url, found.top1, found.tried
    ('https://download.pytorch.org/models/resnet18-f37072fd.pth', 69.758, False)
    """
    return _table().get(name)


def all_published() -> tuple[Published, ...]:
    """Every checkpoint, sorted by name."""
    return tuple(_table()[name] for name in sorted(_table()))


@cache
def _table() -> dict[str, Published]:
    raw: dict[str, dict[str, Any]] = tomllib.loads(files(__package__).joinpath("weights.toml").read_text("utf-8"))
    publisher = raw.pop("torchvision")
    return {name: _entry(name, publisher | values) for name, values in raw.items()}


def _entry(name: str, values: dict[str, Any]) -> Published:
    resize = values["resize"]
    return Published(
        name,
        values["url"] + values["file"],
        ceil((values["mebibytes"] + 0.0005) * MEBIBYTE),
        values["sha256"],
        values["weights"],
        tuple(values["spatial"]),
        (resize,) if isinstance(resize, int) else tuple(resize),
        tuple(values["mean"]),
        tuple(values["std"]),
        values["top1"],
        values.get("data", "ImageNet-1K"),
        values.get("classes", 1000),
        values["source"],
        values["licence"],
        values.get("tried", False),
    )
