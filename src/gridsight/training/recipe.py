"""The default network and training recipe: plain facts of the data in, a `Recipe` out; imports no torch.

No rule looks at a data set's name. Figures in the comments are validation accuracies; `docs/defaults.md` has the tables
behind them, and says where a rule is a guess that no experiment has tested.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal


@dataclass(frozen=True)
class FrontEnd:
    """Log-mel settings: raw sound (N, 1, samples) becomes (N, 1, n_mels, frames).

    Cells more than `top_db` decibels below the loudest of their item are raised to that level, so that a recording's
    noise floor and its silences look alike in all: two speakers never heard 89.4 %, 86.9 % with 60 dB, 78.7 % with a
    floor of fixed power for all items instead (which `nn.logmel` has by default).
    """

    n_mels: int = 40
    window: float = 0.032  # seconds
    hop: float = 0.0125  # seconds
    top_db: float = 40.0


@dataclass(frozen=True)
class Tuning:
    """Of a start from trained weights: `frozen` epochs in which only the head learns; the rate of the first stage over
    that of the head is `spread` (`training.tuning`)."""

    frozen: int
    spread: float


@dataclass(frozen=True)
class Recipe:
    """What `train` does when no option says otherwise.

    `average` is the decay of an exponential moving average of the weights a step (0: the last weights); `clip` the
    largest gradient norm (0: none); `mixup` the parameter of mixup's Beta distribution (0: none); `warmup` the share of
    steps until `lr` is reached; `weight_decay` is decoupled for AdamW and not applied to norms and biases. `augment`
    pairs an operation with its strength, in order; `flip` is of the last axis only. `ndim` is the network's (2 for
    sound, which passes a `front_end`). With `whiten` the first stage of gridnet is not trained but whitens
    (`nn.whiten`); `shrunk` is the share of the steps, the first ones, that see items at three quarters of their size.
    """

    ndim: int
    arguments: Mapping[str, Any]
    epochs: float
    batch: int
    lr: float
    weight_decay: float
    model: str = "gridnet"
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    momentum: float = 0.9
    schedule: Literal["onecycle", "cosine", "step", "constant"] = "onecycle"
    warmup: float = 0.2
    label_smoothing: float = 0.0
    average: float = 0.0
    clip: float = 0.0
    augment: tuple[tuple[str, float], ...] = ()
    front_end: FrontEnd | None = None
    mixup: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    tuning: Tuning | None = None
    whiten: bool = False
    shrunk: float = 0.0


def recipe(
    ndim: int,
    in_channels: int,
    spatial: tuple[int, ...],
    num_classes: int,
    n_train: int,
    sampling_rate: float | None = None,
    colour: bool = False,
    alphabet: str | None = None,
    spacing: tuple[float, ...] | None = None,
    aligned: bool = False,
) -> Recipe:
    """The default for data of this kind; `n_train` counts the items trained on, after validation is carved off.

    `spacing` is in mm between the cells of volumes; without it they count as cubes. `aligned` sequences are windows
    around a site of some kind, so that each place means the same in all of them.
    """
    found = _of_kind(ndim, spatial, n_train, sampling_rate, colour, alphabet, spacing, aligned)
    return found if ndim == 1 and sampling_rate is None else _enough_steps(found, n_train)


def _enough_steps(found: Recipe, n_train: int) -> Recipe:
    """At least eight steps an epoch: with fewer, norms and averages do not follow the weights.

    90 pictures, 20 epochs: R squared -11.7 on held-out ones in batches of all 72, 0.94 in batches of 16.
    """
    batch = min(found.batch, max(8, n_train // 8))
    if batch == found.batch:
        return found
    # a rate of SGD belongs to its batch (Goyal et al., arXiv:1706.02677), one of Muon to the root of it (0.1 was best
    # for 256 of MNIST, 0.05 for 64 digits); AdamW's is left
    power = {"sgd": 1.0, "muon": 0.5, "adamw": 0.0}[found.optimizer]
    return replace(found, batch=batch, lr=found.lr * (batch / found.batch) ** power)


def _of_kind(
    ndim: int,
    spatial: tuple[int, ...],
    n_train: int,
    sampling_rate: float | None,
    colour: bool,
    alphabet: str | None,
    spacing: tuple[float, ...] | None,
    aligned: bool,
) -> Recipe:
    if alphabet is not None:
        return _aligned(spatial[0], n_train) if aligned else _sequence(spatial[0], n_train)
    if ndim == 1 and sampling_rate is not None and sampling_rate >= 4000:
        return _sound(spatial[0], n_train, sampling_rate)
    if ndim == 1:
        return _series(spatial[0], n_train)
    if ndim == 3:
        return _volume(spatial, n_train, spacing)
    if max(spatial) <= 16:
        return _tiny_picture(spatial, n_train, colour)
    if max(spatial) <= 48:
        return _small_picture(spatial, n_train, colour)
    return _photograph(spatial, n_train, colour)


def shortened(found: Recipe, epochs: float) -> Recipe:
    """The recipe over so many epochs; the head learns alone for the same share of them."""
    tuning = found.tuning and replace(found.tuning, frozen=int(found.tuning.frozen * epochs / found.epochs))
    return replace(found, epochs=epochs, tuning=tuning)


def tuned(found: Recipe, n_train: int) -> Recipe:
    """The recipe for a network that starts from trained weights: fewer and gentler steps, the head first."""
    epochs = _passes(20_000, n_train, least=8, most=60)
    # pictures of CIFAR-10 for a network of ImageNet, a first stage at 0.1 and 0.01 of the head's rate: of 10 a class
    # 44.9 and 52.1 %, of 150 a class 68.2 and 73.4 %
    tuning = Tuning(max(1, epochs // 5), 0.01)
    return replace(
        found,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.05,
        batch=min(32, max(8, n_train // 8)),
        epochs=epochs,
        tuning=tuning,
        schedule="onecycle",
        warmup=0.2,
        label_smoothing=0.1,
        average=0.99,
        whiten=False,
        shrunk=0.0,
    )


def _tiny_picture(spatial: tuple[int, ...], n_train: int, colour: bool) -> Recipe:
    """Up to 16 cells an axis: every cell counts, so nothing strides before the second stage."""
    pools = (1, 2, 1)
    arguments = {"widths": (32, 64, 128), "pools": pools, "blocks": 0, "grid": _grid(spatial, 4, pools)}
    # rotation, zoom and shear of any picture this small cost nothing: 99.86 % of 1,438 digits cross-validated, twice
    augment = (("affine", 1.0), ("shift", 0.1), *_mirror(colour))
    # 287 digits, 3 seeds: 99.8 % in 52 epochs and 99.4 % in 17, with AdamW 98.8 and 98.3 %
    epochs = _passes(30_000, n_train, least=15, most=150)
    return Recipe(2, arguments, epochs, 64, 0.05, 0.01, optimizer="muon", label_smoothing=0.1, average=0.99,
                  augment=augment)  # fmt: skip


def _small_picture(spatial: tuple[int, ...], n_train: int, colour: bool) -> Recipe:
    """Up to 48 cells an axis, many items: cheap networks and Muon, which needs half the steps of SGD."""
    if colour:
        # CIFAR-10's JPEG pictures in equal time: 80.5 %, 79.5 % with a first stride of 2 and residual blocks. Before
        # Muon 66.9 % after 1.5 epochs of the latter, with it 75.8 %; small pictures first take 15 % less time
        arguments: dict[str, Any] = {
            "widths": (24, 48, 48, 96, 96, 192, 192),
            "kernels": 3,
            "strides": 1,
            "pools": (1, 2, 1, 2, 1, 2, 1),
            "blocks": 0,
            "grid": 1,
        }
        # 2.5 epochs: 83.1 % at a rate of 0.03, 82.5 at 0.05 (83.0 with label smoothing of 0.2), 82.0 at 0.1
        return Recipe(2, arguments, _passes(220_000, n_train, least=4, most=60), 256, 0.03, 0.01, optimizer="muon",
                      label_smoothing=0.2, average=0.99, augment=(("shift", 0.07), *_mirror(colour)),
                      whiten=True, shrunk=0.4)  # fmt: skip
    arguments = {"widths": (16, 32, 64, 64), "kernels": (5, 3, 3, 3), "strides": (2, 1, 1, 1), "blocks": 0}
    if min(spatial) >= 25 and max(spatial) <= 32:
        # MNIST, 3 seeds, half an epoch: 99.02 %, 98.90 % with borders and a third pool, for 15 % less time
        arguments |= {"pools": (1, 2, 1, 1), "padding": ("same", "same", "valid", "valid"), "grid": 3}
    else:
        arguments |= {"pools": (1, 2, 2, 1), "grid": _grid(spatial, 3, (2, 2, 2, 1))}
    # shifts of two cells in 28; affine at strength 0.7 cost 0.07 points in 8 epochs of MNIST, so it is left out
    return Recipe(2, arguments, _passes(250_000, n_train, least=4, most=80), 256, 0.1, 0.01, optimizer="muon",
                  label_smoothing=0.1, average=0.99, augment=(("shift", 0.07),))  # fmt: skip


def _photograph(spatial: tuple[int, ...], n_train: int, colour: bool) -> Recipe:
    """Larger pictures: the first stage shrinks them by 4, above 160 cells an axis by 8."""
    first = 4 if max(spatial) > 160 else 2
    arguments = {
        "widths": (24, 48, 96, 192),
        "kernels": (7 if first == 4 else 5, 3, 3, 3),
        "strides": (first, 2, 2, 2),
        "pools": (2, 1, 1, 1),
        "blocks": (0, 1, 1, 1),
        "grid": 1,
        "dropout": 0.2,
    }
    augment = (("crop", 0.3), *_mirror(colour), ("contrast", 0.2))
    # 3,000 pictures of CIFAR-10 at 64 cells, on as many others: 68.3 % in 33 epochs, with AdamW 59.9 %
    epochs = _passes(60_000, n_train, least=6, most=60)
    return Recipe(2, arguments, epochs, 32 if n_train < 2000 else 64, 0.05, 0.05, optimizer="muon",
                  label_smoothing=0.1, average=0.99, augment=augment)  # fmt: skip


def _sound(samples: int, n_train: int, rate: float) -> Recipe:
    """Raw sound: a log-mel picture of at most 128 frames or so, then 2-D."""
    front = FrontEnd(hop=max(0.0125, round(samples / rate / 128, 4)), window=max(0.032, round(samples / rate / 64, 4)))
    frames, pools = 1 + round(samples / rate / front.hop), (2, 2, 2, 1)
    arguments = {
        "widths": (16, 32, 64, 64),
        "kernels": (5, 3, 3, 3),
        "pools": pools,
        "blocks": (0, 0, 0, 1),
        "grid": _grid((front.n_mels, frames), 2, pools),
        "dropout": 0.2,
        # a speaker never heard: 84.4 %, 76.4 % without (mean of three left out, half the epochs)
        "standardise": True,
    }
    augment = (("contrast", 0.2), ("shift", 0.1), ("noise", 0.05), ("time_mask", 0.2), ("frequency_mask", 0.2))
    # 480 spoken digits: 99.8 % in 42 epochs and in 14, with AdamW 99.4 and 99.4 %
    epochs = _passes(32_000, n_train, least=6, most=100)
    return Recipe(2, arguments, epochs, 64, 0.05, 0.01, optimizer="muon", label_smoothing=0.1, average=0.99,
                  augment=augment, front_end=front)  # fmt: skip


def _series(length: int, n_train: int) -> Recipe:
    """Series: residual stages with long kernels; longer ones stride until 256 cells are left."""
    stride = 1
    while length > 256 * stride:
        stride *= 2
    # where something happens counts: splice junctions 92.6 % with 6 cells, 82.5 % with the mean alone; but 74
    # promoters 78 % with 6 cells, 91 % with 3: too many weights for so few items. Short series lie whole within the
    # 43 steps that one cell sees, borders included, and keep every step and the mean: errors of cross-validation 3 and
    # 6, with 6 cells 5 and 9 (134 electricity days of 24 steps, 270 vowels of up to 29)
    short = length < 48
    pools = (1, 1, 1) if short else (1, 2, 2)
    arguments = {
        "widths": (32, 64, 64),
        "kernels": (max(9, 2 * stride + 1), 5, 3),
        "strides": (stride, 1, 1),
        "pools": pools,
        "blocks": 1,
        "grid": _grid((length,), 1 if short else 6 if n_train >= 100 else 3, (stride, *pools)),
        "dropout": 0.2 if short else 0.5,  # long: mean of seven sets 82.5 %, 81.8 % with 0.2
    }
    batch = max(4, min(16, n_train // 2)) if n_train < 1000 else 64
    # at least 800 steps: the smallest sets have 30 items
    epochs = max(30 if n_train < 1000 else 20, ceil(800 * batch / n_train))
    # small shifts: mean of seven sets 84.7 %, 82.5 % without; they make up for most of what 6 cells cost few items
    return Recipe(1, arguments, epochs, batch, 2e-3, 0.01, optimizer="adamw",
                  augment=() if short else (("shift", 0.05),))  # fmt: skip


def _aligned(length: int, n_train: int) -> Recipe:
    """Windows of DNA or protein around a site: two convolutions, then a weight for every place; nothing is moved.

    Splice junctions 96.7 %; read as a series 92.8 %, with its shifts 87.9 %; residual blocks cost 1.2 points.
    """
    pool = ceil(length / 128)
    arguments = {
        "widths": (128, 64),
        "kernels": (9, 5),
        "pools": (pool, 1),
        "blocks": 0,
        "grid": ceil(length / pool),
        "dropout": 0.5,
    }
    batch = max(4, min(16, n_train // 2)) if n_train < 1000 else 64
    epochs = max(30 if n_train < 1000 else 15, ceil(400 * batch / n_train))
    return Recipe(1, arguments, epochs, batch, 2e-3, 0.01, optimizer="adamw")


def _sequence(length: int, n_train: int) -> Recipe:
    """Sequences of which any place may hold what matters: as a series, but read by the mean of all places, unmoved."""
    found = _series(length, n_train)
    # a motif planted anywhere in 60 and 200 letters: 97.9 and 95.8 %, as a series with 6 cells and shifts 97.2 and 94.9
    return replace(found, arguments={**found.arguments, "grid": (1,), "dropout": 0.2}, augment=())


def _volume(spatial: tuple[int, ...], n_train: int, spacing: tuple[float, ...] | None = None) -> Recipe:
    """Volumes: an item of 28 cells an axis costs as much as 30 pictures, so the first convolution strides above 20."""
    stride = 1 if max(spatial) <= 20 else 2 if max(spatial) <= 40 else 4
    shrinks, flat = _by_scale((stride, 1 if stride == 2 else 2, 2, 2, 1), spacing or (1.0,) * len(spatial))
    first, *pools = shrinks
    kernels = [tuple(1 if thick else 3 for thick in stage) for stage in flat[1:]]
    # the first kernel overlaps with its neighbours: 3 at a stride of 2, 5 at 4
    kernels[0] = tuple(1 if thick else max(3, s + 1 + s % 2) for thick, s in zip(flat[0], first, strict=True))
    arguments = {
        "widths": (16, 32, 64, 64),
        "kernels": tuple(map(_plain, kernels)),
        "strides": (_plain(first), 1, 1, 1),
        "pools": tuple(map(_plain, pools)),
        "blocks": (0, 0, 0, 1),
        "grid": tuple(_grid((n,), 2, axis)[0] for n, axis in zip(spatial, zip(*shrinks, strict=True), strict=True)),
        "dropout": 0.2,
    }
    # shifts alone: digits in noisy volumes 83.4 %, with rotation and zoom as well 75.2 % (thin things blur).
    # 240 solids after 13 epochs: 94.6 %, with AdamW 86.3 %
    epochs = _passes(16_000, n_train, least=8, most=80)
    return Recipe(3, arguments, epochs, 32, 0.05, 0.01, optimizer="muon", average=0.99,
                  augment=(("shift", 0.1),))  # fmt: skip


def _by_scale(
    factors: tuple[int, ...], spacing: tuple[float, ...]
) -> tuple[list[tuple[int, ...]], list[tuple[bool, ...]]]:
    """What each axis shrinks by at each step, and which axes are flat before it: thick slices wait for the others.

    An axis whose cells are more than twice as long as the shortest is not shrunk, and kernels do not reach along it:
    neighbours there are as far as in no other direction (the rule of nnU-Net, Isensee et al. 2021, arXiv:1904.08128).
    On blobs in noise it was worth 0.01 of AUC for twice the work, at a ratio of 2 as of 4; so 2 is not thick yet.
    """
    cell, shrinks, flat = list(spacing), [], []
    for factor in factors:
        flat.append(tuple(length > 2 * min(cell) for length in cell))
        shrink = [1] * len(cell)
        while factor > 1:
            shortest, factor = min(cell), factor // 2
            for axis, length in enumerate(cell):
                if length <= 2 * shortest:
                    cell[axis], shrink[axis] = 2 * length, 2 * shrink[axis]
        shrinks.append(tuple(shrink))
    return shrinks, flat


def _plain(entry: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number where all axes have the same."""
    return entry[0] if len(set(entry)) == 1 else entry


def _grid(spatial: tuple[int, ...], wanted: int, shrinks: tuple[int, ...]) -> tuple[int, ...]:
    """`wanted` cells an axis, or what an axis has left after these strides and pools, each rounding up."""
    cells = []
    for size in spatial:
        for factor in shrinks:
            size = ceil(size / factor)
        cells.append(min(wanted, size))
    return tuple(cells)


def _passes(items: int, n_train: int, least: int, most: int) -> int:
    """Epochs such that `items` are seen, within bounds."""
    return max(least, min(most, round(items / n_train)))


def _mirror(colour: bool) -> tuple[tuple[str, float], ...]:
    """Left and right are exchangeable in photographs; in grayscale they may be writing, where they are not."""
    return (("flip", 1.0),) if colour else ()
