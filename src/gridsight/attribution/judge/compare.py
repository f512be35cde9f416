"""The table of methods: the same items explained by each, with what the checks and the axioms say, and the price."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_high
from typing import Any

from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map, checked
from gridsight.attribution._passes import chosen, scores
from gridsight.attribution.judge import COLOURS, judge
from gridsight.attribution.judge.axioms import Axioms, axioms
from gridsight.core.errors import UsageError
from gridsight.nn.undisturbed import undisturbed


@dataclass(frozen=True)
class Row:
    """One method, medians over the items; None where a figure does not apply.

    `faithful`, the score of `evidence`, and its `p`; `residual`, of the sum that the method itself claims; the axioms
    `efficiency`, `dummy` and `symmetry`, 0 where they hold; `alike`, to the maps of shuffled weights; `change`, under
    noise; `passes` and `backward` an item, and `seconds`, of the map alone; `colour`, and `says`, why, of the item that
    stands for it. Of a method that cannot explain this network only `says` is given.
    """

    name: str
    says: str
    colour: str | None = None
    faithful: float | None = None
    p: float | None = None
    residual: float | None = None
    efficiency: float | None = None
    dummy: float | None = None
    symmetry: float | None = None
    alike: float | None = None
    change: float | None = None
    passes: float | None = None
    backward: float | None = None
    seconds: float | None = None
    layer: str | None = None


def compare(
    net: nn.Module,
    x: Tensor,
    target: Any = None,
    names: Sequence[str] | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    baseline: str = "zero",
    seed: int = 0,
) -> list[Row]:
    """A row for each of the methods `names` (all), the most faithful first among those of a colour.

    Each makes seven maps of every item: the one that is judged, four for the judge and two for the axioms.

    x is (N, C, *spatial); `target` as of `attribute`; `settings` those of some methods, by name.
    """
    target = chosen(net, x, target)
    with undisturbed(net):
        scores(net, x, target)  # a target that is no output is refused here, not once a method
    rows = []
    for name in EXPLAINERS.names() if names is None else names:
        try:
            rows.append(_row(net, checked(x, name), target, name, (settings or {}).get(name, {}), baseline, seed))
        except UsageError as error:
            rows.append(Row(name, f"not for this network: {error}"))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name}: {error}") from None
    place = {colour: number for number, colour in enumerate(COLOURS)}
    return sorted(rows, key=lambda row: (place.get(row.colour or "", len(COLOURS)), -(row.faithful or 0.0)))


def _row(
    net: nn.Module, x: Tensor, target: Tensor, name: str, settings: Mapping[str, Any], baseline: str, seed: int
) -> Row:
    given = dict(settings)
    if EXPLAINERS.accepts(name, "baseline"):
        given.setdefault("baseline", baseline)
    explainer = EXPLAINERS.create(name, **given)
    start = time.perf_counter()
    found: Map = explainer(net, x, target)
    seconds = time.perf_counter() - start
    verdicts = judge(net, x, target, explainer, found, baseline=baseline, seed=seed)
    said = {check.name: [verdict.checks[i] for verdict in verdicts] for i, check in enumerate(verdicts[0].checks)}
    figures: list[Axioms] = axioms(net, x, target, explainer, found, baseline)
    colour = median_high([COLOURS.index(verdict.colour) for verdict in verdicts])
    return Row(
        name=name,
        says=next(verdict.sentence for verdict in verdicts if verdict.colour == COLOURS[colour]),
        colour=COLOURS[colour],
        faithful=_middle([check.value for check in said["evidence"]]),
        p=_middle([check.p for check in said["evidence"]]),
        residual=_middle([check.value for check in said["completeness"]]),
        efficiency=_middle([each.efficiency for each in figures]),
        dummy=_middle([each.dummy for each in figures]),
        symmetry=_middle([each.symmetry for each in figures]),
        alike=_middle([check.value for check in said["randomised"]]),
        change=_middle([check.value for check in said["stability"]]),
        passes=found.passes / len(x),
        backward=found.backward / len(x),
        seconds=seconds / len(x),
        layer=found.layer,
    )


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
