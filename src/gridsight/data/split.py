"""Who is trained on and who is tested: published test data stay test, the rest is carved by seed, class and group.

Test: what is published; else a published validation part; else 20 % held back. Validation: what is published besides;
else 10 % of the training data or 2,500 items, whichever is less, at least 5 a class and at most a third of it; none
below 500 training items. A group is never on two sides. Grouped parts follow the greedy rule of scikit-learn's
StratifiedGroupKFold: each group, the least even first, goes where the classes stay most even. All orders are hashes of
the seed, the same on every machine.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gridsight.core import seed as hashing
from gridsight.core.errors import DataError, UsageError
from gridsight.data.names import natural_order

FEWEST = 500  # training items below which no validation set is taken
LEAST = 5  # validation items a class
ENOUGH = 2500  # validation items: more would tell little that these do not, and be missed in training
LARGEST_SHARE = 3  # validation takes at most one in so many of a class
PUBLISHED = "test: the "  # how the words of a split begin whose test part was published

Labels = Sequence[Hashable] | np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """Item numbers (int64, rising) of the three parts, and in words how they came about."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    words: str

    def named(self) -> list[tuple[str, np.ndarray]]:
        """The parts with their names."""
        return [("train", self.train), ("validation", self.val), ("test", self.test)]


def tests_published(words: str) -> bool:
    """Whether the words of a split say that its test part was published."""
    return words.startswith(PUBLISHED)


def split(
    labels: Labels,
    groups: Sequence[Hashable] | None,
    published: Sequence[str | None] | None,
    seed: int,
    *,
    validation: float = 0.1,
    holdout: float = 0.2,
    classes: bool = True,
) -> Split:
    """The parts of n items from their `labels`, `groups` (or None) and `published` splits ("train", "val", "test").

    Items without a published split are training data. A class with one item is trained on and not tested. `classes`
    False: the labels are no classes but strata (parts of a range), which may lie wholly on one side.
    Raises `DataError` where that cannot be honest: one class, a class only in the test data, a group on both sides.
    """
    y, g = _codes(labels), None if groups is None else _codes(groups)
    names, group_names = _names(labels), None if groups is None else _names(groups)
    if len(names) < 2 and (classes or not names):
        raise DataError(
            f"there is one class only ({names[0]!r}); a classifier needs at least two" if names else "no items"
        )
    said = np.array([part or "train" for part in published] if published is not None else ["train"] * len(y))
    parts = {part: np.flatnonzero(said == part) for part in ("train", "val", "test")}
    if not len(parts["train"]):
        raise DataError("all items are published as test data; there is nothing to train on")
    words = []
    if not len(parts["test"]) and len(parts["val"]):
        parts["test"], parts["val"] = parts["val"], parts["test"]
        words.append(f"{PUBLISHED}{len(parts['test']):,} published validation items (no other test is published)")
    elif len(parts["test"]):
        words.append(f"{PUBLISHED}{len(parts['test']):,} published items")
    if len(parts["test"]):
        _check_published(y, g, parts, names, group_names, classes)
    else:
        parts["train"], parts["test"] = _carve(y, g, parts["train"], holdout, 1, seed, "test")
        if not len(parts["test"]):
            raise DataError("no class has a second item, so none can be held back to test on")
        words.append(f"test: {_share(parts['test'], len(y))} held back, {_how(g)}, seed {seed}")
        untested = sorted(set(y.tolist()) - set(y[parts["test"]].tolist()))
        if untested and classes:
            words.append(f"not tested for lack of {'groups' if g is not None else 'items'}: {_listed(names, untested)}")
    before = parts["train"]
    if len(parts["val"]):
        words.append(f"validation: the {len(parts['val']):,} published items")
    elif len(before) < FEWEST:
        words.append(f"no validation: {len(before):,} training items are fewer than {FEWEST}")
    elif g is not None and len(np.unique(g[before])) < 2:
        words.append("no validation: the training data are one group")
    else:
        share = min(validation, ENOUGH / len(before))
        parts["train"], parts["val"] = _carve(y, g, before, share, LEAST, seed, "validation")
        words.append(f"validation: {_share(parts['val'], len(before))} of the training data, {_how(g)}, seed {seed}")
        counts = np.bincount(y[parts["val"]], minlength=len(names))
        few = [c for c in np.unique(y[before]).tolist() if counts[c] < LEAST]
        if few and classes:
            words.append(f"classes with fewer than {LEAST} validation items: {_listed(names, few)}")
    return Split(parts["train"], parts["val"], parts["test"], "; ".join(words))


