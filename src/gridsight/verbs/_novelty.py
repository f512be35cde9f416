"""What a trained network knows: what its stages say of the training data, and how far from that held-back items are."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from gridsight.core import seed as hashing
from gridsight.data.split import Split
from gridsight.measure.novelty import Novelty, fit_novelty
from gridsight.verbs._phases import Phases
from gridsight.verbs._plan import Plan

FEWEST = 20
"""Items that the threshold is taken from, at least."""
MOST = 4096
"""Items that either side is taken from, at most."""


def learn_known(phases: Phases, plan: Plan, state: Mapping[str, Tensor], parts: Split) -> Novelty | None:
    """The threshold comes from validation data, else a third of the training data; None for too few, or patches."""
    if plan.repeats:
        return None  # answers are about whole items, of which patches say little
    known, held = parts.train, parts.val
    if not len(held):
        order = hashing.permutation(hashing.key(plan.seed, "novelty"), 0, len(known))
        third = len(known) // 3
        known, held = np.sort(known[order[third:]]), np.sort(known[order[:third]])
    if len(held) < FEWEST:
        return None
    features, held_features = (phases.features(plan, state, _spread(part)) for part in (known, held))
    return fit_novelty(features, held_features, from_training=not len(parts.val))


def _spread(part: np.ndarray) -> np.ndarray:
    """At most `MOST` of the items, evenly spread."""
    return part[np.linspace(0, len(part) - 1, min(len(part), MOST)).astype(np.int64)]
