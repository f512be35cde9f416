"""A verdict beside every map: green, amber or red, with the figures that say why.

Each check is one file and asks one question of a map, or of the method that made it. A map is as good as its worst
check, and the sentence of the verdict is that check's. Limits were chosen on planted evidence (`judge.planted`), where
what moves the answer is known: sound methods must stay clear of red there, and broken ones must not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gridsight.attribution import Explainer, Map

COLOURS = ("green", "amber", "red")
"""From good to bad."""


@dataclass(frozen=True)
class Check:
    """What one question found: its figure (None where it does not apply), a colour, a sentence; `p`, the share of wrong
    maps that do as well, where it has one.
    """

    name: str
    value: float | None
    colour: str
    sentence: str
    p: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The worst of the checks of one map."""

    checks: tuple[Check, ...]

    @property
    def worst(self) -> Check:
        """The check that decides; the first of equals."""
        return max(self.checks, key=lambda check: COLOURS.index(check.colour))

    @property
    def colour(self) -> str:
        """Green, amber or red."""
        return self.worst.colour

    @property
    def sentence(self) -> str:
        """Why."""
        if self.colour == "green":
            return "; ".join(check.sentence for check in self.checks if check.value is not None)
        return self.worst.sentence


def judge(
    net: nn.Module,
    x: Tensor,
    target: Tensor,
    explainer: Explainer,
    found: Map,
    *,
    baseline: str | Tensor = "zero",
    seed: int = 0,
) -> list[Verdict]:
    """A verdict for each item of x (N, C, *spatial), whose map `found` the `explainer` made for `target` (N,).

    It asks the explainer for four more maps, and the network for 642 more answers an item: 0.1 s of one core for a
    small network at 28 x 28, half a minute for ResNet-18 at 224 x 224. The layer of a method that chose one stays.
    """
    from gridsight.attribution.judge.completeness import completeness
    from gridsight.attribution.judge.evidence import evidence
    from gridsight.attribution.judge.randomised import randomised
    from gridsight.attribution.judge.stability import stability

    if found.layer is not None and hasattr(explainer, "layer"):
        explainer = replace(explainer, layer=found.layer)  # type: ignore[type-var]
    columns: Sequence[list[Check]] = (
        completeness(found),
        evidence(net, x, target, found, baseline, seed, sizes=says_sizes(explainer)),
        randomised(net, x, target, explainer, found, seed),
        stability(net, x, target, explainer, found, seed),
    )
    return [Verdict(checks) for checks in zip(*columns, strict=True)]


def says_sizes(explainer: Explainer) -> bool:
    """Whether it says how sensitive the answer is to a cell, so that its sizes count and its signs do not.

    A gradient is such a map: below 0 where less of the input would be more of the answer, which may be evidence.
    """
    from gridsight.attribution import EXPLAINERS

    return any(type(explainer) is entry.item and entry.tags["linear"] == "weights" for entry in EXPLAINERS.entries())


def graded(value: float, green: float, red: float) -> str:
    """The colour of a figure that is good up to `green` and bad from `red` on; of one that is better high, negate."""
    return "green" if value <= green else "red" if value > red else "amber"
