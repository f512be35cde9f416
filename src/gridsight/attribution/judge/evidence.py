"""Does the map find what moves the answer better than the same map in a wrong place? (`_faithful`)

The share of moved maps that score as well is a p-value, for this item alone. A map is blurred a little first, so that
neighbours come and go together: every other cell of a surface is a pattern that no item has, and what a network says to
it is no evidence (of maps that were right on planted data, 2 of 60 by DeepLift were red by it). On planted evidence
(`benchmarks/bench_verdict.py`) a map whose cells are dealt out anew is red in 8 of 10 cases, and green by luck in 1.
"""

import torch
from torch import Tensor, nn

from gridsight.attribution import Map
from gridsight.attribution._baseline import baseline_of, blurred
from gridsight.attribution._faithful import BLUR, faithfulness, moved
from gridsight.attribution._passes import at_once
from gridsight.attribution.judge import Check
from gridsight.nn.undisturbed import undisturbed

MOVED = 39
"""Maps in wrong places; with as many a map that beats them all has p = 0.025."""
GREEN, RED = 0.05, 0.1


def evidence(
    net: nn.Module,
    x: Tensor,
    target: Tensor,
    found: Map,
    baseline: str | Tensor = "zero",
    seed: int = 0,
    *,
    sizes: bool = False,
) -> list[Check]:
    """One check an item; with `sizes` the map's absolute values are ranked, as of a gradient."""
    base, checks = baseline_of(x, baseline), []
    with undisturbed(net):
        most = at_once(net, x)
        for i, values in enumerate(blurred((found.values.abs() if sizes else found.values)[:, None], 1, BLUR)[:, 0]):
            if bool(values.amax() == values.amin()):
                checks.append(Check("evidence", None, "red", "it is flat: it names no evidence at all"))
                continue
            maps = torch.cat([values[None], moved(values, MOVED, seed)])
            said = faithfulness(net, x[i], base[i], target[i], maps, most)
            checks.append(_check(float(said[0]), float((said >= said[0]).double().mean())))
    return checks


def _check(score: float, p: float) -> Check:
    colour = "green" if p <= GREEN and score > 0 else "red" if p > RED or score <= 0 else "amber"
    told = {
        "green": "what it calls evidence moves the answer",
        "amber": "what it calls evidence hardly moves the answer more than other places",
        "red": "what it calls evidence moves the answer no more than other places",
    }
    return Check("evidence", score, colour, f"{told[colour]} (score {score:.2f}, p = {p:.3f})", p)
