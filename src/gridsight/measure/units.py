"""Unit search: which channel of which stage of a network tells places that hold a concept from places that do not?

`search` gives the whole table: for every channel and concept the area under the ROC curve (AUC) over windows of the
pictures. A window is as large as the concept usually is. Those that hold it have an instance in their middle; those
that do not have no cell of it, and lie anywhere, or around instances of other concepts (`against`), which is the harder
question: almost anything tells an eye from an empty wall. What a channel says of a window is its largest activation, or
the smallest, negated (`sign` -1: it falls silent), over the cells whose receptive fields have their centre in it. They
see beyond the window, so a late channel may go by what is around. Stage 0 is the input itself, without any network.

The best of many channels is good by luck too. So half of the pictures is searched, which chooses signs and the `best`
channel, and all that is reported comes from the other half, with intervals from a bootstrap over its pictures. Two
controls: `shuffled` labels, and the `untrained` network, the same layers with random weights.

The question is that of network dissection (Bau et al., CVPR 2017, arXiv:1704.05796, section 2.2), which enlarges each
map, cuts it at the 0.5 % of cells with the highest values and takes the overlap (IoU above 0.04) with annotated cells,
on the data that chose the label. Here: no threshold, windows for cells, both signs, halves, intervals and controls.
Shapes: pictures (N, C, *spatial), truth (N, concepts, *spatial) with instances numbered from 1 in each plane.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError
from gridsight.measure.intervals import Floats, bootstrap, group_numbers, percentile, wilson
from gridsight.measure.metrics import Curves
from gridsight.nn.geometry import Field, centres, stage_fields
from gridsight.nn.nd import he_init
from gridsight.nn.net import Net

BATCH = 64
EMPTY = 8  # windows tried a picture for those that do not hold a concept


@dataclass(frozen=True)
class Unit:
    """One channel on one concept: `auc` with its 95 % interval over `n` windows, `positives` of which hold the concept.

    `searched` is the AUC on the other half, which chose the `sign`.
    """

    stage: int
    channel: int
    concept: str
    sign: int
    searched: float
    auc: float
    low: float
    high: float
    n: int
    positives: int


@dataclass(frozen=True)
class Windows:
    """Windows of `side` cells an axis: in picture `picture` (n,) from cell `low` (n, ndim) on; `holds` (n,) bool."""

    picture: NDArray[np.int64]
    low: NDArray[np.int64]
    side: NDArray[np.int64]
    holds: NDArray[np.bool_]


def search(
    net: Net,
    x: Tensor,
    truth: NDArray[Any],
    concepts: Sequence[str],
    against: Sequence[str] | None = None,
    *,
    shuffled: bool = False,
    resamples: int = 200,
    seed: int = 0,
) -> list[Unit]:
    """A row for every channel of every stage and every concept of x (N, C, *spatial), as the network sees it.

    Windows without the concept lie anywhere, or around the instances of the concepts `against`. `shuffled` deals the
    labels out anew among the windows of each half; without `resamples` intervals are NaN.
    """
    truth = np.asarray(truth)
    if truth.shape != (len(x), len(concepts), *x.shape[2:]):
        wanted = (len(x), len(concepts), *x.shape[2:])
        raise UsageError(f"truth is {truth.shape}; {len(concepts)} concepts in pictures {tuple(x.shape)} need {wanted}")
    unknown = sorted(set(against or ()) - set(concepts))
    if unknown:
        raise UsageError(f"against {unknown[0]!r}: concepts are {', '.join(concepts)}")
    if truth.dtype.kind not in "iu":
        raise UsageError(f"truth is {truth.dtype}; it must number the instances of each plane, 0 for no cell of any")
    alone = [name for name in concepts if against is not None and not set(against) - {name}]
    if alone:
        raise UsageError(f"against {list(against or ())}: {alone[0]!r} needs another concept to be told from")
    rivals = None if against is None else [concepts.index(name) for name in against]
    windows = [find_windows(truth, c, rivals, seed) for c in range(len(concepts))]
    half = np.zeros(len(x), bool)
    half[hashing.permutation(seed, 0, len(x))[: len(x) // 2]] = True
    rows = []
    where, found = responses(net, x, windows)
    for name, each, said in zip(concepts, windows, found, strict=True):
        searched = half[each.picture]
        for part in (searched, ~searched):
            if len(np.unique(each.holds[part])) < 2:
                raise UsageError(f"half of the pictures has no window with {name!r}, or none without it: give more")
        holds = each.holds.copy()
        if shuffled:
            for place in map(np.flatnonzero, (searched, ~searched)):
                holds[place] = holds[place][hashing.permutation(seed, 1, len(place))]
        rows += _rows(name, where, said, holds, each.picture, searched, resamples, seed)
    return rows


def best(units: Iterable[Unit]) -> dict[tuple[int, str], Unit]:
    """Of each (stage, concept) the unit that was best on the searched half; its `auc` is that of the other half."""
    found: dict[tuple[int, str], Unit] = {}
    for unit in units:
        place = unit.stage, unit.concept
        if place not in found or unit.searched > found[place].searched:
            found[place] = unit
    return found


def histograms(units: Iterable[Unit], bins: int = 20) -> dict[tuple[int, str], NDArray[np.int64]]:
    """Of each (stage, concept) how many units have an `auc` in each of `bins` equal parts of 0 to 1."""
    values: dict[tuple[int, str], list[float]] = {}
    for unit in units:
        values.setdefault((unit.stage, unit.concept), []).append(unit.auc)
    return {place: np.histogram(aucs, bins, (0, 1))[0] for place, aucs in values.items()}


def untrained(net: Net, x: Tensor, seed: int = 0) -> Net:
    """The same layers with random weights; batch norms take their statistics from x (N, C, *spatial)."""
    twin = copy.deepcopy(net).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in twin.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
            elif any(True for _ in layer.parameters(recurse=False)):
                raise UsageError(f"{type(layer).__name__} has weights and no way to make them random again")
        he_init(twin)
    norms = [layer for layer in twin.modules() if isinstance(layer, _BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # running statistics become the mean over batches
    with torch.no_grad():
        for part in x.split(BATCH):
            for _ in twin.forward_stages(part):
                pass
    return twin.eval()


def find_windows(truth: NDArray[Any], concept: int, rivals: Sequence[int] | None = None, seed: int = 0) -> Windows:
    """Windows around each instance of a concept (its number), then those without any cell of it.

    The latter lie anywhere (`EMPTY` tried a picture), or around the instances of the concepts `rivals`.
    """
    plane, spatial = truth[:, concept], np.array(truth.shape[2:])
    picture, low, high = _boxes(plane)
    longest = (high - low).max(1) if len(low) else np.ones(1)
    side = np.minimum(int(np.median(longest)), spatial)
    if rivals is None:
        other = np.repeat(np.arange(len(truth)), EMPTY)
        drawn = hashing.uniform(seed, 0, torch.arange(len(truth)), f"windows {concept}", EMPTY * len(spatial))
        start = (drawn.numpy().reshape(-1, len(spatial)) * (spatial - side + 1)).astype(np.int64)
    else:
        around = [_boxes(truth[:, rival]) for rival in rivals if rival != concept]
        other, first, last = (np.concatenate(parts) for parts in zip(*around, strict=True))
        start = _around(first, last, side, spatial)
    boxes: list[Any] = [(i, *map(slice, a, b)) for i, a, b in zip(other, start, start + side, strict=True)]
    clear = [not plane[box].any() for box in boxes]
    return Windows(
        np.concatenate([picture, other[clear]]),
        np.concatenate([_around(low, high, side, spatial), start[clear]]),
        side,
        np.arange(len(picture) + sum(clear)) < len(picture),
    )


@torch.no_grad()
def responses(
    net: Net, x: Tensor, windows: Sequence[Windows]
) -> tuple[list[tuple[int, int]], list[NDArray[np.float32]]]:
    """(stage, channel) of every unit, and for each `windows` what they say: (n, units, 2), maximum and minus minimum.

    Stage 0 is the input x (N, C, *spatial).
    """
    ndim, was_training = x.dim() - 2, net.training
    net.eval()
    identity = Field((1,) * ndim, (1,) * ndim, (0.0,) * ndim)
    fields = [identity, *stage_fields(net, x.shape[1], tuple(x.shape[2:]))]
    where: list[tuple[int, int]] = []
    said: list[NDArray[np.float32]] = []
    for first in range(0, len(x), BATCH):
        part = x[first : first + BATCH]
        stages = [part, *map(net.to_grid, net.forward_stages(part))]
        if not where:
            where = [(s, c) for s, stage in enumerate(stages) for c in range(stage.shape[1])]
            said = [np.zeros((len(each.picture), len(where), 2), np.float32) for each in windows]
        for each, out in zip(windows, said, strict=True):
            mine = np.flatnonzero((each.picture >= first) & (each.picture < first + len(part)))
            item = torch.from_numpy(each.picture[mine] - first).view(-1, *[1] * ndim)
            pooled = []
            for stage, field in zip(stages, fields, strict=True):
                index = [item]
                for axis, cells in enumerate(stage.shape[2:]):
                    middles = centres(field, axis, cells, x.shape[2 + axis])
                    place = torch.from_numpy(_inside(middles, each.low[mine, axis], int(each.side[axis])))
                    index.append(place.view(-1, *[place.shape[1] if a == axis else 1 for a in range(ndim)]))
                values = stage.movedim(1, -1)[tuple(index)].flatten(1, -2)  # (n, cells, C)
                pooled.append(torch.stack([values.amax(1), -values.amin(1)], 2))
            out[mine] = torch.cat(pooled, 1).float().cpu().numpy()
    net.train(was_training)
    return where, said


def _inside(centres: Floats, low: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """(n, most) cells with their centres in the windows from `low` (n,) on, the last repeated; at least the nearest."""
    first, behind = np.searchsorted(centres, low), np.searchsorted(centres, low + side - 1, "right")
    nearest = np.abs(centres - (low + (side - 1) / 2)[:, None]).argmin(1)
    empty = behind <= first
    first, last = np.where(empty, nearest, first), np.where(empty, nearest, behind - 1)
    return np.minimum(first[:, None] + np.arange((last - first).max(initial=0) + 1), last[:, None])


def _boxes(plane: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Picture (n,), first cell and the one behind the last (n, ndim) of every instance in (N, *spatial)."""
    found = [(i, box) for i, each in enumerate(plane) for box in ndimage.find_objects(each) if box is not None]
    shape = (len(found), plane.ndim - 1)
    low = np.array([[s.start for s in box] for _, box in found], np.int64).reshape(shape)
    high = np.array([[s.stop for s in box] for _, box in found], np.int64).reshape(shape)
    return np.array([i for i, _ in found], np.int64), low, high


