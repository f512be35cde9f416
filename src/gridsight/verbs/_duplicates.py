"""Near-duplicates on both sides of a split: they make the figures too good, so they are counted and named."""

from typing import Any

from gridsight.core.console import Console
from gridsight.data.cache import Cached
from gridsight.data.duplicates import near_duplicates
from gridsight.data.ragged import Ragged
from gridsight.data.split import Split
from gridsight.verbs.train import TrainSettings


def duplicates_across(data: Cached, parts: Split, settings: TrainSettings, console: Console) -> dict[str, Any]:
    """What result.json says of them, nothing where they were not looked for; a warning with their number."""
    if settings.folds or isinstance(data.x, Ragged):
        return {}  # gridsight check compares items of unequal size
    where = {int(i): name for name, index in parts.named() for i in index}
    found = near_duplicates(data.x, data.spec.rate)
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
