"""The report of numbers: the mean error first; predicted against true, errors, whether intervals keep their word."""

import numpy as np

from gridsight.measure.intervals import wilson
from gridsight.reporting.contents import Contents, Numbers
from gridsight.reporting.figures import histogram_figure, scatter_figure, svg
from gridsight.reporting.gallery import gallery
from gridsight.reporting.markup import esc, figure, paragraph, percent, some, table
from gridsight.reporting.stating import Quantity, headline, readings, unfinished
from gridsight.reporting.view import View

MOST_POINTS = 2000
PARTS, FEWEST = 5, 20
"""Parts that the answers are cut into, of so many items at least."""


def quantities(of: Contents) -> dict[str, Quantity]:
    """What metrics are called, errors in the data's own unit."""
    unit = _unit(of)
    return {
        "mae": Quantity("mean absolute error", digits=".4g", unit=unit),
        "rmse": Quantity("root mean squared error", digits=".4g", unit=unit),
        "r2": Quantity("R², the share of the variance explained"),
        "interval_coverage": Quantity("true numbers inside their interval", share=True),
    }


def top(of: Contents) -> str:
    """The mean absolute error with its interval, R squared, and whether the promised intervals hold."""
    found, known = of.result.get("metrics") or {}, quantities(of)
    if "mae" not in found:
        return unfinished(of)
    n = of.result["n"]
    what = f" of the {_name(of)}" if _name(of) else ""
    words = f"mean absolute error{what} on {some(n, 'held-back item')}: how far answers are off"
    lines = headline(found["mae"], known["mae"], words, "", (0.0, float("inf")))
    if found.get("r2", {}).get("value") is not None:
        r2 = f"{found['r2']['value']:.3f} ({_three(found['r2'])})"
        lines.append(
            paragraph(f"R² {r2}: 1 is exact, 0 no better than always answering the mean of these items.", "lead")
        )
    lines.append(paragraph(_kept(of, known), "lead"))
    if of.numbers is not None:
        y = of.numbers.target
        middle = float(np.median(y))
        off = known["mae"].write(float(np.abs(y - middle).mean()))
        usual = known["mae"].write(middle)
        lines.append(paragraph(f"Always answering {usual}, the median of these items, would be off by {off}."))
    return "".join([*lines, readings(of)])


def _kept(of: Contents, known: dict[str, Quantity]) -> str:
    """What the intervals promise and what they hold."""
    margin, promised = of.calibration.get("margin"), of.calibration.get("coverage")
    held = (of.result.get("metrics") or {}).get("interval_coverage")
    if margin is None or promised is None:
        why = "there were no data, or too few, to set them on" if of.result else "there is no result"
        return f"Answers come without an interval: {why}."
    width = f"Intervals of ± {known['mae'].write(margin)} promise to hold {100 * promised:g} % of new items"
    return f"{width}; they hold {known['interval_coverage'].stated(held)} of these." if held else f"{width}."


def scatter(of: Contents) -> str:
    """Predicted against true, the errors against the answers, and their histogram."""
    found = of.numbers
    if found is None:
        return paragraph("predictions.npz is missing, so answers cannot be drawn beside the true numbers.")
    margin, shown = of.calibration.get("margin"), _some(found)
    unit = f" ({_unit(of)})" if _unit(of) else ""
    x, y, error = found.target[shown], found.value[shown], found.error
    points = (
        f" Drawn are {len(shown):,} of {len(found.target):,} items, evenly spread over the true numbers."
        if len(shown) < len(found.target)
        else ""
    )
    band = " Band: the interval." if margin is not None else ""
    drawn = [
        figure(
            svg(scatter_figure(x, y, f"true{unit}", f"predicted{unit}", slope=1, margin=margin), "Predicted and true"),
            "Predicted against true",
            f"On the dotted line answers are exact.{band}{points}",
        ),
        figure(
            svg(
                scatter_figure(y, error[shown], f"predicted{unit}", f"too high by{unit}", slope=0, margin=margin),
                "Errors against answers",
            ),
            "Errors against answers",
            "A slope, a bend or a funnel here is something the model could still learn, or noise that grows with the "
            f"number.{band}",
        ),
        figure(
            svg(histogram_figure(error, f"too high by{unit}", margin), "Histogram of errors"),
            "Errors",
            "All items" + ("; those outside the interval in the other colour." if margin is not None else "."),
        ),
    ]
    mean, middle = float(error.mean()), float(np.median(np.abs(error)))
    known = quantities(of)["mae"]
    words = (
        f"Half of the answers are within {known.write(middle)} of the true number. In the mean they are "
        f"{known.write(abs(mean))} too {'high' if mean >= 0 else 'low'}."
    )
    return paragraph(words) + f'<div class="figures">{"".join(drawn)}</div>' + _by_answer(of, found)


