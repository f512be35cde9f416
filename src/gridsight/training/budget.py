"""A plan for a given time: how wide the network and how many passes, from measured seconds; a pure function of these.

First passes, then width: the widest network of the ladder that still makes `PASSES` times the recipe's own passes, and
as many of them as the time holds, up to `MOST` times. A time too short for `FEWEST` times the recipe's passes gets a
narrower network.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor, log10
from typing import Any

from gridsight.core.console import tuples
from gridsight.training.methods.supervised import SMALL
from gridsight.training.recipe import FrontEnd, Recipe, Tuning, shortened

LADDER = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Factors of the recipe's widths."""
PASSES = 2.0
"""Passes that are worth more than width, as a multiple of the recipe's: 6 epochs of CIFAR-10 81.0 %, 20 epochs 86 %."""
FEWEST = 0.5
"""Fewer passes than this multiple are worth less than width."""
MOST = 4.0
"""More passes than this multiple are not made, however much time there is."""
SEEN = 0.1
"""Share of its time after which a run knows how fast it is: the first steps are slower than the rest."""
LATE = 1.05
"""A run that would take longer than its time by this factor is cut short."""
SPARE = 0.93
"""Share of the time that is planned; the rest is for what a machine does besides."""


@dataclass(frozen=True)
class Choice:
    """A recipe that fits, the factor of its widths, and the seconds that its training was expected to take."""

    recipe: Recipe
    factor: float
    seconds: float


def widened(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with its widths times `factor`, in multiples of 8."""
    if factor == 1:
        return recipe
    widths = tuple(max(8, round(width * factor / 8) * 8) for width in recipe.arguments["widths"])
    return replace(recipe, arguments={**recipe.arguments, "widths": widths})


def fit_time(recipe: Recipe, seconds: float, epoch: Callable[[Recipe], float]) -> Choice:
    """The recipe that makes the most of `seconds` of training; `epoch(recipe)` measures what one pass takes.

    Stops measuring at the first width that is too slow: wider ones are slower.
    """
    seconds *= SPARE
    wanted = max(1.0, PASSES * recipe.epochs)
    best: Choice | None = None
    start = LADDER.index(1.0)
    # downwards only when the recipe's own width is too slow already
    if (choice := _choice(recipe, 1.0, seconds, epoch)).recipe.epochs >= wanted:
        best = choice
        for factor in LADDER[start + 1 :]:
            if not _may_widen(recipe) or choice.recipe.epochs < wanted:
                break
            if (choice := _choice(recipe, factor, seconds, epoch)).recipe.epochs >= wanted:
                best = choice
        return best
    best = choice
    for factor in reversed(LADDER[:start]):
        if not _may_widen(recipe) or best.recipe.epochs >= FEWEST * recipe.epochs:
            break
        best = _choice(recipe, factor, seconds, epoch)
    return best


def epochs_that_fit(recipe: Recipe, done: int, planned: float, spent: float, seconds: float) -> float:
    """The epochs of a run that has taken `spent` of its `seconds` for `done` of `planned`: fewer, where it is too slow.

    Epochs of small items count by their cells.
    """

    def work(epochs: float) -> float:
        small = min(epochs, recipe.shrunk * planned)
        return epochs - small + small * SMALL**recipe.ndim

    if spent < SEEN * seconds or spent * work(planned) <= LATE * seconds * work(done):
        return planned
    return done + max(1, int((seconds - spent) / spent * work(done)))


def _may_widen(recipe: Recipe) -> bool:
    # trained weights fit their own width alone
    return "widths" in recipe.arguments and recipe.tuning is None


def _choice(recipe: Recipe, factor: float, seconds: float, epoch: Callable[[Recipe], float]) -> Choice:
    wide = widened(recipe, factor)
    each = epoch(wide)
    passes = _rounded(min(max(seconds, 1.0) / each, MOST * recipe.epochs))
    return Choice(shortened(wide, passes), factor, passes * each)


def _rounded(passes: float) -> float:
    """Whole passes where there are ten or more, else two digits, never more than there are.

    >>> [_rounded(passes) for passes in (19.9, 4.27, 0.678)]
    [19.0, 4.2, 0.67]
    """
    unit = 1.0 if passes >= 10 else 10.0 ** (floor(log10(passes)) - 1)
    return round(floor(passes / unit) * unit, 12)


def recipe_from(values: dict[str, Any]) -> Recipe:
    """The recipe that plan.json holds, JSON's lists turned back into tuples."""
    kinds = {"front_end": FrontEnd, "tuning": Tuning}
    plain = {name: tuples(value) for name, value in values.items() if name not in kinds}
    parts = {name: kind(**values[name]) for name, kind in kinds.items() if values.get(name) is not None}
    return Recipe(**plain, **parts)
