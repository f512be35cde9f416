"""Detectors of orientation and colour among a layer's filters, with random filters as the control.

A filter (C, *kernel) is split into one colour times one pattern, its best such part (singular vectors). To the pattern
a Gabor function is fitted (Daugman 1985, doi:10.1364/JOSAA.2.001160): exp(-|r|^2 / 2 s^2) times a sum of the cosine and
sine of 2 pi w r, r from a centre, w a wave vector in cycles a cell; in 1-D a wave packet, in 3-D a grating of any
direction. `fit` is the share of the whole filter's sum of squares that colour and Gabor explain together. Differs: the
envelope is round, since few cells must not meet many parameters.

`opponency` is the share of a filter's sum of squares that is left when the mean over channels is taken away: 0 of a
grey filter, 1 where channels cancel in every cell, (C - 1) / C of noise on average. So colour is organised where the
filters are far from that, to either side.

Random filters fit too: a Gabor has seven free numbers in 2-D. So both figures are compared with filters of the same
shape of random weights, by a permutation test on the difference of means (Fisher; exact under exchange of labels).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError
from gridsight.inside.filters import Filters

FAINT = 1e-3
"""Filters shorter than this share of the longest are dead: they are in no mean and no test."""
STARTS, TRIES, ROUNDS = 2, 32, 14
"""Fits are refined from the best `STARTS` of a table, by `TRIES` neighbours in `ROUNDS` of ever smaller steps."""


@dataclass(frozen=True, eq=False)
class Against:
    """A mean over filters, `trained`, the same over `random` ones, and the probability `p` of that much by luck."""

    trained: float
    random: float
    p: float
    n: int
    n_random: int


@dataclass(frozen=True, eq=False)
class Detectors:
    """Of each filter: `fit`, `wave` (filters, ndim), `centre` (filters, ndim) in cells from the middle of the kernel,
    `width` s, `colour` (filters, C) of length 1, `opponency` (NaN of one channel), and `live`, false of dead filters.

    `orientation` compares the fits, `colours` the distances of opponency from noise (None of one channel).
    """

    layer: str
    fit: NDArray[np.float64]
    wave: NDArray[np.float64]
    centre: NDArray[np.float64]
    width: NDArray[np.float64]
    colour: NDArray[np.float64]
    opponency: NDArray[np.float64]
    live: NDArray[np.bool_]
    orientation: Against
    colours: Against | None

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Cycles a cell."""
        return np.linalg.norm(self.wave, axis=1)

    @property
    def degrees(self) -> NDArray[np.float64]:
        """In 2-D, from 0 to 180: how an edge that the filter sees lies, 0 along a row, 90 upright; NaN of blobs, whose
        wave is shorter than half a cycle over the filter's two widths."""
        if self.wave.shape[1] != 2:
            raise UsageError(f"edges have an angle in 2-D, not in {self.wave.shape[1]}-D: see `wave`")
        angle = np.degrees(np.arctan2(self.wave[:, 0], self.wave[:, 1])) + 90
        return np.where(self.frequency * 2 * self.width < 0.5, np.nan, angle % 180)


def detectors(found: Filters, networks: int = 4, permutations: int = 9999, seed: int = 0) -> Detectors:
    """Fits of every filter, and of `networks` times as many random ones of the same shape."""
    weights = found.weights.double()
    if math.prod(weights.shape[2:]) < 9:
        kernel = " x ".join(map(str, weights.shape[2:]))
        raise UsageError(f"a kernel of {kernel} cells is too small for a Gabor function: take one of 9 cells or more")
    random = _normal(networks * len(weights), weights.shape[1:], seed)
    lengths = torch.linalg.vector_norm(weights.flatten(1), dim=1)
    live = (lengths > FAINT * lengths.max()).numpy()
    if not live.any():
        raise UsageError(f"all filters of {found.layer!r} are zero")
    colour, fit, wave, centre, width = _fits(weights)
    _, control, _, _, _ = _fits(random)
    channels = weights.shape[1]
    opponency = _opponency(weights)
    colours = None
    if channels > 1:
        noise = 1 - 1 / channels
        colours = _against(np.abs(opponency[live] - noise), np.abs(_opponency(random) - noise), permutations, seed)
    return Detectors(
        found.layer,
        np.where(live, fit, np.nan),
        wave,
        centre,
        width,
        colour,
        opponency,
        live,
        _against(fit[live], control, permutations, seed),
        colours,
    )


def _against(own: NDArray[np.float64], other: NDArray[np.float64], permutations: int, seed: int) -> Against:
    """One-sided: how often a random choice of as many of all has as large a mean."""
    both = np.concatenate([own, other])
    rng = np.random.default_rng(hashing.key(seed, "detectors"))
    draws = rng.permuted(np.tile(both, (permutations, 1)), axis=1)[:, : len(own)].mean(1)
    more = int((draws >= own.mean() - 1e-12).sum())
    return Against(float(own.mean()), float(other.mean()), (1 + more) / (1 + permutations), len(own), len(other))


def _normal(count: int, shape: tuple[int, ...], seed: int) -> Tensor:
    share = hashing.uniform(seed, 0, torch.arange(count), "random filters", math.prod(shape)).double()
    return torch.erfinv((2 * share - 1).clamp(-1 + 1e-7, 1 - 1e-7)).view(count, *shape)


def _opponency(weights: Tensor) -> NDArray[np.float64]:
    if weights.shape[1] == 1:
        return np.full(len(weights), np.nan)
    rest = (weights - weights.mean(1, keepdim=True)).square().flatten(1).sum(1)
    return np.asarray((rest / weights.square().flatten(1).sum(1).clamp(min=1e-300)).numpy())


