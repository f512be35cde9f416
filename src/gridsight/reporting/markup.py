"""Small pieces of HTML and of number formatting; whatever comes from outside passes `esc` once, here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gridsight.reporting.curves import Line
from gridsight.reporting.figures import colour_of
from gridsight.reporting.svg import short


def esc(value: Any) -> str:
    """Any value as text that is safe in HTML, also inside an attribute."""
    return escape(str(value), quote=True)


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage; its parts do not part at the end of a line."""
    if value is None or value != value:
        return "–"
    return f"{100 * value:.{digits}f}\u00a0%"


def plain(value: Any) -> str:
    """A setting, count or measurement as a person writes it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        nested = any(isinstance(item, list | tuple) for item in value)  # pairs: shift 0.1; flip 1
        return "; ".join(plain(item).replace(", ", " ") for item in value) if nested else ", ".join(map(plain, value))
    return str(value)


def duration(seconds: float | None) -> str:
    """Seconds as `8.3 s`, `4 min 5 s` or `2 h 10 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def memory(size: float | None) -> str:
    """Bytes in three digits: `28.5 MB`, `656 TB`."""
    if size is None:
        return "–"
    return f"{short(round(size))}{'' if size >= 999.5 else ' '}B"


def how_often(count: int) -> str:
    """`once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def some(count: int, one: str, many: str | None = None) -> str:
    """`1 mistake`, `12 mistakes`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def paragraph(text: str, kind: str = "") -> str:
    """Text as a paragraph; escaped here."""
    text = text.replace(" %", "\u00a0%")
    return f'<p class="{kind}">{esc(text)}</p>' if kind else f"<p>{esc(text)}</p>"


def bullets(items: Iterable[str], most: int = 40) -> str:
    """A list, cut with a count of what is left out."""
    items = list(items)
    lines = [f"<li>{esc(item)}</li>" for item in items[:most]]
    if len(items) > most:
        lines.append(f"<li>and {len(items) - most:,} more</li>")
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose cells are HTML already: first column names, the rest to the right."""
    top = "".join(f'<th scope="col">{esc(name)}</th>' for name in head)
    body = "".join(
        "<tr>"
        + "".join(f'<th scope="row">{c}</th>' if i == 0 else f"<td>{c}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    head_row = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="scroll {kind}"><table>{head_row}<tbody>{body}</tbody></table></div>'


def facts(rows: Mapping[str, Any]) -> str:
    """Names and values, two columns; values that are None are left out."""
    shown = [(name, value) for name, value in rows.items() if value is not None and value != ""]
    return table((), [(esc(name), esc(plain(value))) for name, value in shown], "facts") if shown else ""


def figure(drawing: str, title: str, caption: str = "", lines: Sequence[Line] = (), kind: str = "") -> str:
    """A figure with its title above, its legend and caption below."""
    keys = "".join(_key(index, line) for index, line in enumerate(lines))
    legend = f'<div class="legend">{keys}</div>' if keys else ""
    words = f"<p>{esc(caption)}</p>" if caption else ""
    head = f"<h3>{esc(title)}</h3>" if title else ""
    return (
        f'<figure class="{kind or "chart"}">{head}<div class="drawing">{drawing}</div>'
        f"<figcaption>{legend}{words}</figcaption></figure>"
    )


def _key(index: int, line: Line) -> str:
    _, dashed = colour_of(index)
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    stroke = f"stroke:var(--c{index % 5 + 1})"
    sample = f'<svg class="key" viewBox="0 0 22 8"><path d="M0 4H22" style="{stroke}"{dash}/></svg>'
    label = f"<b>{esc(line.label)}</b> <i>{esc(line.summary)}</i>" if line.summary else esc(line.label)
    return f"<span>{sample}{label}</span>"
