"""Do the parts add up to what they claim to divide? Of methods that claim it."""

from gridsight.attribution import Map
from gridsight.attribution.judge import Check, graded

GREEN, RED = 1e-3, 5e-2
"""Of |f(x) - f(baseline)|; an unbalanced sum of a tenth would move the ranks of what is shown."""


def completeness(found: Map) -> list[Check]:
    """One check an item."""
    if found.residual is None:
        none = Check("completeness", None, "green", "it claims no sum")
        return [none] * len(found.values)
    return [_check(float(value)) for value in found.residual]


def _check(value: float) -> Check:
    colour = graded(value, GREEN, RED)
    said = "its parts add up" if colour == "green" else "its parts do not add up"
    return Check("completeness", value, colour, f"{said} (off by {value:.2g} of the whole)")
