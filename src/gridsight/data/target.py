"""What labels mean: one class, several classes, an ordered grade or a number; told by the texts and their column.

Labels are texts until here, whatever file they come from. A set of classes is written "a;b" and the empty set ";"; a
number as people write it. A column's name may carry a unit in brackets: "age [years]", "weight (kg)". Rules, in order:
a ";" in any label, or a column called labels or tags: several classes. Texts that are not all numbers: one class.
Numbers in a column called label, class, ...: one class when they are whole. Whole numbers in a column called grade,
stage, ...: an ordered grade. Other numbers in a named column: a number. Without a column (folders, names): one class.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gridsight.core.errors import DataError, UsageError, nearest
from gridsight.data.names import natural_order
from gridsight.data.spec import TaskName

TASK_NAMES: tuple[TaskName, ...] = ("classify", "multilabel", "regress", "grade")
CLASS_WORDS = frozenset({"label", "class", "category", "species", "target", "y", "kind", "type"})
SET_WORDS = frozenset({"labels", "tags", "classes", "categories", "findings"})
GRADE_WORDS = frozenset({"grade", "stage", "severity", "rating", "level", "degree", "score", "rank"})
_UNIT = re.compile(r"^(.*?)\s*[\[(]([^\[\]()]+)[\])]\s*$")
EMPTY = ";"
"""The text of a set without classes."""
FEW = 5  # of so many labels one may be a slip where the others are numbers


@dataclass(frozen=True)
class Target:
    """What the labels of a data set are: `classes` in order (none for a number), the column's `name` and `unit`."""

    task: TaskName
    classes: tuple[str, ...] = ()
    name: str = ""
    unit: str = ""


def parts(label: str) -> list[str]:
    """The classes of a set.

    >>> parts("cat; dog"), parts(";")
    (['cat', 'dog'], [])
    """
    return [name for piece in label.split(";") if (name := piece.strip())]


def number(label: str) -> float | None:
    """A finite number, or None.

    >>> number("1.5"), number("cat"), number("nan"), number("12_30")
    (1.5, None, None, None)
    """
    if "_" in label:  # Python's own way of writing 1,000; elsewhere it parts a name
        return None
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def grade(label: str) -> str:
    """The one spelling of a grade, the name of its class.

    >>> grade("2.0"), grade("02")
    ('2', '2')
    """
    return str(int(float(label)))


def decide(labels: Sequence[str], column: str = "", task: str = "auto") -> Target:
    """What `labels` are; `task` other than "auto" overrides the rules.

    Labels that the task asked for cannot have are a `UsageError`, those that teach nothing a `DataError`.
    """
    if task != "auto" and task not in TASK_NAMES:
        raise UsageError(f"there is no task {task!r}; {nearest(task, ('auto', *TASK_NAMES))}")
    name, unit = _name_and_unit(column)
    distinct = set(labels)
    chosen = _rule(distinct, name.lower()) if task == "auto" else task
    if chosen == "multilabel":
        classes = natural_order({part for label in distinct for part in parts(label)})
        if not classes:
            raise DataError("no item has any label; a network needs at least one class to find")
        return Target("multilabel", tuple(classes), name)
    if chosen in ("regress", "grade"):
        _refuse_texts(labels, chosen)
    if chosen == "regress":
        if len({number(label) for label in distinct}) < 2:
            raise DataError("all items have the same number, so there is nothing to learn")
        return Target("regress", (), name, unit)
    if chosen == "grade":
        grades = sorted({grade(label) for label in distinct}, key=int)
        if len(grades) < 2:
            raise DataError(f"there is one grade only ({grades[0]}); at least two are needed")
        return Target("grade", tuple(grades), name)
    return Target("classify", tuple(natural_order(distinct)), name)


