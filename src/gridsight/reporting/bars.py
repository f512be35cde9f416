"""Bars side by side as one SVG drawing: a row a name, a column a quantity with a scale of its own."""

from collections.abc import Mapping, Sequence
from html import escape

from gridsight.reporting.svg import FONT, SMALL, rect, style, text, wide

PAD = 14.0
ROW = 26.0
BAR = 150.0
"""Width of the longest bar; its figure stands behind it."""


def draw(title: str, names: Sequence[str], columns: Mapping[str, Sequence[float]]) -> str:
    """The drawing; `columns` has the values of every name, all above 0.

    >>> draw("speed", ["a"], {"ms": [2.5]}).count("<rect")
    2
    """
    left = max(wide(name, FONT) for name in names) + PAD
    column = max(BAR + wide("000,000", FONT), *(wide(head, SMALL) for head in columns)) + PAD
    width = max(2 * PAD + left + column * len(columns), 2 * PAD + wide(title, 15))
    top = 66.0
    height = top + ROW * len(names) + PAD
    parts = [rect(0, 0, width, height, "page", 0), text(PAD, 28, title, "ink b", 15)]
    for i, name in enumerate(names):
        parts.append(text(PAD, top + ROW * i + 12, name, "ink"))
    for number, (head, values) in enumerate(columns.items()):
        x = PAD + left + column * number
        parts.append(text(x, 54, head, "soft", SMALL))
        for i, value in enumerate(values):
            size = max(1.0, BAR * value / max(values))
            parts.append(rect(x, top + ROW * i, size, 16, "bar", 2))
            parts.append(text(x + size + 6, top + ROW * i + 12, _figure(value), "ink"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui,sans-serif" font-size="{FONT:g}" role="img">'
        f"<title>{escape(title)}</title>{style([])}{''.join(parts)}</svg>\n"
    )


def _figure(value: float) -> str:
    """Three digits, thousands grouped.

    >>> [_figure(value) for value in (0.12345, 12.3, 1234.5)]
    ['0.123', '12.3', '1,230']
    """
    return f"{float(f'{value:.3g}'):,g}" if value < 1e6 else f"{value:,.0f}"
