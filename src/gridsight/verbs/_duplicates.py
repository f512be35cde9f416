"""Near-duplicates on both sides of a split: they make the figures too good, so they are counted and named.

Which items are alike does not depend on the split, and to find it takes longer than a short training: the pairs are
kept beside the decoded items, for the next run on the same data.
"""

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gridsight.core.console import Console
from gridsight.core.run import atomic_write
from gridsight.data.cache import Cached
from gridsight.data.duplicates import VERSION, Near, near_duplicates
from gridsight.data.ragged import Ragged
from gridsight.data.split import Split
from gridsight.verbs.train import TrainSettings


def duplicates_across(data: Cached, parts: Split, settings: TrainSettings, console: Console) -> dict[str, Any]:
    """What result.json says of them, nothing where they were not looked for; a warning with their number."""
    if settings.folds or isinstance(data.x, Ragged):
        return {}  # gridsight check compares items of unequal size
    where = {int(i): name for name, index in parts.named() for i in index}
    found = _pairs(data)
    across = [(int(a), int(b)) for a, b in found.pairs if where[int(a)] != where[int(b)]]
    if not found.complete:
        console.say("note     too many items to look for near-duplicates; gridsight check says more")
        if not across:
            return {}
    if across:
        a, b = across[0]
        console.warn(
            f"near-duplicates lie in different parts of the split: {len(across):,} of them "
            f"(first: {data.paths[a]} and {data.paths[b]}); gridsight check {settings.data} lists them"
        )
    return {
        "duplicates": [
            {"a": data.paths[a], "b": data.paths[b], "splits": f"{where[a]} / {where[b]}"} for a, b in across[:100]
        ],
        "duplicates_count": len(across),
    }


def _pairs(data: Cached) -> Near:
    """All near-duplicates of the items, as an earlier run found them where there was one."""
    assert isinstance(data.x, np.ndarray)
    name = data.x.filename if isinstance(data.x, np.memmap) else None
    kept = Path(name).with_name(f"near-{VERSION}.npz") if name is not None else None
    if kept is not None and kept.exists():
        with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), kept.open("rb") as file:
            stored = np.load(file)
            return Near(stored["pairs"], stored["distance"], bool(stored["complete"]))
    found = near_duplicates(data.x, data.spec.rate)
    if kept is not None:
        with contextlib.suppress(OSError):  # a full or read-only disk: then the next run looks again
            atomic_write(kept, lambda path: _save(path, found))
    return found


def _save(path: Path, found: Near) -> None:
    with path.open("wb") as file:
        np.savez(file, pairs=found.pairs, distance=found.distance, complete=np.array(found.complete))
