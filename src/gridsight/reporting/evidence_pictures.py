"""Evidence on pictures, on the bands of sounds, and on volumes cut through its peak."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gridsight.reporting.evidence import (
    INK,
    SIGNED,
    SOFT,
    Evidence,
    framed,
    is_clipped,
    line_axes,
    place_axes,
    plain_axes,
    scale_bar,
)
from gridsight.reporting.pictures import pixels

LEFT, GAP, BAR = 0.15, 0.25, 1.1
"""Inches: margin, between panels, what the scale takes with its numbers."""
Aspect = float | Literal["auto"]
TALLEST = 3.6
STRIP = 8
"""Slices in the row below the cuts."""


def picture(of: Evidence) -> Figure:
    """The item, its map, and the map over the item."""
    high, wide = of.values.shape
    width = (of.width - LEFT - 2 * GAP - BAR) / 3
    height = min(TALLEST, width * high / wide)
    width = min(width, height * wide / high)
    figure = framed(of, height + 0.45)
    shown = pixels(of.item)
    for i, title in enumerate(("item", "evidence", "both")):
        axes = place_axes(figure, LEFT + i * (width + GAP), 0.15, width, height)
        if i != 1:
            _cells(axes, shown, faint=i == 2)
        if i:
            _evidence(axes, of.values, of.limit, over=i == 2)
        plain_axes(axes, title)
    right = LEFT + 3 * width + 2 * GAP + 0.15
    bar_height = max(height, 1.2)
    scale_bar(figure, place_axes(figure, right, 0.15 + (height - bar_height) / 2, 0.14, bar_height), of.limit,
              clipped=is_clipped(of))  # fmt: skip
    return figure


def sound(of: Evidence) -> Figure:
    """The bands that the network sees, and the evidence on them, against seconds and Hz."""
    assert of.bands is not None
    height, gap, bottom = 1.75, 0.55, 0.5
    figure = framed(of, 2 * height + gap + bottom + 0.35)
    bands, frames = of.values.shape
    end = frames * of.bands.hop
    edges = of.bands.edges
    width = of.width - 0.75 - BAR
    lower = place_axes(figure, 0.75, bottom, width, height)
    upper = place_axes(figure, 0.75, bottom + height + gap, width, height)
    loud = of.item[0] if of.item.ndim == 3 else of.item
    for axes, title in ((upper, "sound, as the network sees it: brighter is louder"), (lower, "evidence")):
        if axes is upper:
            axes.imshow(loud, origin="lower", aspect="auto", cmap="magma", extent=(0, end, 0, bands))
        else:
            gray = np.clip((loud - loud.min()) / max(float(np.ptp(loud)), 1e-12), 0, 1)
            axes.imshow(1 - 0.35 * gray, origin="lower", aspect="auto", cmap="gray", vmin=0, vmax=1,
                        extent=(0, end, 0, bands))  # fmt: skip
            _evidence(axes, of.values, of.limit, over=True, extent=(0, end, 0, bands), origin="lower", aspect="auto")
        wanted = [f for f in (250, 500, 1000, 2000, 4000, 8000, 16000) if edges[0] <= f <= edges[-1]]
        axes.set_yticks(np.interp(wanted, edges, np.arange(len(edges))), [f"{f:,}" for f in wanted])
        line_axes(axes, "time (s)" if axes is lower else "", "Hz")
        axes.set_title(title, fontsize=9, color=INK, loc="left", pad=4)
    scale_bar(figure, place_axes(figure, 0.75 + width + 0.15, bottom, 0.14, height), of.limit, clipped=is_clipped(of))
    return figure


def volume(of: Evidence) -> Figure:
    """Cuts through the cell with the most evidence, item above map, and a row of slices along the first axis."""
    values = of.values
    while values.ndim > 3:  # further leading axes where the most evidence is
        values = values.take(int(np.abs(values).max(tuple(range(1, values.ndim))).argmax()), 0)
    item = of.item.reshape(len(of.item), -1, *of.item.shape[-2:])[:, : values.shape[0]]
    peak = _peak(np.abs(values))
    spacing = of.spacing or (1.0, 1.0, 1.0)
    video = of.spec is not None and of.spec.kind == "video"
    names = _axis_names(of, video)
    cuts = [_Cut(item.take(peak[a], 1 + a), values.take(peak[a], a), _aspect(spacing, a, values.shape, video),
                 f"{names[a]} {peak[a] + 1} of {values.shape[a]}") for a in range(3)]  # fmt: skip
    width = (of.width - LEFT - 2 * GAP - BAR) / 3
    tall = min(2.4, max(width * cut.tall for cut in cuts))
    strip_width = (of.width - LEFT - BAR - 0.06 * (STRIP - 1)) / STRIP
    strip = min(1.4, strip_width * cuts[0].tall)
    figure = framed(of, 2 * tall + strip + 1.15)
    bottom = 0.15 + strip + 0.45
    for column, cut in enumerate(cuts):
        for row in (0, 1):
            axes = place_axes(figure, LEFT + column * (width + GAP), bottom + row * (tall + 0.15), width, tall)
            shown = pixels(cut.item)
            _cells(axes, shown, faint=row == 0, aspect=cut.aspect)
            if row == 0:
                _evidence(axes, cut.values, of.limit, over=True, aspect=cut.aspect)
            plain_axes(axes, cut.name if row else "")
            if column == 2:
                axes.text(1.03, 0.98, "item" if row else "", transform=axes.transAxes, fontsize=9, color=INK, va="top")
            _cross(axes, [peak[a] for a in range(3) if a != column])
    numbers = np.unique(np.linspace(0, values.shape[0] - 1, min(STRIP, values.shape[0])).round().astype(int))
    for i, number in enumerate(numbers):
        axes = place_axes(figure, LEFT + i * (strip_width + 0.06), 0.15, strip_width, strip)
        _cells(axes, pixels(item[:, number]), faint=True, aspect=cuts[0].aspect)
        _evidence(axes, values[number], of.limit, over=True, aspect=cuts[0].aspect)
        plain_axes(axes)
        axes.set_title(f"{names[0]} {number + 1}", fontsize=7.5, color=SOFT, pad=2, parse_math=False)
    right = LEFT + 3 * width + 2 * GAP + 0.15
    scale_bar(figure, place_axes(figure, right, bottom, 0.14, tall), of.limit, clipped=is_clipped(of))
    return figure


def _peak(sizes: np.ndarray) -> tuple[int, ...]:
    """The cell with the most evidence; of a region that shares it, the cell nearest to its middle."""
    most = np.argwhere(sizes >= 0.99 * sizes.max())
    middle = np.median(most, axis=0)
    return tuple(int(i) for i in most[int(((most - middle) ** 2).sum(1).argmin())])


class _Cut:
    def __init__(self, item: np.ndarray, values: np.ndarray, aspect: Aspect, name: str) -> None:
        self.item, self.values, self.aspect, self.name = item, values, aspect, name
        high, wide = values.shape
        self.tall = high * aspect / wide if isinstance(aspect, float) else 0.8


def _aspect(spacing: Sequence[float], cut: int, shape: Sequence[int], video: bool) -> Aspect:
    """How many times taller than wide a cell of this cut is; time and space have no common measure."""
    rows, columns = [a for a in range(3) if a != cut]
    if video and rows == 0:
        return "auto"
    return float(spacing[rows] / spacing[columns])


def _axis_names(of: Evidence, video: bool) -> list[str]:
    if video:
        return ["frame", "row", "column"]
    axes = of.spec.axes if of.spec is not None and of.spec.axes and len(of.spec.axes) >= 3 else None
    return list(axes[-3:]) if axes else ["slice", "row", "column"]


def _cells(axes: Axes, shown: np.ndarray, *, faint: bool, aspect: Aspect = 1.0) -> None:
    """The item's own cells; `faint`: gray and pale, as the ground of a map."""
    if faint:
        gray = shown.astype(np.float64).mean(2) if shown.ndim == 3 else shown.astype(np.float64)
        shown = np.round(255 - 0.45 * (255 - gray)).astype(np.uint8)
    smooth = "nearest" if max(shown.shape[:2]) <= 96 else "antialiased"
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation=smooth, aspect=aspect)


def _evidence(
    axes: Axes,
    values: np.ndarray,
    limit: float,
    *,
    over: bool,
    aspect: Aspect = 1.0,
    extent: tuple[float, float, float, float] | None = None,
    origin: Literal["upper", "lower"] = "upper",
) -> None:
    """The map in the signed colours; `over` an item: the weaker, the clearer."""
    share = np.clip(values / limit, -1, 1)
    colours = SIGNED((share + 1) / 2)
    if over:
        colours[..., 3] = np.clip(np.abs(share) * 1.6, 0, 0.88)
    axes.imshow(colours, aspect=aspect, extent=extent, origin=origin, interpolation="nearest")


def _cross(axes: Axes, at: Sequence[int]) -> None:
    """Where the peak is."""
    y, x = at
    for colour, width in (("white", 2.2), (INK, 0.9)):  # seen on dark and on light
        axes.plot([x], [y], marker="+", color=colour, markersize=8, markeredgewidth=width)
