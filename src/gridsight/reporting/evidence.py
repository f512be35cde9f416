"""A map of evidence beside its item: pictures, volumes, sounds, signals and sequences, each as its reader knows it.

One colour scale a figure, with its numbers: blue speaks for the target, orange against it, nothing is nearly white, so
that all eyes and gray paper tell strength. The verdict is a word on a colour, never the colour alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from gridsight.core.run import atomic_write
from gridsight.data.spec import DataSpec
from gridsight.reporting.contact import latin

SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#6b2a00", "#c94f00", "#f2a873", "#f7f7f7", "#86bbdf", "#0067a8", "#00324f"]
)
VERDICTS = {"green": "#00704f", "amber": "#8a6100", "red": "#b3261e"}
INK, SOFT, RULE = "#1b2026", "#5b6570", "#d3dae1"
WIDTH = 9.0
"""Inches; text of 9 points is then readable in a column of print."""
DPI = 150
SHARE = 99.5
"""Percent of the cells whose evidence the colour scale holds; the rest has its end's colour."""


@dataclass(frozen=True, eq=False)
class Bands:
    """Of a sound as the network sees it: where its bands meet in Hz, one more than bands, and seconds a frame."""

    edges: np.ndarray
    hop: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """One map of one item, and what is said of them.

    `item` (C, *spatial) are raw values, or the bands of a sound that the network sees; `values` (*spatial) the map and
    `channels` (C, *spatial) the same by channel, where a method tells them apart. `said` is the answer, `about` what
    is explained and how, `verdict` a colour and its sentence. `changes` (letters, length): what the answer gains by
    each letter in each place, of sequences. Without a `name` nothing is written above the figure. `width` in inches.
    """

    item: np.ndarray
    values: np.ndarray
    name: str = ""
    said: str = ""
    about: str = ""
    verdict: tuple[str, str] | None = None
    spec: DataSpec | None = None
    bands: Bands | None = None
    channels: np.ndarray | None = None
    changes: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None
    width: float = WIDTH

    @property
    def limit(self) -> float:
        """The end of the colour scale: the size of evidence that nearly all cells stay below."""
        return limit_of(self.values)


def limit_of(values: np.ndarray) -> float:
    """The end of a signed scale for these values, above 0."""
    sizes = np.abs(values)
    return float(np.percentile(sizes, SHARE)) or float(sizes.max()) or 1.0


def evidence_figure(of: Evidence) -> Figure:
    """The figure of one map, by the number of the item's axes and what the item is."""
    from gridsight.reporting import evidence_lines, evidence_pictures

    if of.spec is not None and of.spec.alphabet is not None:
        return evidence_lines.sequence(of)
    if of.item.ndim == 2:
        return evidence_lines.signal(of)
    if of.bands is not None:
        return evidence_pictures.sound(of)
    if of.item.ndim == 3:
        return evidence_pictures.picture(of)
    return evidence_pictures.volume(of)


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all; PNG, SVG or PDF by the path's suffix."""
    FigureCanvasAgg(figure)
    kind = path.suffix[1:]
    metadata: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    atomic_write(path, lambda temporary: figure.savefig(temporary, format=kind, metadata=metadata))


def framed(of: Evidence, height: float) -> Figure:
    """A figure with room of `height` inches below what is said of the item."""
    width = of.width
    if not of.name:
        return Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    room = int(width * 15.2)  # letters of 9 points in a line
    lines = wrap(latin(of.about), room)
    judged = wrap(latin(of.verdict[1]), room - 12) if of.verdict else []
    top = 0.5 + 0.17 * len(lines) + (0.1 + 0.17 * len(judged) if judged else 0)
    whole = height + top
    figure = Figure(figsize=(width, whole), dpi=DPI, facecolor="white")
    y = whole - 0.22
    _said(figure, 0.15, y, latin(_ending(of.name)), whole, size=10, weight="bold")
    y -= 0.21
    _said(figure, 0.15, y, latin(of.said), whole)
    for line in lines:
        y -= 0.17
        _said(figure, 0.15, y, line, whole, colour=SOFT, size=8.5)
    if of.verdict:
        y -= 0.24
        badge(figure, 0.15 / width, y / whole, of.verdict[0])
        for line in judged:
            _said(figure, 0.95, y, line, whole, size=8.5)
            y -= 0.17
    return figure


