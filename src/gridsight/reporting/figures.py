"""Figures of the report: numbers in, a matplotlib figure out, and `svg` turns it into inline SVG for the page.

Nothing is computed here and nothing global is touched (no pyplot). Colours are placeholders that become CSS variables,
so that one figure is right on a light page, on a dark page and on paper; text stays text in the reader's own font.
"""

import io
import re
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gridsight.measure.calibration import Bin
from gridsight.reporting.curves import Line

INK, SOFT, RULE, PAGE = "#000001", "#000002", "#000003", "#000004"
SERIES = ("#0000a1", "#0000a2", "#0000a3", "#0000a4", "#0000a5")
VARIABLES = {INK: "--ink", SOFT: "--soft", RULE: "--rule", PAGE: "--page"} | {
    colour: f"--c{i + 1}" for i, colour in enumerate(SERIES)
}
RIGHT, WRONG = SERIES[0], SERIES[1]
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""What neither HTML nor UTF-8 can hold: control characters, and bytes of file names that are no text."""
TEXT = 11.0  # of a figure 360 units wide: as large as the page's own text on a phone
WIDTH, HEIGHT = 360, 250
_LOCK = threading.Lock()  # rc_context and warnings are the process's own


@dataclass(frozen=True)
class Mark:
    """A point with a name on a line figure, or (without y) a vertical rule."""

    x: float
    y: float | None
    label: str


def colour_of(index: int) -> tuple[str, bool]:
    """(colour, dashed) of the line number `index`: five that colour-blind eyes tell apart, solid, then dashed."""
    return SERIES[index % len(SERIES)], index // len(SERIES) % 2 == 1


def line_figure(
    lines: Sequence[Line],
    x: str,
    y: str,
    *,
    marks: Sequence[Mark] = (),
    band: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    diagonal: bool = False,
    percent_x: bool = False,
    percent_y: bool = False,
    unit_square: bool = False,
    whole_x: bool = False,
    size: tuple[float, float] = (WIDTH, HEIGHT),
) -> Figure:
    """Lines against labelled axes; `band` is (x, low, high); points show while they are few. Nothing is smoothed."""
    figure = _figure(size)
    axes = figure.add_axes(_box(size, left=46 if unit_square else 66, bottom=40, right=14, top=12))
    _style(axes, x, y)
    if diagonal:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (2, 3)), label="_diagonal")
    if band is not None:
        axes.fill_between(*band, color=SERIES[0], alpha=0.18, linewidth=0)
    for index, line in enumerate(lines):
        colour, dashed = colour_of(index)
        few = len(line.x) <= 40 and not unit_square
        axes.plot(
            line.x,
            line.y,
            color=colour,
            linewidth=1.6,
            linestyle=(0, (4, 2)) if dashed else "-",
            drawstyle="steps-post" if line.steps else "default",
            marker="o" if few else None,
            markersize=3.5,
            label=line.label,
        )
    for mark in marks:
        if mark.y is None:
            axes.axvline(mark.x, color=SOFT, linewidth=1, linestyle=(0, (1, 2)))
            continue
        axes.plot([mark.x], [mark.y], "o", color=WRONG, markersize=7, markeredgecolor=PAGE, markeredgewidth=1.5)
        low, high = axes.get_xlim()
        left = mark.x > low + 0.4 * (high - low)  # under a falling curve; beside the axis there is no room for that
        bottom, top = axes.get_ylim()
        under = left and mark.y > bottom + 0.08 * (top - bottom)
        axes.annotate(
            mark.label,
            (mark.x, mark.y),
            textcoords="offset points",
            xytext=(-8 if left else 8, -14 if under else 18 if left else 6),
            ha="right" if left else "left",
            color=INK,
            fontsize=TEXT,
            parse_math=False,
        )
    if unit_square:
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    if whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if percent_x:
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    if percent_y:
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    return figure


def confusion_figure(
    confusion: np.ndarray, classes: Sequence[str], totals: np.ndarray | None = None
) -> tuple[Figure, list[str]]:
    """The matrix (true in rows, predicted in columns) and one tooltip a cell that is not zero.

    Blue is right, orange is wrong; the strength is the square root of the share of the true class, so that one mistake
    in a hundred is seen. Up to 12 classes a cell has its count and share, up to 24 its count, beyond these the tooltip.
    `totals` (K,) are the items of each true class, where the columns do not hold all of them.
    """
    k = len(classes)
    cell = 64 if k <= 3 else 48 if k <= 5 else 38 if k <= 12 else 27 if k <= 24 else 16 if k <= 50 else 13
    small = TEXT if k <= 24 else 9.0 if k <= 50 else 8.0
    names = [_short(name, 16) for name in classes]
    margin = 30 + 0.62 * small * max(map(len, names))
    upright = k <= 12 and 0.62 * small * max(map(len, names)) < cell
    below = 46 if upright else margin + 10
    size = (max(margin + k * cell + 12, 220.0), k * cell + below + 8)
    figure = _figure(size)
    width, height = size
    axes = figure.add_axes((margin / width, below / height, k * cell / width, k * cell / height))
    axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(RULE)
    axes.set_xticks(range(k), names, rotation=0 if upright else 90, parse_math=False)
    axes.set_yticks(range(k), names, parse_math=False)
    axes.tick_params(length=0, labelsize=small, labelcolor=INK, pad=3)
    axes.set_xlabel("predicted", color=SOFT, fontsize=TEXT)
    axes.set_ylabel("true", color=SOFT, fontsize=TEXT)
    totals = confusion.sum(1) if totals is None else totals
    tips: list[str] = []
    for i, j in zip(*np.nonzero(confusion), strict=True):
        count, share = int(confusion[i, j]), float(confusion[i, j] / totals[i])
        strength = float(np.sqrt(share))
        patch = Rectangle(
            (j - 0.5, i - 0.5), 1, 1, facecolor=RIGHT if i == j else WRONG, alpha=strength, gid=f"tip{len(tips)}"
        )
        axes.add_patch(patch)
        taken = "rightly labelled" if i == j else f"taken for {classes[j]}"
        tips.append(f"{classes[i]} {taken}: {count:,} of {int(totals[i]):,} ({100 * share:.1f} %)")
        if k <= 24:
            colour = PAGE if strength > 0.65 else INK
            lift = -0.14 if k <= 12 else 0.0
            large = TEXT if len(f"{count:,}") < (6 if k <= 12 else 4) else TEXT - 3
            _text(axes, j, i + lift, f"{count:,}", colour, large)
            if k <= 12:
                _text(axes, j, i + 0.24, f"{100 * share:.0f} %" if share >= 0.01 else "<1 %", colour, 8.5)
    return figure, tips


def reliability_figure(
    after: Sequence[Bin],
    before: Sequence[Bin] | None,
    x_label: str = "probability of the predicted class",
    counted: str = "items",
) -> Figure:
    """Share right against the stated probability with 95 % intervals, and below it how many are in a bin."""
    size = (WIDTH, 300)
    figure = _figure(size)
    axes = figure.add_axes(_box(size, left=56, bottom=96, right=14, top=12))
    counts = figure.add_axes(_box(size, left=56, bottom=40, right=14, top=216))
    _style(axes, "", "share right")
    _style(counts, x_label, counted)
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (2, 3)), label="_diagonal")
    if before is not None:
        shown = [row for row in before if row.n]
        x, y = [row.confidence for row in shown], [row.accuracy for row in shown]
        axes.plot(x, y, "s-", color=SERIES[1], markersize=4, linewidth=1.2, label="before")
    shown = [row for row in after if row.n]
    x, y = [row.confidence for row in shown], [row.accuracy for row in shown]
    for row in shown:
        axes.plot([row.confidence] * 2, [row.accuracy_low, row.accuracy_high], color=SERIES[0], linewidth=1.2)
    axes.plot(x, y, "o-", color=SERIES[0], markersize=4.5, linewidth=1.6, label="after")
    for row in shown:
        box = Rectangle((row.low, 0), row.high - row.low, row.n, facecolor=SERIES[0], alpha=0.5, linewidth=0)
        counts.add_patch(box)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.03))
    axes.tick_params(labelbottom=False)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    counts.set(xlim=(0, 1.02), ylim=(0, 1.05 * max((row.n for row in shown), default=1)))
    counts.xaxis.set_major_formatter(FuncFormatter(_percent))
    counts.yaxis.set_major_locator(MaxNLocator(2, integer=True, prune="lower"))
    counts.yaxis.set_major_formatter(FuncFormatter(_short_count))
    return figure


def scatter_figure(
    x: np.ndarray,
    y: np.ndarray,
    x_label: str,
    y_label: str,
    *,
    slope: float,
    margin: float | None = None,
    size: tuple[float, float] = (WIDTH, 300),
) -> Figure:
    """Points around the line y = `slope` x (1: what should be equal, 0: what should be none), `margin` as a band.

    With slope 1 both axes have the same range.
    """
    figure = _figure(size)
    axes = figure.add_axes(_box(size, left=66, bottom=40, right=14, top=12))
    _style(axes, x_label, y_label)
    ranges = [_range(np.concatenate([x, y]))] * 2 if slope else [_range(x), _range(np.append(y, 0.0))]
    ends = np.array(ranges[0])
    if margin is not None:
        axes.fill_between(ends, slope * ends - margin, slope * ends + margin, color=SERIES[2], alpha=0.16, linewidth=0)
    axes.plot(ends, slope * ends, color=SOFT, linewidth=1, linestyle=(0, (2, 3)), label="_line")
    many = len(x) > 300
    axes.plot(
        x,
        y,
        linestyle="none",
        marker="o",
        markersize=3 if many else 4,
        color=SERIES[0],
        alpha=0.4 if many else 0.65,
        markeredgewidth=0,
    )
    axes.set(xlim=ranges[0], ylim=ranges[1])
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    return figure


def histogram_figure(values: np.ndarray, x_label: str, margin: float | None = None, bins: int = 31) -> Figure:
    """How many values lie where, around a line at 0; values beyond +- `margin` in the second colour."""
    size = (WIDTH, HEIGHT)
    figure = _figure(size)
    axes = figure.add_axes(_box(size, left=66, bottom=40, right=14, top=12))
    _style(axes, x_label, "items")
    end = max(float(np.abs(values).max()), 1e-30)
    counts, edges = np.histogram(values, bins, (-end, end))  # an odd number of bins: one has 0 in its middle
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        outside = margin is not None and abs(low + high) / 2 > margin
        colour = WRONG if outside else RIGHT
        axes.add_patch(Rectangle((low, 0), high - low, int(count), facecolor=colour, alpha=0.6, linewidth=0))
    axes.axvline(0, color=SOFT, linewidth=1, linestyle=(0, (2, 3)))
    axes.set(xlim=(-end, end), ylim=(0, 1.05 * counts.max()))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_short_count))
    return figure


def image_figure(
    values: np.ndarray,
    extent: tuple[float, float, float, float],
    x: str,
    y: str,
    size: tuple[float, float] = (260, 170),
) -> Figure:
    """A field (rows are y, upwards) against two labelled axes, dark where it is small: a spectrogram."""
    figure = _figure(size)
    axes = figure.add_axes(_box(size, left=44, bottom=36, right=16, top=8))
    _style(axes, x, y)
    axes.grid(False)
    axes.imshow(values, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return figure


def svg(figure: Figure, label: str, tips: Sequence[str] = ()) -> str:
    """The figure as one `<svg>` element for inside an HTML page; `label` is read to those who do not see it."""
    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "gridsight"}  # equal figures are equal bytes
    with _LOCK, rc_context(settings), warnings.catch_warnings():
        # the reader's font draws the text: that matplotlib's own lacks a letter is of no interest
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>|<defs>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[A-Za-z][A-Za-z0-9.]*_\d+"', "", body)  # names of groups; what is referred to is a hash
    body = re.sub(r"font-family: [^;\"]*; ?| transform=\"rotate\(-0 [^\"]*\"", "", body).replace("xlink:href", "href")
    body = re.sub("#(?:00000[1-4]|0000a[1-5])", lambda m: f"var({VARIABLES[m[0]]})", body)
    body = re.sub(r"\s*<g/>|\s*\n\s*", "\n", body)
    body = _shorter(body)
    body = re.sub(r"<g id=\"tip(\d+)\">", lambda m: f"<g><title>{escape(tips[int(m[1])])}</title>", body)
    width, height = (72 * v for v in figure.get_size_inches())
    style = f"--w:{width:.0f}px"
    return f'<svg viewBox="0 0 {width:.6g} {height:.6g}" style="{style}" role="img" aria-label="{escape(label)}">{body}'


def _shorter(body: str) -> str:
    """The same drawing in fewer bytes: places to a hundredth of a unit, and the style of a series of points once."""

    def once(series: re.Match[str]) -> str:
        styles = set(re.findall(r' style="[^"]*"', series[0]))
        plain = re.sub(r' style="[^"]*"', "", series[0])
        return f"<g{styles.pop()}>{plain}</g>" if len(styles) == 1 else series[0]

    body = re.sub(r' (?:d|x|y)="[^"]*"', lambda attribute: re.sub(r"(\.\d\d)\d+", r"\1", attribute[0]), body)
    return re.sub(r"(?:<use [^>]*/>\s*){2,}", once, body)


def _range(values: np.ndarray) -> tuple[float, float]:
    """The range of an axis that holds all values, with a little room around them."""
    low, high = float(values.min()), float(values.max())
    room = 0.04 * (high - low) or 1.0
    return low - room, high + room


def _figure(size: tuple[float, float]) -> Figure:
    return Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)


def _box(
    size: tuple[float, float], left: float, bottom: float, right: float, top: float
) -> tuple[float, float, float, float]:
    """Margins in units as matplotlib's (left, bottom, width, height) in shares of the figure."""
    width, height = size
    return left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height


def _style(axes: Axes, x: str, y: str) -> None:
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.grid(True, color=RULE, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=TEXT, labelcolor=SOFT, pad=4)
    axes.set_xlabel(x, color=INK, fontsize=TEXT, parse_math=False)
    axes.set_ylabel(y, color=INK, fontsize=TEXT, parse_math=False)


def _text(axes: Axes, x: float, y: float, text: str, colour: str, size: float) -> None:
    axes.text(x, y, text, color=colour, fontsize=size, ha="center", va="center", parse_math=False)


def _percent(value: float, _position: int | None) -> str:
    return f"{100 * value:.4g} %"


def _short_count(value: float, _position: int | None) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.4g}k"


def _short(name: str, length: int) -> str:
    """The name, or its beginning and end: names of many classes often differ at the end alone."""
    name = UNPRINTABLE.sub("\ufffd", " ".join(name.split()))
    return name if len(name) <= length else f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"