def folds(
    labels: Labels, groups: Sequence[Hashable] | None, k: int, seed: int, *, classes: bool = True
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`k` pairs (train, test) of item numbers: every item is tested once; classes even, groups whole.

    Raises `DataError` when a class would be tested without being trained on: it has one item, or lies in one group.
    """
    y, g = _codes(labels), None if groups is None else _codes(groups)
    names = _names(labels)
    if k < 2:
        raise UsageError(f"--folds {k}: at least 2 are needed")
    units = len(y) if g is None else len(np.unique(g))
    if k > units:
        raise UsageError(f"--folds {k}: there are only {units} {'items' if g is None else 'groups'}")
    if len(names) < 2 and classes:
        raise DataError("there is one class only; a classifier needs at least two")
    fold = _deal(y, k, seed, "folds") if g is None else _deal_groups(y, g, k, seed, "folds")
    for test in range(k):
        missing = sorted(set(y[fold == test].tolist()) - set(y[fold != test].tolist()))
        if missing and classes:
            why = "it has one item only" if g is None else "its groups fell into one fold, or it has one group only"
            raise DataError(
                f"class {names[missing[0]]!r} would be tested without being trained on ({why}); leave it out, "
                "give it more items, or use fewer folds"
            )
    return [(np.flatnonzero(fold != test), np.flatnonzero(fold == test)) for test in range(k)]


def _carve(
    y: np.ndarray, g: np.ndarray | None, pool: np.ndarray, share: float, least: int, seed: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """(rest, part) of the item numbers `pool`: about `share` of each class, at least `least` where it has enough."""
    if g is not None:
        return _carve_groups(y, g, pool, share, seed, what)
    taken = np.zeros(len(y), bool)
    for c in np.unique(y[pool]).tolist():
        own = pool[y[pool] == c]
        count = max(int(share * len(own) + 0.5), min(least, len(own) // LARGEST_SHARE if least > 1 else len(own) // 2))
        taken[own[hashing.permutation(hashing.key(seed, what, c), 0, len(own))[:count]]] = True
    return pool[~taken[pool]], pool[taken[pool]]


def _carve_groups(
    y: np.ndarray, g: np.ndarray, pool: np.ndarray, share: float, seed: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    own, units = g[pool], np.unique(g[pool])
    if len(units) < 2:
        raise DataError(f"all items are of one group, so no {what} data can be held back; choose another --group")
    k = min(max(2, round(1 / share)), len(units))
    fold = _deal_groups(y[pool], own, k, seed, what)
    classes = set(y[pool].tolist())
    order = hashing.permutation(hashing.key(seed, what, "fold"), 0, k)
    sizes = np.bincount(fold, minlength=k)
    for test in sorted(order.tolist(), key=lambda i: abs(sizes[i] - share * len(pool)) > 0.5 * share * len(pool)):
        if set(y[pool[fold != test]].tolist()) == classes:
            return pool[fold != test], pool[fold == test]
    raise DataError(f"every choice of {what} groups would leave a class without training data; choose another --group")


def _deal(y: np.ndarray, k: int, seed: int, what: str) -> np.ndarray:
    """The fold (n,) of each item: each class dealt round in a hashed order, going on where the class before ended."""
    fold, start = np.empty(len(y), np.int64), 0
    for c in np.unique(y).tolist():
        own = np.flatnonzero(y == c)
        own = own[hashing.permutation(hashing.key(seed, what, c), 0, len(own))]
        fold[own] = (start + np.arange(len(own))) % k
        start += len(own)
    return fold


def _deal_groups(y: np.ndarray, g: np.ndarray, k: int, seed: int, what: str) -> np.ndarray:
    """The fold (n,) of each item, groups whole: each goes where the shares of the classes stay most even."""
    units, place = np.unique(g, return_inverse=True)
    classes, kind = np.unique(y, return_inverse=True)
    counts = np.zeros((len(units), len(classes)))
    np.add.at(counts, (place, kind), 1)
    order = hashing.permutation(hashing.key(seed, what, "groups"), 0, len(units))
    order = order[np.argsort(-counts[order].std(1), kind="stable")]
    totals = counts.sum(0)
    have, chosen = np.zeros((k, len(classes))), np.empty(len(units), np.int64)
    for unit in order:
        # spread over the folds, with the group in each in turn
        shares = have / totals
        base, squares = shares.sum(0), (shares**2).sum(0)
        add = counts[unit] / totals
        variance = (squares + 2 * shares * add + add**2) / k - ((base + add) / k) ** 2
        score = np.sqrt(np.maximum(variance, 0)).mean(1)
        best = np.flatnonzero(score <= score.min() + 1e-12)
        fold = best[np.argmin(have[best].sum(1))]
        have[fold] += counts[unit]
        chosen[unit] = fold
    return chosen[place]


def _check_published(
    y: np.ndarray,
    g: np.ndarray | None,
    parts: dict[str, np.ndarray],
    names: list[Hashable],
    group_names: list[Hashable] | None,
    classes: bool,
) -> None:
    for part, words in (("test", "test"), ("val", "validation")) if classes else ():
        extra = sorted(set(y[parts[part]].tolist()) - set(y[parts["train"]].tolist()))
        if extra:
            raise DataError(f"only in the {words} data, so never trained on: {_listed(names, extra)}")
    if g is None or group_names is None:
        return
    for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
        both = sorted(set(g[parts[first]].tolist()) & set(g[parts[second]].tolist()))
        if both:
            raise DataError(
                f"{len(both):,} groups are in both the {first} and the {second} data: {_listed(group_names, both)}; "
                "give the data without their split, or leave --group out"
            )


def _codes(values: Labels) -> np.ndarray:
    """Integers (n,) for any labels: their place among the distinct ones in natural order."""
    place = {name: i for i, name in enumerate(_names(values))}
    return np.array([place[value] for value in _plain(values)], np.int64)


def _names(values: Labels) -> list[Hashable]:
    distinct = set(_plain(values))
    if all(isinstance(value, str) for value in distinct):
        return list(natural_order(str(value) for value in distinct))
    return sorted(distinct, key=lambda value: (str(type(value)), value))


def _plain(values: Labels) -> Iterable[Hashable]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _listed(names: Sequence[Hashable], which: Sequence[int]) -> str:
    counts = Counter(str(names[i]) for i in which)
    shown = list(counts)[:5]
    return ", ".join(shown) + (f" and {len(which) - 5:,} more" if len(which) > 5 else "")


def _share(part: np.ndarray, whole: int) -> str:
    return f"{len(part):,} of {whole:,} ({len(part) / whole:.0%})"


def _how(g: np.ndarray | None) -> str:
    return "stratified" if g is None else "stratified, groups whole"