def odd_texts(labels: Sequence[str], column: str) -> list[int]:
    """The numbers of a few items whose texts alone make classes of what would else be numbers or grades.

    >>> odd_texts(["1.5", "2", "2.5", "3", "unknown"], "age"), odd_texts(["1", "2", "3", "4", "x"], "label")
    ([4], [])
    """
    name, wrong = _name_and_unit(column)[0].lower(), {label for label in set(labels) if number(label) is None}
    odd = [i for i, label in enumerate(labels) if label in wrong]
    if not odd or FEW * len(odd) > len(labels) or _rule(set(labels), name) != "classify":
        return []
    return odd if _rule(set(labels) - wrong, name) in ("regress", "grade") else []


def singles(target: Target, labels: Sequence[str]) -> str:
    """What is doubtful about classes most of which have one item; nothing where most have more.

    >>> singles(Target("classify", ("7", "8", "9")), ["7", "8", "9", "9"])
    '2 of the 3 classes have one item, so none of these can be tested: are these numbers? --task regress'
    """
    alone = Counter(Counter(labels).values())[1]
    if target.task != "classify" or 2 * alone <= len(target.classes):
        return ""
    numbers = all(number(name) is not None for name in target.classes)
    asked = "are these numbers? --task regress" if numbers else "are these names of items, not of classes?"
    return f"{alone:,} of the {len(target.classes):,} classes have one item, so none of these can be tested: {asked}"


def _name_and_unit(column: str) -> tuple[str, str]:
    found = _UNIT.match(column)
    return (found[1], found[2]) if found else (column, "")


def _refuse_texts(labels: Sequence[str], task: str) -> None:
    """Labels that cannot be the numbers or grades that were asked for."""
    counts = Counter(labels)
    texts = [label for label in counts if number(label) is None]
    wrong = texts or [label for label in counts if task == "grade" and not float(label).is_integer()]
    if wrong:
        what = "whole number" if task == "grade" else "number"
        other = "--task classify takes names" if texts else "--task regress takes any number"
        count = sum(counts[label] for label in wrong)
        raise UsageError(
            f"--task {task} needs a {what} as the label of every item, and {count:,} of {len(labels):,} "
            f"{'has' if count == 1 else 'have'} none (first: {wrong[0]!r}); {other}"
        )


def is_set(labels: Iterable[str], column: str) -> bool:
    """Whether the labels of a named column are sets of classes."""
    return bool(column) and (bool(_words(column) & SET_WORDS) or any(";" in label for label in labels))


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _rule(distinct: set[str], name: str) -> TaskName:
    words = _words(name)
    if is_set(distinct, name):
        return "multilabel"
    numbers = [number(label) for label in distinct]
    if not name or not all(value is not None for value in numbers):
        return "classify"
    whole = all(value is not None and value.is_integer() for value in numbers)
    if whole and words & CLASS_WORDS:
        return "classify"
    return "grade" if whole and words & GRADE_WORDS else "regress"


def encode(target: Target, labels: Sequence[str]) -> np.ndarray:
    """The targets that networks learn: class or grade numbers (n,) int64, sets (n, K) float32, numbers (n,) float64."""
    if target.task == "regress":
        return np.array([float(label) for label in labels], np.float64)
    index = {name: i for i, name in enumerate(target.classes)}
    if target.task == "multilabel":
        y = np.zeros((len(labels), len(index)), np.float32)
        for row, label in zip(y, labels, strict=True):
            row[[index[part] for part in parts(label)]] = 1
        return y
    if target.task == "grade":
        return np.array([index[grade(label)] for label in labels], np.int64)
    return np.array([index[label] for label in labels], np.int64)


def strata(target: Target, y: np.ndarray, bins: int = 10) -> list[str]:
    """What splits are stratified by: the class or grade; of several classes the rarest; of a number its quantile."""
    if target.task == "regress":
        edges = np.unique(np.quantile(y, np.linspace(0, 1, min(bins, max(2, len(y) // 10)) + 1)[1:-1]))
        return [f"part {i}" for i in np.searchsorted(edges, y, side="right")]
    if target.task == "multilabel":
        rare = np.where(y > 0, y.sum(0), np.inf)
        return ["none" if not row.any() else target.classes[int(rare[i].argmin())] for i, row in enumerate(y)]
    return [target.classes[k] for k in y]
