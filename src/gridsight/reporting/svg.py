"""Pieces of a drawing in SVG, and its colours in light and in dark viewers.

Text stays text and nothing is loaded. There are neither variables nor ids: some viewers lack the first, and the second
would clash on a page with several drawings.
"""

from collections.abc import Sequence
from html import escape
from itertools import pairwise

FONT = 13.0
SMALL = 11.5

LIGHT = {
    "page": "#ffffff",
    "card": "#f5f7f9",
    "block": "#ffffff",
    "rule": "#d3dae1",
    "ink": "#1b2026",
    "soft": "#5b6570",
    "conv": "#d9eafa",
    "linear": "#d8f0e4",
    "pool": "#e6e9ed",
    "mix": "#f3e0f0",
    "join": "#fde5d3",
    "other": "#f7efce",
    "bar": "#0067a8",
}
DARK = {
    "page": "#14181c",
    "card": "#1d2329",
    "block": "#14181c",
    "rule": "#46505b",
    "ink": "#e7ebef",
    "soft": "#a3adb8",
    "conv": "#1c3f5a",
    "linear": "#17493a",
    "pool": "#3a424b",
    "mix": "#523049",
    "join": "#5e3a1c",
    "other": "#4c4218",
    "bar": "#5ab4ee",
}


def style(strokes: Sequence[str]) -> str:
    """The style sheet: a class of fill for each colour, those named in `strokes` with a thin outline."""
    sheets = []
    for colours in (LIGHT, DARK):
        fills = "".join(f".{name}{{fill:{colour}}}" for name, colour in colours.items())
        outlines = ",".join(f".{name}" for name in strokes)
        sheets.append(
            f"{fills}{outlines}{{stroke:{colours['rule']}}}.line{{fill:none;stroke:{colours['soft']}}}"
            f".halo{{paint-order:stroke;stroke:{colours['card']};stroke-width:4;stroke-linejoin:round}}"
        )
    light, dark = sheets
    return f"<style>{light}.b{{font-weight:600}}@media (prefers-color-scheme:dark){{{dark}}}</style>"


def short(count: int) -> str:
    """A count in three digits: 25.6 M.

    >>> [short(n) for n in (999, 61_706, 999_999, 4_089_184_256)]
    ['999', '61.7 k', '1 M', '4.09 G']
    """
    for unit, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= 0.9995 * unit:
            return f"{float(f'{count / unit:.3g}'):g}{name}"
    return str(count)


def wide(words: str, size: float) -> float:
    """The width of a text, on the safe side: that of DejaVu Sans, the widest of the usual fonts."""
    widths = {"×": 0.84, "m": 0.97, "w": 0.82, "%": 0.95} | dict.fromkeys(" .,:·ijl()", 0.32)
    return size * sum(widths.get(c, 0.72 if c.isupper() else 0.63) for c in words)


def text(x: float, y: float, words: str, kind: str, size: float = FONT, anchor: str = "start") -> str:
    """One line of text, in a class of colour."""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    shown = "" if size == FONT else f' font-size="{size:g}"'
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{shown}{place}>{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, kind: str, radius: float) -> str:
    """A rectangle with round corners, in a class of colour."""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"/>'


def group(x: float, y: float, inner: str) -> str:
    """What `inner` draws, moved to (x, y)."""
    return f'<g transform="translate({x:.1f} {y:.1f})">{inner}</g>' if inner else ""


def along(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points on a route, dense enough to see where it passes."""
    return [
        (x0 + (x1 - x0) * t * t * (3 - 2 * t), y0 + (y1 - y0) * t)
        for (x0, y0), (x1, y1) in pairwise(points)
        for t in (i / 24 for i in range(25))
    ]


def route(points: Sequence[tuple[float, float]]) -> str:
    """Straight down through the rows, in curves between them."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for i, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        if i % 2 == 0 or abs(x0 - x1) < 0.5:
            path += f"L{x1:.1f} {y1:.1f}"
        else:
            middle = (y0 + y1) / 2
            path += f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
    return f'<path class="line" d="{path}"/>'
