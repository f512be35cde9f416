"""What the page of one task shows besides what every page shows; one file a task makes one of these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gridsight.reporting.contents import Contents
from gridsight.reporting.stating import Quantity

Section = tuple[str, str, Callable[[Contents], str]]
"""(key, title, what builds its HTML; nothing where there is nothing to say)."""


@dataclass(frozen=True)
class View:
    """`headline` is the top of the page, `sections` what follows training, `metrics` and `note` make the first table.

    `limits` are sentences about what the figures do not tell, `about` says in words what the items are.
    """

    headline: Callable[[Contents], str]
    sections: Sequence[Section]
    limits: Callable[[Contents], list[str]]
    about: Callable[[Contents], str]
    metrics: Callable[[Contents], Mapping[str, Quantity]]
    note: str = "Small letters: the name in result.json."
