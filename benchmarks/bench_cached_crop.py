"""What accuracy does it cost that the cache keeps pictures at the network's size, not at their own?

CIFAR-10's JPEG pictures of 32 pixels for a network of 16: half, as photographs of 400 pixels for a network of 224, and
of a kind that has many labelled ones. Windows of 70 to 100 % of the side and mirrors, five ways: cut out of the
original and shrunk (torchvision's way), cut out of the shrunk picture that the cache keeps (Gridsight's), out of one
that a cache would keep at 1.25 and 1.5 times the network's size, and, to see what windows are worth at all, none.
6,000 pictures, 5,000 others judge; paired by seed. About 6 minutes on one core.

    python benchmarks/bench_cached_crop.py
"""

import os
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from small import fit
from torch import Tensor

from gridsight.core.console import Console
from gridsight.data.augment import apply
from gridsight.data.cache import cached
from gridsight.data.source import find
from gridsight.models import create
from gridsight.nn.resample import resize

DATA = Path(os.environ.get("GRIDSIGHT_DATA", Path(__file__).parents[2] / "shared" / "data"))
TRAIN, TEST, EPOCHS, SEEDS, SIDE, CUT = 6000, 5000, 12, (0, 1, 2), 16, 0.3
Way = Callable[[Tensor, Tensor, int], Tensor]


def pictures() -> tuple[Tensor, Tensor]:
    """(N, 3, 32, 32) bytes and labels, drawn once."""
    data = cached(find(str(DATA / "cifar10_jpg" / "cifar10_train_jpg.zip")), Console(quiet=True))
    assert isinstance(data.x, np.ndarray)
    rows = np.sort(np.random.default_rng(0).permutation(len(data))[: TRAIN + TEST])
    order = np.random.default_rng(1).permutation(len(rows))
    return torch.from_numpy(np.ascontiguousarray(data.x[rows]))[order], torch.from_numpy(data.y[rows])[order]


def scaled(x: Tensor) -> Tensor:
    """Bytes to about mean 0 and deviation 1."""
    return (x.float() - 120) / 63


def original(x: Tensor, items: Tensor, draw: int) -> Tensor:
    """Windows of whole cells of the picture at its own size (or the size that a cache keeps), shrunk."""
    rng = np.random.default_rng([draw, 7])
    out = torch.empty(len(x), 3, SIDE, SIDE, dtype=torch.uint8)
    for row, picture in zip(out, x, strict=True):
        side = round(x.shape[2] * (1 - CUT * rng.random()))
        top, left = rng.integers(0, x.shape[2] + 1 - side, 2)
        row.copy_(resize(picture[None, :, top : top + side, left : left + side], (SIDE, SIDE))[0])
    return apply(scaled(out), items, draw, 0, (("flip", 1.0),))


def from_cache(x: Tensor, items: Tensor, draw: int) -> Tensor:
    """Windows of the picture that was shrunk before."""
    return apply(scaled(resize(x, (SIDE, SIDE))), items, draw, 0, (("crop", CUT), ("flip", 1.0)))


def larger(size: int) -> Way:
    """Windows of a picture that the cache keeps larger than the network takes it."""
    return lambda x, items, draw: original(resize(x, (size, size)), items, draw)


def whole(x: Tensor, items: Tensor, draw: int) -> Tensor:
    """No windows."""
    return apply(scaled(resize(x, (SIDE, SIDE))), items, draw, 0, (("flip", 1.0),))


def accuracy(way: Way, x: Tensor, y: Tensor, seed: int) -> float:
    """Of the last weights, on pictures shrunk whole."""
    torch.manual_seed(seed)
    arguments = {"widths": (16, 32, 64), "pools": (1, 2, 2), "blocks": (0, 1, 1), "grid": 1}
    net = create("gridnet", ndim=2, in_channels=3, num_classes=10, **arguments).to(memory_format=torch.channels_last)

    def batch(part: Tensor, numbers: torch.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        draw = int(torch.randint(1 << 30, (), generator=numbers))
        return (way(x[part], part, draw).contiguous(memory_format=torch.channels_last),), y[part]

    fit(net, batch, TRAIN, EPOCHS, seed, 3e-3)
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(scaled(resize(part, (SIDE, SIDE)))).argmax(1) for part in x[TRAIN:].split(500)])
    return 100 * float((found == y[TRAIN:]).float().mean())


if __name__ == "__main__":
    x, y = pictures()
    ways: dict[str, Way] = {
        "original": original,
        "cache": from_cache,
        "cache of 20": larger(20),
        "cache of 24": larger(24),
        "no windows": whole,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for seed in SEEDS:
        for name, way in ways.items():
            found[name].append(accuracy(way, x, y, seed))
            print(f"seed {seed}  {name:11} {found[name][-1]:.2f} %", flush=True)
    for name, values in found.items():
        differences = [b - a for a, b in zip(found["original"], values, strict=True)]
        less = ", ".join(f"{d:+.2f}" for d in differences)
        print(f"{name:11} mean {statistics.mean(values):.2f} %; less the original's, by seed: {less} points")
