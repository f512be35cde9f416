"""Evidence on signals, over their traces, and on sequences, letter by letter."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gridsight.data.alphabet import ALPHABETS, to_text
from gridsight.reporting.evidence import (
    INK,
    SIGNED,
    SOFT,
    Evidence,
    framed,
    is_clipped,
    limit_of,
    line_axes,
    place_axes,
    scale_bar,
)

MOST_CHANNELS = 8
A_ROW = 60
"""Letters in a row of a sequence, half as many where the figure is narrow."""
NARROW = 7.0
MOST_ROWS = 6
LEFT, RIGHT = 0.75, 1.1


def signal(of: Evidence) -> Figure:
    """Each channel's trace on the colours of its evidence, and the evidence of all together below."""
    rate = of.spec.rate if of.spec is not None else None
    length = of.values.shape[0]
    time = np.arange(length) / (rate or 1.0)
    step = 1 / (rate or 1.0)
    many = min(len(of.item), MOST_CHANNELS)
    each = 1.7 if many == 1 else max(0.55, 3.2 / many)
    own = of.channels if of.channels is not None and len(of.item) > 1 else None
    limit = limit_of(own) if own is not None else of.limit
    figure = framed(of, many * (each + 0.08) + 1.75)
    width = of.width - LEFT - RIGHT
    order = np.argsort(-np.abs(own).sum(1))[:many] if own is not None else np.arange(many)
    bottom = 0.5
    lower = place_axes(figure, LEFT, bottom, width, 0.95)
    _bars(lower, time, of.values, step)
    line_axes(lower, "time (s)" if rate else "sample", "evidence")
    first = bottom + 0.95 + 0.22
    for place, channel in enumerate(sorted(order)):
        axes = place_axes(figure, LEFT, first + (many - 1 - place) * (each + 0.08), width, each)
        values = own[channel] if own is not None else of.values
        trace = of.item[channel].astype(np.float64)
        low, high = float(trace.min()), float(trace.max())
        room = 0.06 * (high - low) or 1.0
        extent = (time[0] - step / 2, time[-1] + step / 2, low - room, high + room)
        colours = SIGNED((np.clip(values / limit, -1, 1) + 1) / 2)[None]
        axes.imshow(colours, aspect="auto", extent=extent, interpolation="nearest")
        axes.plot(time, trace, color=INK, linewidth=1.1)
        axes.set(xlim=extent[:2], ylim=extent[2:])
        line_axes(axes, "", "value" if len(of.item) == 1 else f"channel {channel + 1}")
        axes.tick_params(labelbottom=False)
    lower.set_xlim(time[0] - step / 2, time[-1] + step / 2)
    tall = many * (each + 0.08) - 0.08
    bar = min(tall, 1.7)
    label = "evidence a channel" if own is not None else "evidence"
    scale_bar(figure, place_axes(figure, of.width - RIGHT + 0.12, first + tall - bar, 0.14, bar), limit, label,
              is_clipped(of) if own is None else bool(np.abs(own).max() > limit * 1.0001))  # fmt: skip
    return figure


def sequence(of: Evidence) -> Figure:
    """Letters with their evidence as bars, in rows; below each row what other letters would do, where it is known."""
    assert of.spec is not None and of.spec.alphabet is not None
    text = to_text(of.item, of.spec.alphabet)
    letters = ALPHABETS[of.spec.alphabet]
    row = A_ROW if of.width > NARROW else A_ROW // 2
    starts = _rows(np.abs(of.values), row)
    high = 1.15 + (0.13 * len(letters) + 0.12 if of.changes is not None else 0)
    figure = framed(of, len(starts) * (high + 0.42) + 0.05)
    width = of.width - LEFT - RIGHT
    ends = (min(0.0, float(of.values.min())), max(float(of.values.max()), 0.0) or 1e-12)
    change = limit_of(of.changes) if of.changes is not None else 1.0
    for i, start in enumerate(starts):
        part = slice(start, min(start + row, len(of.values)))
        count = part.stop - part.start
        bottom = 0.25 + (len(starts) - 1 - i) * (high + 0.42)
        across = width * count / min(row, len(of.values))
        axes = place_axes(figure, LEFT, bottom + high - 1.0, across, 1.0)
        _letters(axes, text[part], of.values[part], start, ends)
        if of.changes is not None:
            below = place_axes(figure, LEFT, bottom, across, 0.13 * len(letters))
            shares = (np.clip(of.changes[:, part] / change, -1, 1) + 1) / 2
            below.imshow(
                SIGNED(shares),
                aspect="auto",
                interpolation="nearest",
                extent=(-0.5, count - 0.5, len(letters) - 0.5, -0.5),
            )
            below.set_yticks(range(len(letters)), list(letters))
            below.set_xticks([])
            below.tick_params(labelsize=6.5, labelcolor=INK, length=0, pad=2)
            for spine in below.spines.values():
                spine.set_color(SOFT)
                spine.set_linewidth(0.5)
            for place, letter in enumerate(text[part]):
                if letter in letters:
                    below.plot([place], [letters.index(letter)], marker="o", markersize=1.8, color=INK)
            if i == 0:
                beside = place_axes(figure, of.width - RIGHT + 0.12, bottom, 0.12, max(0.9, 0.13 * len(letters)))
                clipped = bool(np.abs(of.changes).max() > change * 1.0001)
                scale_bar(figure, beside, change, "change by a letter", clipped)
    return figure


def _rows(sizes: np.ndarray, row: int) -> list[int]:
    """Where the rows begin: all of them, or of a long sequence those with the most evidence."""
    starts = list(range(0, len(sizes), row))
    if len(starts) <= MOST_ROWS:
        return starts
    most = sorted(starts, key=lambda s: -float(sizes[s : s + row].sum()))[:MOST_ROWS]
    return sorted(most)


def _letters(axes: Axes, text: str, values: np.ndarray, start: int, ends: tuple[float, float]) -> None:
    low, high = ends
    end = max(-low, high)
    places = np.arange(len(text))
    colours = SIGNED((np.sign(values) * 0.72 + 1) / 2)
    axes.bar(places, values, color=colours, width=0.86)
    axes.axhline(0, color=SOFT, linewidth=0.6)
    axes.set(
        xlim=(-0.6, len(text) - 0.4), ylim=(min(low, 0.0) - 0.22 * (high - low), max(high, 0.0) + 0.22 * (high - low))
    )
    for place, (letter, value) in enumerate(zip(text, values, strict=True)):
        above = value >= 0
        axes.annotate(letter, (place, value), textcoords="offset points", xytext=(0, 2 if above else -2), ha="center",
                      va="bottom" if above else "top", fontsize=7.5, family="monospace", color=INK,
                      weight="bold" if abs(value) > 0.3 * end else "normal")  # fmt: skip
    line_axes(axes, "", "evidence")
    ticks = [p for p in range(len(text)) if (start + p + 1) % 10 == 0]
    axes.set_xticks(ticks, [str(start + p + 1) for p in ticks])


def _bars(axes: Axes, time: np.ndarray, values: np.ndarray, step: float) -> None:
    """Evidence against time, filled to 0 in the colour of its sign."""
    edges = np.append(time - step / 2, time[-1] + step / 2)
    for sign in (1, -1):
        part = np.where(values * sign > 0, values, 0.0)
        axes.stairs(part, edges, fill=True, color=SIGNED((sign * 0.7 + 1) / 2), linewidth=0)
    axes.axhline(0, color=SOFT, linewidth=0.7)
