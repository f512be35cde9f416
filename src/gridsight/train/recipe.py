"""The default network and training recipe: plain facts of the data in, a `Recipe` out; imports no torch.

No rule looks at a data set's name. Figures in the comments are validation accuracies; `docs/defaults.md` has the tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any, Literal


@dataclass(frozen=True)
class FrontEnd:
    """Log-mel settings: raw sound (N, 1, samples) becomes (N, 1, n_mels, frames)."""

    n_mels: int = 40
    window: float = 0.032  # seconds
    hop: float = 0.0125  # seconds


@dataclass(frozen=True)
class Recipe:
    """What `train` does when no option says otherwise.

    `average` is the decay of an exponential moving average of the weights a step (0: the last weights); `clip` the
    largest gradient norm (0: none); `warmup` the share of steps until `lr` is reached; `weight_decay` is decoupled for
    AdamW and not applied to norms and biases. `augment` pairs an operation with its strength, in order; `flip` is of
    the last axis only. `ndim` is the network's (2 for sound, which passes a `front_end`).
    """

    ndim: int
    arguments: Mapping[str, Any]
    epochs: int
    batch: int
    lr: float
    weight_decay: float
    model: str = "gridnet"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    schedule: Literal["onecycle", "cosine", "step", "constant"] = "onecycle"
    warmup: float = 0.2
    label_smoothing: float = 0.0
    average: float = 0.0
    clip: float = 0.0
    augment: tuple[tuple[str, float], ...] = ()
    front_end: FrontEnd | None = field(default=None)


def recipe(
    ndim: int,
    in_channels: int,
    spatial: tuple[int, ...],
    num_classes: int,
    n_train: int,
    sampling_rate: float | None = None,
    colour: bool = False,
) -> Recipe:
    """The default for data of this kind; `n_train` counts the items trained on, after validation is carved off."""
    if ndim == 1 and sampling_rate and sampling_rate >= 4000:
        return _sound(spatial, n_train, sampling_rate)
    if ndim == 1:
        return _series(spatial, n_train)
    if ndim == 3:
        return _volume(spatial, n_train)
    return _picture(spatial, n_train, colour)


def _picture(spatial: tuple[int, ...], n_train: int, colour: bool) -> Recipe:
    side = min(spatial)
    flip = (("flip", 1.0),) if colour else ()
    if max(spatial) <= 16:
        arguments = {
            "widths": (32, 64, 128),
            "kernels": 3,
            "pools": (1, 2, 1),
            "blocks": 0,
            "grid": min(4, ceil(side / 2)),
        }
        return Recipe(2, arguments, _epochs(60_000, n_train), 64, 3e-3, 0.01, optimizer="adamw", average=0.99,
                      label_smoothing=0.1, augment=(("affine", 1.0), ("shift", 0.1), *flip))  # fmt: skip
    if max(spatial) <= 40 and not colour:
        arguments = {"widths": (16, 32, 64, 64), "kernels": (5, 3, 3, 3), "strides": (2, 1, 1, 1), "pools": (1, 2, 2, 1), "blocks": 0, "grid": min(3, ceil(side / 8))}  # fmt: skip
        return Recipe(2, arguments, _epochs(320_000, n_train), 256, 0.4, 5e-4, label_smoothing=0.1, average=0.99,
                      augment=(("shift", 0.07),))  # fmt: skip
    if max(spatial) <= 48:
        arguments = {"widths": (24, 48, 96, 192), "pools": (1, 2, 2, 2), "blocks": (0, 0, 1, 0), "grid": 1}
        return Recipe(2, arguments, _epochs(400_000, n_train), 256, 0.4, 5e-4, label_smoothing=0.1, average=0.99,
                      augment=(*flip, ("shift", 0.1)))  # fmt: skip
    arguments = {"widths": (32, 64, 128, 256), "kernels": (7, 3, 3, 3), "strides": (2, 1, 1, 1), "pools": (2, 2, 2, 2), "blocks": (0, 1, 1, 1), "grid": 1}  # fmt: skip
    return Recipe(2, arguments, _epochs(100_000, n_train), 64, 0.1, 5e-4, label_smoothing=0.1, average=0.99,
                  augment=(*flip, ("crop", 0.3)))  # fmt: skip


def _sound(spatial: tuple[int, ...], n_train: int, rate: float) -> Recipe:
    front = FrontEnd(hop=max(0.0125, round(spatial[0] / rate / 128, 4)))
    arguments = {"widths": (16, 32, 64, 64), "kernels": (5, 3, 3, 3), "strides": (1, 1, 1, 1), "pools": (2, 2, 2, 1), "blocks": (0, 0, 0, 1), "grid": 2, "dropout": 0.2}  # fmt: skip
    return Recipe(2, arguments, _epochs(80_000, n_train), 64, 3e-3, 0.01, optimizer="adamw", average=0.99,
                  label_smoothing=0.1, front_end=front,
                  augment=(("contrast", 0.2), ("shift", 0.1), ("noise", 0.05), ("time_mask", 0.2), ("frequency_mask", 0.2)))  # fmt: skip


def _series(spatial: tuple[int, ...], n_train: int) -> Recipe:
    batch = max(4, min(16, n_train // 2)) if n_train < 1000 else 64
    arguments = {"widths": (32, 64, 64), "kernels": (9, 5, 3), "pools": 1, "blocks": 1, "grid": 1, "dropout": 0.2}
    return Recipe(1, arguments, max(20, ceil(600 * batch / n_train)), batch, 2e-3, 0.01, optimizer="adamw")


def _volume(spatial: tuple[int, ...], n_train: int) -> Recipe:
    arguments = {"widths": (16, 32, 64, 64), "pools": (2, 2, 2, 1), "blocks": (0, 0, 0, 1), "grid": 1, "dropout": 0.2}
    return Recipe(3, arguments, _epochs(20_000, n_train), 32, 2e-3, 0.01, optimizer="adamw", average=0.99,
                  augment=(("affine", 1.0), ("shift", 0.1)))  # fmt: skip


def _epochs(items: int, n_train: int, least: int = 4, most: int = 200) -> int:
    return max(least, min(most, round(items / n_train)))


def cells(spatial: tuple[int, ...]) -> int:
    """Cells of one item."""
    return prod(spatial)