def _some(found: Numbers) -> np.ndarray:
    """Numbers of the items to draw: all, or evenly many in the order of their true numbers."""
    n = len(found.target)
    if n <= MOST_POINTS:
        return np.arange(n)
    order = np.argsort(found.target, kind="stable")
    return order[np.linspace(0, n - 1, MOST_POINTS).round().astype(np.int64)]


def _parts(found: Numbers) -> int:
    """How many parts the answers are cut into; 0 where they are too few for two."""
    parts = min(PARTS, len(found.value) // FEWEST)
    return parts if parts > 1 else 0


def _by_answer(of: Contents, found: Numbers) -> str:
    """Error, bias and coverage of small and large answers: an interval that holds over all may not in a part."""
    parts, known = _parts(found), quantities(of)["mae"]
    if not parts:
        return ""
    order = np.argsort(found.value, kind="stable")
    rows = []
    for part in np.array_split(order, parts):
        low, high = float(found.value[part].min()), float(found.value[part].max())
        error = found.error[part]
        row = [f"{low:.4g} to {high:.4g}", f"{len(part):,}", esc(known.write(float(np.abs(error).mean())))]
        row.append(f"{error.mean():+.3g}".replace("-", "−"))
        if np.isfinite(found.low).all():
            inside = int(((found.target >= found.low) & (found.target <= found.high))[part].sum())
            a, b = wilson(inside, len(part))
            row.append(f"{percent(inside / len(part), 1)}<small>{100 * a:.1f}–{100 * b:.1f}</small>")
        rows.append([row[0], *row[1:]])
    head = ["answers", "n", "mean absolute error", "mean error"] + (["inside the interval"] if len(rows[0]) > 4 else [])
    return (
        "<h3>By the size of the answer</h3>"
        + table(head, rows)
        + paragraph("The interval is as wide everywhere, so where errors are larger it holds fewer.", "soft")
    )


def mistakes(of: Contents) -> str:
    """The items that are farthest off."""
    found = of.numbers
    if found is None:
        return paragraph("predictions.npz is missing, so the worst items cannot be shown.")
    if len(found.worst_index) == 0:
        return paragraph("There is no item to show.")
    known = quantities(of)["mae"]
    outside = int((np.abs(found.error) > of.calibration["margin"]).sum()) if of.calibration.get("margin") else None
    beyond = "" if outside is None else f" {some(outside, 'item')} lie outside their interval."

    def words(shown: int) -> str:
        return (
            f"The {some(shown, 'item')} that are farthest off, of {len(found.target):,}.{beyond} Look for a wrong "
            "number, an item that shows too little, and something that they have in common."
        )

    def caption(index: int) -> tuple[str, str]:
        true, said = known.write(float(found.target[index])), known.write(float(found.value[index]))
        error = float(found.error[index])
        off = f"{known.write(abs(error))} too {'high' if error > 0 else 'low'}"
        return f"is <b>{esc(true)}</b>, answered <b>{esc(said)}</b>: {esc(off)}", f"is {true}, answered {said}"

    return gallery(of, found, words, caption)


def limits(of: Contents) -> list[str]:
    """What an interval of one width promises, and where training has no numbers."""
    said, found, known = list[str](), of.numbers, quantities(of)["mae"]
    if of.calibration.get("margin") is not None:
        shown = ": see the table by the size of the answer" if found is not None and _parts(found) else ""
        said.append(f"Intervals hold their share over all items like these together, not of every kind of item{shown}.")
    elif of.result:
        said.append("Answers come without an interval: how far one may be off is known in the mean alone.")
    if found is not None and of.result:
        low, high = known.write(float(found.target.min())), known.write(float(found.target.max()))
        said.append(f"The held-back items’ numbers are from {low} to {high}: nothing is known of items beyond.")
    return said


def about(of: Contents) -> str:
    """How many items, and what the number is."""
    if of.spec is None:
        return ""
    total = sum(sum(column) for column in (of.spec.counts or {}).values())
    name, unit = _name(of), _unit(of)
    what = "a number" + (f" ({name})" if name else "") + (f" in {unit}" if unit else "")
    return f"{total:,} items with {what} each" if total else what


def _name(of: Contents) -> str:
    """The column, where its name says more than a letter."""
    name = of.spec.target if of.spec is not None else ""
    return name if len(name) > 1 else ""


def _unit(of: Contents) -> str:
    return of.result.get("unit") or (of.spec.unit if of.spec is not None else "")


def _three(entry: dict[str, float]) -> str:
    low, high = entry.get("low"), entry.get("high")
    return "–" if low is None or high is None else f"{low:.3f} to {high:.3f}"


VIEW = View(
    top,
    (
        ("answers", "Answers and true numbers", scatter),
        ("mistakes", "The worst items", mistakes),
    ),
    limits,
    about,
    quantities,
)
