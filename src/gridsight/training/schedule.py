"""Learning-rate schedules as closed forms: the factor of `lr` at step t of T, a pure function, so nothing to resume.

All rise linearly over the first `warmup` share of the steps. "onecycle" then falls in a straight line to zero (the
triangle of Smith, arXiv:1708.07120, without its tail); "cosine" falls as half a cosine (Loshchilov and Hutter,
arXiv:1608.03983, one period); "step" divides by ten at 50 % and 75 % (He et al., arXiv:1512.03385, section 4.2);
"constant" stays.
"""

import math
from collections.abc import Callable

from gridsight.core.errors import UsageError, nearest

SCHEDULES: dict[str, Callable[[float], float]] = {
    "onecycle": lambda share: 1 - share,
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
    "step": lambda share: 1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01,
    "constant": lambda share: 1.0,
}
"""The factor after warm-up, of the share of the whole run (step) or of what follows warm-up (the others)."""


def bent(start: float, step: int, bend: int, total: int) -> float:
    """The factor of a run that was cut short at step `bend`, where it was `start`: a straight line to zero."""
    return start * (total - step) / max(total - bend, 1)


def factor(schedule: str, step: int, total: int, warmup: float) -> float:
    """What the base rate is multiplied by at step `step` (0 first) of `total`; `warmup` is a share of the steps."""
    if schedule not in SCHEDULES:
        raise UsageError(f"there is no schedule {schedule!r}; {nearest(schedule, SCHEDULES)}")
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "step":
        return SCHEDULES[schedule](step / total)
    return SCHEDULES[schedule]((step - rising) / max(total - rising, 1))
