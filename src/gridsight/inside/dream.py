"""Activation maximisation: an input that moves one unit as much as it can, beside what real data reach.

Erhan, Bengio, Courville and Vincent, "Visualizing higher-layer features of a deep network" (Montreal, TR 1341, 2009).
What keeps it from noise: the input is a spectrum whose fine waves are damped by frequency to the power `smooth`, and
each step sees it moved by some cells (Mordvintsev, Olah and Tyka, "Inceptionism", 2015: jitter; Olah, Mordvintsev and
Schubert, "Feature visualization", Distill 2017, doi:10.23915/distill.00007: both). It stays within the range of the
data, channel by channel (Mahendran and Vedaldi, arXiv:1512.02017, section 4, bound it too): without bounds any figure
can be reached by contrast alone.

Differs: any number of axes; `percentile` says where the figure lies among real items, each of which counts by the same
figure; where it stays below the wanted one, as from noise of which a unit says nothing, the search starts again from
the real item that moves the unit most, then with ever finer waves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError, nearest
from gridsight.inside._reading import Data, batches, known_unit, one_item
from gridsight.measure.layers import as_grid, find_layer, run_through
from gridsight.measure.passes import at_once, outputs_of
from gridsight.nn.undisturbed import undisturbed

AIM = 99.9
"""Percentile of the figure over real items that an input should reach."""
TRIES = ((False, 1.0), (True, 1.0), (False, 0.25), (True, 0.25), (True, 0.0))
"""Searches, until one reaches `AIM`: whether it starts from the best real item, and its share of the damping."""
HOWS = ("mean", "max")


@dataclass(frozen=True, eq=False)
class Survey:
    """What real items reach, for several dreams of one layer: `real` (n, units), in the order of the data.

    `best` (units, C, *spatial): of each unit the item that moves it most; `low`, `high` (C,): the range of the data.
    """

    layer: str | None
    units: tuple[int, ...]
    how: str
    real: NDArray[np.float64]
    best: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True, eq=False)
class Dream:
    """`x` (C, *spatial) and its `figure`: the unit's mean or largest value over the cells of its layer, or an output.

    - `real` (n,): the figure of every item of the data; `aim` their 99.9th percentile, `percentile` the share in % of
      them that lies below `figure`; empty and NaN without data.
    - `start`: the figure of what it started from, `origin` in words; `curve`: that of each step; `smooth`: the damping.
    """

    layer: str | None
    unit: int
    how: str
    x: Tensor
    figure: float
    start: float
    origin: str
    real: NDArray[np.float64]
    curve: tuple[float, ...]
    smooth: float

    @property
    def aim(self) -> float:
        return float(np.percentile(self.real, AIM)) if len(self.real) else float("nan")

    @property
    def percentile(self) -> float:
        return 100 * float(np.mean(self.real < self.figure)) if len(self.real) else float("nan")

    @property
    def reached(self) -> bool | None:
        return bool(self.figure >= self.aim) if len(self.real) else None


def survey(net: nn.Module, layer: str | None, units: Sequence[int], data: Data, how: str = "mean") -> Survey:
    """The figures of all items for channels `units` of a layer, or for outputs where `layer` is None."""
    _known_how(how)
    figures: list[Tensor] = []
    low = high = best = top = None
    with undisturbed(net), torch.no_grad():
        for x in batches(net, data):
            if low is None:
                ask, most = _asker(net, layer, units, how, x[0]), at_once(net, x)
            said = torch.cat([ask(part) for part in x.split(most)])
            figures.append(said.double().cpu())
            here, item = said.max(0)
            least, largest = x.transpose(0, 1).flatten(1).aminmax(dim=1)
            if low is None or high is None or best is None or top is None:
                low, high, best, top = least, largest, x[item].clone(), here
                continue
            low, high = torch.minimum(low, least), torch.maximum(high, largest)
            better = here > top
            best[better], top = x[item[better]], torch.maximum(top, here)
    assert low is not None and high is not None and best is not None
    return Survey(layer, tuple(units), how, torch.cat(figures).numpy(), best, low, high)


def dream(
    net: nn.Module,
    layer: str | None,
    unit: int,
    data: Data | Survey | None = None,
    *,
    how: str = "mean",
    start: Tensor | None = None,
    shape: tuple[int, ...] | None = None,
    bounds: tuple[Tensor | float, Tensor | float] | None = None,
    steps: int = 128,
    rate: float = 0.05,
    jitter: float = 0.06,
    smooth: float = 1.0,
    seed: int = 0,
) -> Dream:
    """An input for channel `unit` of a layer, or for output `unit` where `layer` is None.

    It starts from noise, or from an item `start` (C, *spatial). `bounds` are the smallest and largest value, of all
    channels or of each (C,); with `data` those of the data, else -2 and 2, which suits standardised inputs. `jitter` is
    a share of each axis. Without data or start, `shape` (C, *spatial) says what an input is. For many units of a layer
    give their `survey` in place of the data, which then run through the network once.
    """
    _known_how(how)
    if steps < 1 or rate <= 0 or smooth < 0 or not 0 <= jitter < 0.5:
        raise UsageError("dreaming takes steps >= 1, rate > 0, smooth >= 0 and a jitter from 0 to below 0.5")
    found = survey(net, layer, [unit], data, how) if data is not None and not isinstance(data, Survey) else data
    if found is not None and ((found.layer, found.how) != (layer, how) or unit not in found.units):
        raise UsageError(f"the survey is of {found.how} of units {found.units} of {found.layer or 'the outputs'}")
    real, best = np.empty(0), None
    if found is not None:
        real, best = found.real[:, found.units.index(unit)], found.best[found.units.index(unit)]
        bounds = (found.low, found.high) if bounds is None else bounds
    blank = start if start is not None else best
    if blank is None and shape is not None:
        blank = torch.zeros(shape, dtype=_dtype(net), device=_device(net))
    if blank is None:
        raise UsageError("give data, a start or the shape (C, *spatial) of an input")
    blank = one_item(net, blank)[0]
    low, high = (
        torch.as_tensor(each).to(blank).expand(len(blank)).view(1, -1, *[1] * (blank.dim() - 1))
        for each in (bounds or (-2.0, 2.0))
    )
    if bool((high < low).any()):
        raise UsageError("the smallest value of a channel is above its largest")
    aim, dreamt = float(np.percentile(real, AIM)) if len(real) else -np.inf, None
    with undisturbed(net):
        ask = _asker(net, layer, [unit], how, blank)
        for from_best, share in TRIES:
            if from_best and (best is None or start is not None):
                continue
            origin = "the item given" if start is not None else "the best real item" if from_best else "noise"
            first = best if from_best else start
            x, before, curve = _search(ask, blank, first, low, high, steps, rate, jitter, smooth * share, seed)
            with torch.no_grad():
                figure = float(ask(x))
            if dreamt is None or figure > dreamt.figure:
                dreamt = Dream(layer, unit, how, x[0], figure, before, origin, real, curve, smooth * share)
            if dreamt.figure >= aim:
                break
    assert dreamt is not None
    return dreamt


def _known_how(how: str) -> None:
    if how not in HOWS:
        raise UsageError(f"there is no figure {how!r}; {nearest(how, HOWS)}")


def _asker(
    net: nn.Module, layer: str | None, units: Sequence[int], how: str, item: Tensor
) -> Callable[[Tensor], Tensor]:
    """The figures (N, units) of items like `item`, with a gradient; within `undisturbed`."""
    if layer is None:
        with torch.no_grad():
            count = outputs_of(net, item[None]).shape[1]
    else:
        count = find_layer(net, tuple(item.shape), layer).shape[0]
    which = [known_unit(unit, count, layer or type(net).__name__) for unit in units]

    def ask(x: Tensor) -> Tensor:
        if layer is None:
            return outputs_of(net, x)[:, which]
        said = as_grid(net, run_through(net, x, layer)[1], layer)[:, which].flatten(2)
        return said.mean(2) if how == "mean" else said.amax(2)

    return ask


def _device(net: nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def _dtype(net: nn.Module) -> torch.dtype:
    return next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)


def _search(
    ask: Callable[[Tensor], Tensor],
    blank: Tensor,
    start: Tensor | None,
    low: Tensor,
    high: Tensor,
    steps: int,
    rate: float,
    jitter: float,
    damping: float,
    seed: int,
) -> tuple[Tensor, float, tuple[float, ...]]:
    """(the input, the figure at the start, that of every step), by Adam on the spectrum of what a sigmoid takes."""
    spatial, axes = tuple(blank.shape[1:]), tuple(range(2, blank.dim() + 1))
    scale = _damped(spatial, damping).to(blank)
    if start is not None:
        share = ((start[None].to(blank) - low) / (high - low).clamp(min=1e-12)).clamp(0.01, 0.99)
        spectrum = torch.fft.rfftn(torch.logit(share), dim=axes, norm="ortho") / scale
        parts = torch.view_as_real(spectrum).contiguous()
    else:
        size = (1, *blank.shape[:-1], blank.shape[-1] // 2 + 1, 2)
        share = hashing.uniform(seed, 0, torch.zeros(1, dtype=torch.int64), "dream", prod(size)).double()
        parts = (0.2 * torch.erfinv((2 * share - 1).clamp(-1 + 1e-7, 1 - 1e-7))).view(size).to(blank)
    parts = parts.detach().clone().requires_grad_()

    def made() -> Tensor:
        values = torch.fft.irfftn(torch.view_as_complex(parts) * scale, s=spatial, dim=axes, norm="ortho")
        return low + (high - low) * torch.sigmoid(values)

    moves = hashing.uniform(seed, 1, torch.arange(steps), "jitter", len(spatial))
    most = torch.tensor([round(jitter * size) for size in spatial])
    shifts = ((2 * moves - 1) * (most + 0.5)).round().clamp(-most, most).long().tolist()
    first, mean, square = float("nan"), torch.zeros_like(parts), torch.zeros_like(parts)
    curve = []
    for step, shift in enumerate(shifts, 1):
        x = made()
        if step == 1:
            with torch.no_grad():
                first = float(ask(x))
        value = ask(x.roll(shift, axes))
        (slope,) = torch.autograd.grad(value.sum(), parts)
        curve.append(float(value.detach().sum()))
        mean, square = mean.lerp(slope, 0.1), square.lerp(slope.square(), 0.001)
        move = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-12)
        with torch.no_grad():
            parts += rate * move
    return made().detach(), first, tuple(curve)


def _damped(spatial: tuple[int, ...], damping: float) -> Tensor:
    """(*spatial with half of the last axis): 1 over the wave's frequency to the power `damping`, mean square 1."""
    waves = [torch.fft.fftfreq(size).double() for size in spatial[:-1]] + [torch.fft.rfftfreq(spatial[-1]).double()]
    grids = torch.meshgrid(*waves, indexing="ij")
    frequency = torch.stack([grid.square() for grid in grids]).sum(0).sqrt()
    scale = frequency.clamp(min=1 / max(spatial)) ** -damping
    return scale / scale.square().mean().sqrt()