def _fits(weights: Tensor) -> tuple[NDArray[np.float64], ...]:
    """Of filters (F, C, *kernel): colour (F, C), fit (F,), wave (F, ndim), centre (F, ndim), width (F,)."""
    kernel = weights.shape[2:]
    left, sizes, right = torch.linalg.svd(weights.flatten(2), full_matrices=False)
    colour, pattern = left[:, :, 0], right[:, 0]  # (F, C), (F, cells), each of length 1
    turn = torch.where(colour.gather(1, colour.abs().argmax(1, keepdim=True)) < 0, -1.0, 1.0)
    leading = sizes[:, 0].square() / sizes.square().sum(1).clamp(min=1e-300)
    axes = [torch.arange(k, dtype=torch.float64) - (k - 1) / 2 for k in kernel]
    cells = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], 1)  # (cells, ndim)
    table = _table(kernel)
    gabors = _gabors(table, cells)  # (T, cells, 2)
    explained = torch.einsum("fc,tcb->ftb", pattern, gabors).square().sum(2)
    best, rows = explained.topk(STARTS, 1)
    place = table[rows]  # (F, STARTS, 2 ndim + 1)
    step = torch.tensor([0.12] * len(kernel) + [max(k / 6, 0.5) for k in kernel] + [max(kernel) / 6]).double()
    offsets = _offsets(place.shape[2])
    low, high = _bounds(kernel)
    for _ in range(ROUNDS):
        tried = (place[:, :, None] + offsets * step).clamp(low, high)
        flat = _gabors(tried.flatten(0, 2), cells).view(*tried.shape[:3], len(cells), 2)
        said = torch.einsum("fc,fstcb->fstb", pattern, flat).square().sum(3)
        top, at = said.max(2)
        moved = tried.gather(2, at[:, :, None, None].expand(-1, -1, 1, place.shape[2]))[:, :, 0]
        better = top > best
        place, best = torch.where(better[:, :, None], moved, place), torch.where(better, top, best)
        step = step * 0.75
    best, at = best.max(1)
    place = place.gather(1, at[:, None, None].expand(-1, 1, place.shape[2]))[:, 0]
    ndim = len(kernel)
    wave = place[:, :ndim]
    # a wave and its opposite are one grating
    wave = torch.where(wave[:, -1:] < 0, -wave, wave)
    parts = ((colour * turn), best * leading, wave, place[:, ndim : 2 * ndim], place[:, -1])
    return tuple(np.asarray(part.numpy()) for part in parts)


def _bounds(kernel: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of wave, centre and width: no more than half a cycle a cell, centres within the kernel."""
    edges = [(k - 1) / 2 for k in kernel]
    low = [-0.5] * len(kernel) + [-e for e in edges] + [0.5]
    high = [0.5] * len(kernel) + edges + [1.0 * max(kernel)]
    return torch.tensor(low).double(), torch.tensor(high).double()


def _table(kernel: tuple[int, ...]) -> Tensor:
    """Where fits start: (T, 2 ndim + 1) waves, centres and widths, evenly spread; a wave and its opposite are one."""
    ndim = len(kernel)
    steps = {1: 9, 2: 7, 3: 5}[ndim]
    waves = torch.cartesian_prod(*[torch.linspace(-0.45, 0.45, steps).double()] * ndim).view(-1, ndim)
    waves = waves[: len(waves) // 2 + 1]
    centres = torch.cartesian_prod(*[torch.tensor([-k / 5, 0.0, k / 5]).double() for k in kernel]).view(-1, ndim)
    widths = torch.tensor([max(kernel) / 8, max(kernel) / 4, max(kernel) / 2]).double().clamp(min=0.5)
    at = torch.cartesian_prod(torch.arange(len(waves)), torch.arange(len(centres)), torch.arange(len(widths)))
    return torch.cat([waves[at[:, 0]], centres[at[:, 1]], widths[at[:, 2], None]], 1)


def _offsets(size: int) -> Tensor:
    """(TRIES, size) steps from -1 to 1, the same every time; half of them change few things at once."""
    share = hashing.uniform(0, 0, torch.arange(TRIES), "neighbours", 2 * size).double()
    steps = 2 * share[:, :size] - 1
    few = (share[:, size:] < 0.4) | (torch.arange(TRIES) % 2 == 0)[:, None]
    return steps * few


def _gabors(place: Tensor, cells: Tensor) -> Tensor:
    """Orthonormal (rows, cells, 2): what a cosine and a sine under the envelope of each row of `place` span."""
    ndim = cells.shape[1]
    from_centre = cells - place[:, None, ndim : 2 * ndim]
    envelope = (-from_centre.square().sum(2) / (2 * place[:, -1:].square())).exp()
    phase = 2 * math.pi * torch.einsum("rcd,rd->rc", from_centre, place[:, :ndim])
    first = envelope * phase.cos()
    first = first / torch.linalg.vector_norm(first, dim=1, keepdim=True).clamp(min=1e-9)
    second = envelope * phase.sin()
    length = torch.linalg.vector_norm(second, dim=1, keepdim=True)
    second = second - (second * first).sum(1, keepdim=True) * first
    left = torch.linalg.vector_norm(second, dim=1, keepdim=True)
    # of no wave the sine is nothing: rounding must not be blown up into a pattern
    second = torch.where(
        left > 1e-6 * length.clamp(min=1e-6), second / left.clamp(min=1e-300), torch.zeros_like(second)
    )
    return torch.stack([first, second], 2)
