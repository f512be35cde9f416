"""How long calls take, side by side: they take turns, so that whatever else the machine does hits all alike.

Figures are medians over the turns with their quartiles, ratios medians over pairs of turns of one round. The first
calls of each, and one before each turn, are not counted: they fill caches that another has emptied.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

WARM_UP = 3
"""Calls of each before the first round; one more before each turn."""
TURN = 0.01
"""Seconds that a turn takes at least, in as many calls as that needs."""
ROUNDS = (7, 201)
"""At least, and at most."""
NOISE = 0.02
"""A median this much slower than the best is called equal: two runs of the same measurement differ by as much."""


@dataclass(frozen=True, eq=False)
class Turns:
    """Seconds a call of one way, a turn each."""

    seconds: np.ndarray

    @property
    def median(self) -> float:
        """Seconds a call."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Half of the turns lie between."""
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        return float(low), float(high)

    def ratio(self, to: "Turns") -> float:
        """How many times faster than `to`: the median over rounds."""
        return float(np.median(to.seconds / self.seconds))


def take_turns(calls: Mapping[str, Callable[[], Any]], seconds: float, device: torch.device) -> dict[str, Turns]:
    """Time each of `calls` for about `seconds` in all, round by round, in an order that moves on by one a round."""
    names = list(calls)
    repeats: dict[str, int] = {}
    for name in names:
        once = min(_timed(calls[name], 1, device) for _ in range(WARM_UP))
        repeats[name] = max(1, math.ceil(TURN / once))
    found: dict[str, list[float]] = {name: [] for name in names}
    start, least, rounds = time.perf_counter(), *ROUNDS
    for number in range(rounds):
        if number >= least and time.perf_counter() - start > seconds:
            break
        for name in names[number % len(names) :] + names[: number % len(names)]:
            calls[name]()
            found[name].append(_timed(calls[name], repeats[name], device))
    return {name: Turns(np.array(values)) for name, values in found.items()}


def equal_to_best(turns: Mapping[str, Turns]) -> list[str]:
    """The fastest, and those that this measurement cannot tell from it, in the order given.

    These are within `NOISE` of it, or the 95 % interval of the median of their ratio (by the sign test) reaches 1.
    """
    best = min(turns.values(), key=lambda each: each.median)
    return [name for name, each in turns.items() if each is best or _at_least(each.seconds / best.seconds) <= 1 + NOISE]


def _at_least(values: np.ndarray) -> float:
    """Lower end of the 95 % interval of the median."""
    from scipy.stats import binom

    place = int(binom.ppf(0.025, len(values), 0.5))
    return float(np.sort(values)[max(0, place - 1)])


def matmul_rate(device: torch.device, repeats: int = 3) -> float:
    """GFLOP/s of a 2048-cubed product in this minute: what figures of seconds must be read against."""
    a = torch.randn(2048, 2048, device=device)
    return 2 * 2048**3 / min(_timed(lambda: a @ a, 1, device) for _ in range(repeats + 1)) / 1e9


def _timed(call: Callable[[], Any], repeats: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _wait(device: torch.device) -> None:
    """For the GPU, which answers before it has computed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
