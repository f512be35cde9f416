"""How the report states figures: a metric with its interval in words, as a bar, in a table; the same for every task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gridsight.reporting.contents import Contents
from gridsight.reporting.markup import esc, how_often, paragraph, percent, table

Entry = Mapping[str, Any]
"""{"value", "low", "high"}, any of which may be None."""


@dataclass(frozen=True)
class Quantity:
    """What a metric is called, whether it is a share (written as percent), and the `unit` behind other numbers."""

    title: str
    share: bool = False
    digits: str = ".4f"
    unit: str = ""

    def write(self, value: float | None) -> str:
        """The value as a person writes it."""
        if self.share:
            return percent(value)
        if value is None or value != value:
            return "–"
        return f"{value:{self.digits}}" + (f"\u00a0{self.unit}" if self.unit else "")

    def stated(self, entry: Entry) -> str:
        """`98.2 % (97.1 % to 99.0 %)`."""
        return f"{self.write(entry.get('value'))} ({self.between(entry)})"

    def between(self, entry: Entry) -> str:
        """The interval alone."""
        low, high = entry.get("low"), entry.get("high")
        return "–" if low is None or high is None else f"{self.write(low)} to {self.write(high)}"


def headline(entry: Entry, quantity: Quantity, words: str, meaning: str, ends: tuple[float, float]) -> list[str]:
    """The first figure as large as it matters, with `words` beside it and its interval drawn and stated.

    `meaning` is a sentence about the interval; `ends` are the values that no interval goes beyond.
    """
    value, low, high = entry.get("value"), entry.get("low"), entry.get("high")
    lines = [f'<div class="big"><b>{esc(quantity.write(value))}</b><span>{esc(words)}</span></div>']
    if value is not None and low is not None and high is not None:
        lines.append(_bar(low, value, high, ends, quantity.write))
        lines.append(paragraph(f"95 % interval: {quantity.between(entry)}. {meaning}".strip(), "lead"))
    return lines


def unfinished(of: Contents) -> str:
    """What stands in place of a headline where there is no result."""
    state = "Training has not reached its end" if of.epochs else "Nothing is trained yet"
    return paragraph(f"{state}: there is no result on held-back data. gridsight resume {of.name} goes on.", "lead")


def readings(of: Contents) -> str:
    """How often the test items were looked at."""
    reads = of.result.get("test_reads")
    if reads is None:
        return ""
    warning = " A choice made after an earlier reading makes this figure too good." if reads > 1 else ""
    return paragraph(f"The test items were read {how_often(reads)}.{warning}")


def metrics_table(of: Contents, quantities: Mapping[str, Quantity], words: str) -> str:
    """Every metric with its interval, those of `quantities` first and in their order."""
    found, names = of.result.get("metrics") or {}, list(quantities)
    rows = []
    for name in sorted(found, key=lambda name: names.index(name) if name in quantities else len(names)):
        quantity = quantities.get(name, Quantity(name))
        title = f"{esc(quantity.title)}<small>{esc(name)}</small>"
        rows.append((title, esc(quantity.write(found[name].get("value"))), esc(quantity.between(found[name]))))
    return table(("metric", "value", "95 % interval"), rows) + paragraph(words, "soft") if rows else ""


def class_table(of: Contents, columns: Mapping[str, str], words: str, what: str = "class") -> str:
    """A row a class: its items, and the metrics `columns` (their names: their heads) with intervals in small."""
    rows = of.per_class
    if not rows:
        return paragraph("There are no held-back predictions, so there are no figures a class.")
    digits = 1 if of.result.get("n", 0) < 2000 else 2
    cells = [
        (esc(row["class"]), f"{row['n']:,}", *(_with_interval(row.get(name), digits) for name in columns))
        for row in rows
    ]
    return paragraph(words) + table((what, "n", *columns.values()), cells, "tall" if len(cells) > 24 else "")


def _with_interval(entry: Entry | None, digits: int) -> str:
    """`98.2 %` with its interval in small."""
    if entry is None or entry.get("value") is None:
        return "–"
    low, high = entry.get("low"), entry.get("high")
    around = "" if low is None or high is None else f"<small>{100 * low:.{digits}f}–{100 * high:.{digits}f}</small>"
    return f"{percent(entry['value'], digits)}{around}"


def _bar(low: float, value: float, high: float, ends: Sequence[float], write: Callable[[float], str]) -> str:
    """The interval as a bar on the stretch of its axis around it."""
    span = max(high - low, 0.002 * max(1e-12, abs(value)))
    left, right = max(ends[0], low - 1.2 * span), min(ends[1], high + 1.2 * span)

    def at(place: float) -> float:
        return 500 * (place - left) / (right - left)

    texts = (
        f'<text x="0" y="38">{esc(write(left))}</text><text x="500" y="38" text-anchor="end">{esc(write(right))}</text>'
    )
    return (
        '<div class="range"><svg viewBox="0 0 500 44" preserveAspectRatio="xMinYMid" aria-hidden="true" '
        'style="font-size:13px;fill:var(--soft)"><path d="M0 14H500" style="stroke:var(--rule);stroke-width:2"/>'
        f'<path d="M{at(low):.1f} 14H{at(high):.1f}" style="stroke:var(--c1);stroke-width:8;opacity:.45"/>'
        f'<circle cx="{at(value):.1f}" cy="14" r="7" style="fill:var(--c1)"/>{texts}</svg></div>'
    )