def headed(lines: Sequence[str], height: float) -> Figure:
    """A figure with a first line in bold and others below it, and room of `height` inches under them."""
    shown = [part for line in lines[1:] for part in wrap(latin(line), int(WIDTH * 15.2))]
    whole = height + 0.4 + 0.17 * len(shown)
    figure = Figure(figsize=(WIDTH, whole), dpi=DPI, facecolor="white")
    _said(figure, 0.15, whole - 0.22, latin(_ending(lines[0])), whole, size=10, weight="bold")
    for i, line in enumerate(shown, 1):
        _said(figure, 0.15, whole - 0.24 - 0.17 * i, line, whole, colour=SOFT, size=8.5)
    return figure


def _ending(name: str, most: int = 90) -> str:
    """The end of a long path."""
    return name if len(name) <= most else f"...{name[3 - most :]}"


def badge(figure: Figure, x: float, y: float, colour: str) -> None:
    """The verdict as a word on its colour."""
    box = {"boxstyle": "round,pad=0.3", "facecolor": VERDICTS[colour], "edgecolor": "none"}
    left = x + 0.045 / figure.get_size_inches()[0]
    figure.text(left, y, colour.upper(), color="white", fontsize=8.5, weight="bold", va="center", bbox=box)


def _said(
    figure: Figure, left: float, y: float, text: str, whole: float, *, colour: str = INK, size: float = 9.0,
    weight: str = "normal",
) -> None:  # fmt: skip
    x = left / figure.get_size_inches()[0]
    figure.text(x, y / whole, text, color=colour, fontsize=size, weight=weight, va="center", parse_math=False)


def place_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    across, high = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / high, width / across, height / high))


def scale_bar(figure: Figure, axes: Axes, limit: float, label: str = "evidence", clipped: bool = True) -> None:
    """The signed scale with its numbers in `axes`."""
    shown = ScalarMappable(Normalize(-limit, limit), SIGNED)
    bar = figure.colorbar(shown, cax=axes, extend="both" if clipped else "neither")
    bar.set_ticks([-limit, -limit / 2, 0, limit / 2, limit])
    bar.set_ticklabels([signed(v, limit) for v in (-limit, -limit / 2, 0, limit / 2, limit)])
    bar.ax.tick_params(labelsize=8, labelcolor=INK, length=2)
    bar.outline.set_edgecolor(RULE)
    bar.set_label(label, fontsize=8.5, color=INK)


def signed(value: float, limit: float) -> str:
    """A number with its sign, in two digits of the scale's end."""
    if value == 0:
        return "0"
    text = f"{value:+.2g}"
    return text.replace("-", "\u2212")


def is_clipped(of: Evidence) -> bool:
    """Whether some cells lie beyond the scale."""
    return bool(np.abs(of.values).max() > of.limit * 1.0001)


def plain_axes(axes: Axes, title: str = "") -> None:
    """No ticks, a thin frame, a small title."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(RULE)
    if title:
        axes.set_title(latin(title), fontsize=9, color=INK, loc="left", pad=4, parse_math=False)


def line_axes(axes: Axes, x: str, y: str) -> None:
    """Ticks and thin spines at the left and below."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(labelsize=8, labelcolor=INK, color=SOFT, length=2.5)
    axes.set_xlabel(latin(x), fontsize=8.5, color=INK, parse_math=False)
    axes.set_ylabel(latin(y), fontsize=8.5, color=INK, parse_math=False)
