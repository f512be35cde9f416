"""A few test items with their evidence for the report: mistakes, unsure ones and right ones, kept as explained.npz.

How many is a function of the network's cost alone, so that the report of a run is the same on every machine: at most
about `MACS` multiply-accumulates, which take a processor some 5 to 10 seconds; a network of which one item takes more
shows none here, and `gridsight explain RUN` takes the time it needs.
"""

from typing import Any

import numpy as np

from gridsight.attribution.occlusion import PARTS
from gridsight.core.console import Console, dumps
from gridsight.core.errors import GridsightError
from gridsight.core.run import RunFolder
from gridsight.measure.cost import cost
from gridsight.verbs._explain import evidence_of, explained, load, methods_of, save_arrays
from gridsight.verbs._subjects import Subject, Subjects
from gridsight.verbs.explain import METHOD, ExplainSettings

MACS = 3e11
ITEMS = 3
"""One of each kind."""
PASSES = 642
"""Of the verdict of one map, besides those of the map itself and of four more like it."""


def keep_gallery(folder: RunFolder, console: Console) -> None:
    """Write explained.npz of a finished run; what cannot be explained is noted and costs the run nothing."""
    settings = ExplainSettings(str(folder.path), figures="none", device="cpu")
    predictor = load(folder.path, "cpu", folded=False)
    shape = tuple(predictor.example().shape[1:])
    passes = PASSES + 5 * (4 * PARTS if len(shape) == 2 else PARTS ** (len(shape) - 1))
    count = min(ITEMS, int(MACS / (cost(predictor.net, shape).macs * passes)))
    if not count:
        return
    (method,) = methods_of(settings, (METHOD,))
    arrays: dict[str, np.ndarray] = {}
    entries: list[dict[str, Any]] = []
    bands: dict[str, Any] | None = None
    try:
        for subject in Subjects(predictor, settings, Console(quiet=True), most=count):
            if isinstance(subject, Subject):
                entry, found, verdict = explained(predictor, subject, method, settings)
                shown = evidence_of(predictor, subject, method, entry, found, verdict)
                if shown.bands is not None:
                    bands = {"edges": shown.bands.edges.tolist(), "hop": shown.bands.hop}
                arrays[f"item_{len(entries)}"], arrays[f"values_{len(entries)}"] = shown.item, shown.values
                # no seconds: what two equal runs keep is equal
                entries.append({k: v for k, v in entry.items() if k != "seconds"} | {"said": subject.words()})
    except (GridsightError, RuntimeError) as error:
        console.note(f"the report shows no evidence: {error}")
        return
    about = {"entries": entries, "told": method.told(predictor.model.spec), "bands": bands}
    save_arrays(folder.explained, arrays | {"about": np.array(dumps(about))})
