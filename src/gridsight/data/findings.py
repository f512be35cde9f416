"""What an audit keeps of each item, and what it finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gridsight.data.source import Item
from gridsight.data.spec import TaskName
from gridsight.data.target import grade, parts


@dataclass(frozen=True)
class Finding:
    """One problem: what, the items or files that have it (`items` are numbers of `Audit.facts`), and in words.

    `more` are keys of its own that --json shows.
    """

    problem: str
    paths: tuple[str, ...]
    detail: str
    items: tuple[int, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Fact:
    """What is kept of one decoded item: where it is, what it is, how it looks (`grid`, None when it fits no other).

    `column` is that of the sample, where the file says what its label comes from.
    """

    path: str
    source: Item
    label: str | None
    split: str | None
    group: str | None
    shape: tuple[int, ...]
    dtype: str
    rate: float | None
    spread: float
    finite: bool
    digest: bytes
    grid: np.ndarray | None
    column: str | None = None


def finding(facts: list[Fact], problem: str, numbers: Sequence[int], detail: str) -> Finding:
    """A problem of the items with these numbers."""
    return Finding(problem, tuple(facts[i].path for i in numbers), detail, tuple(numbers))


def classes_of(fact: Fact, task: TaskName) -> tuple[str, ...]:
    """The classes of an item; a number has none."""
    if fact.label is None or task == "regress":
        return ()
    if task == "multilabel":
        return tuple(parts(fact.label))
    return (grade(fact.label) if task == "grade" else fact.label,)