def _around(
    low: NDArray[np.int64], high: NDArray[np.int64], side: NDArray[np.int64], spatial: NDArray[np.int64]
) -> NDArray[np.int64]:
    """First cells (n, ndim) of the windows around the middles of boxes, moved where they would leave the picture."""
    return ((low + high - side) // 2).clip(0, spatial - side)


def _rows(
    concept: str,
    where: Sequence[tuple[int, int]],
    said: NDArray[np.float32],
    holds: NDArray[np.bool_],
    picture: NDArray[np.int64],
    searched: NDArray[np.bool_],
    resamples: int,
    seed: int,
) -> list[Unit]:
    """The rows of one concept: `said` (n, units, 2) of windows of which `holds` (n,) bool hold it."""
    units = len(where)
    both = _curves(said[searched].reshape(-1, 2 * units), holds[searched])
    auc = _areas(both, int(searched.sum())).reshape(units, 2)
    negative = auc[:, 1] > auc[:, 0]
    held, answer = said[~searched][:, np.arange(units), negative.astype(int)], holds[~searched]
    curves, pictures = _curves(held, answer), group_numbers(picture[~searched])
    value = _areas(curves, len(held))
    low = high = np.full(units, np.nan)
    if resamples:
        low, high = percentile(bootstrap(lambda w: curves.each(w)[..., 0].T, pictures, resamples, seed))
        # no resample doubts a perfect value: so many pictures with and without the concept leave this open
        pairs = min(len(np.unique(pictures[answer])), len(np.unique(pictures[~answer])))
        low = np.where(value == 1, wilson(pairs, pairs)[0], low)
    return [
        Unit(
            stage,
            channel,
            concept,
            -1 if negative[i] else 1,
            float(auc[i].max()),
            float(value[i]),
            float(low[i]),
            float(high[i]),
            len(held),
            int(answer.sum()),
        )
        for i, (stage, channel) in enumerate(where)
    ]


def _curves(values: NDArray[Any], holds: NDArray[np.bool_]) -> Curves:
    return Curves.of_labels(values.astype(np.float64), np.repeat(holds[:, None], values.shape[1], 1))


def _areas(curves: Curves, n: int) -> Floats:
    return curves.each(np.ones((n, 1)))[:, 0, 0]
