"""What is wrong with a data set: every item decoded at its own size, compared with all others, judged by its labels.

Looked for: files that cannot be read or are not what their suffix says; equal and nearly equal items
(`data/duplicates.py`), most of all those on both sides of a split, in two groups or under two labels; constant items;
odd sizes, lengths, channels, types and rates; classes that are empty, tiny, unbalanced or only tested.
Labels that are numbers have no classes, and differ among equal items without contradiction; sets have many.
Not looked for: wrong labels of items that are unlike any other, which takes trained networks (`check --labels`).
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from gridsight.core.console import Console
from gridsight.core.errors import DataError, ReadError
from gridsight.data.decoding import decode
from gridsight.data.duplicates import LARGEST, close_pairs
from gridsight.data.files import File
from gridsight.data.findings import Fact, Finding, classes_of, finding
from gridsight.data.magic import other_than_named
from gridsight.data.names import natural_order
from gridsight.data.sample import Sample
from gridsight.data.signature import grid_for, signatures
from gridsight.data.source import Item, Source
from gridsight.data.spec import TaskName
from gridsight.data.target import decide, odd_texts

MOST_BAD = 0.01  # share of bad files, and of test items that were trained on, above which training must not go on
UNBALANCED = 10  # times the smallest class
ODD = 4  # times the median size, or a fraction of it
USUAL = 0.9  # when so many items share a size, a rate, ..., the others are odd
FLAT = 0.02  # of the median standard deviation: almost constant
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Audit:
    """All findings; `stops` says in words what training must not go on with. `bad` counts what could not be read."""

    name: str
    facts: list[Fact]
    bad: int
    findings: list[Finding]
    stops: list[str]
    notes: list[str]
    task: TaskName = "classify"

    @property
    def classes(self) -> dict[str, int]:
        """Items a class, in natural order."""
        counts = Counter(name for fact in self.facts for name in classes_of(fact, self.task))
        return {name: counts[name] for name in natural_order(counts)}

    @property
    def splits(self) -> dict[str, int]:
        """Items a published split."""
        return dict(Counter(fact.split for fact in self.facts if fact.split is not None))

    @property
    def problems(self) -> dict[str, int]:
        """Findings a problem, in the order in which they are looked for."""
        return dict(Counter(one.problem for one in self.findings))


def audit(source: Source, console: Console | None = None, task: str = "auto") -> Audit:
    """Everything that is wrong with a source, as far as it can be told without training; `task`: what labels mean."""
    findings = [Finding("unreadable", (error.path,), error.reason) for error in source.bad]
    facts: list[Fact] = []
    notes = list(source.notes)
    for found in _look(source, console or Console(quiet=True)):
        if isinstance(found, Fact):
            facts.append(found)
        elif isinstance(found, Finding):
            findings.append(found)
        else:
            findings.append(Finding("unreadable", (found.path,), found.reason))
    bad = sum(one.problem == "unreadable" for one in findings)
    stops = []
    if bad > MOST_BAD * (bad + len(facts)):
        stops.append(f"{bad:,} of {bad + len(facts):,} items cannot be read (more than {MOST_BAD:.0%})")
    pairs = _pairs(facts, findings, notes)
    meant = _task(source, facts, findings, stops, task)
    stops += _across(facts, pairs, findings, meant)
    findings += [*_flat(facts), *_odd(facts)]
    stops += _classes(source, facts, findings, meant)
    stops += _groups(facts, findings)
    return Audit(source.name, facts, bad, findings, stops, notes, meant)


def decode_some(source: Source, facts: Sequence[Fact], wanted: Iterable[int]) -> dict[int, Sample]:
    """The samples of some items again, by their numbers: for pictures of what was found."""
    by_item: dict[int, dict[str, int]] = defaultdict(dict)
    for number in wanted:
        by_item[id(facts[number].source)][facts[number].path] = number
    out: dict[int, Sample] = {}
    for item in source.items:
        left = by_item.get(id(item), {})
        for sample in decode(source, item) if left else ():
            if isinstance(sample, Sample) and sample.path in left:
                out[left.pop(sample.path)] = sample
            if not left:
                break
    return out


# ---- decoding


def _look(source: Source, console: Console) -> Iterator[Fact | Finding | ReadError]:
    """The facts of every item, in order; decoded in threads where a file is one item."""
    describe = _describer(source)

    def work(item: Item) -> list[Fact | Finding | ReadError]:
        out: list[Fact | Finding | ReadError] = list(_suffix(item.file))
        for sample in decode(source, item):
            out += describe(item, [sample]) if isinstance(sample, Sample) else [sample]
        return out

    singles = [item for item in source.items if item.label is not None]
    done = 0
    with console.progress("checking", len(source.items)) as bar:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(singles), CHUNK):
                for found in pool.map(work, singles[start : start + CHUNK]):
                    yield from found
                done += len(singles[start : start + CHUNK])
                bar.update(done)
        for item in source.items:
            if item.label is None:  # many items in one file
                samples = decode(source, item)
                while block := list(islice(samples, CHUNK)):
                    yield from (sample for sample in block if isinstance(sample, ReadError))
                    yield from describe(item, [sample for sample in block if isinstance(sample, Sample)])
                done += 1
                bar.update(done)


def _describer(source: Source) -> Callable[[Item, list[Sample]], list[Fact]]:
    """What turns samples into facts, on the grid that suits a few items from all over the data."""
    few: list[Sample] = []
    for item in source.items[:: max(1, len(source.items) // 32)]:
        first = next(iter(decode(source, item)), None)
        if isinstance(first, Sample):
            few.append(first)
    ndim = Counter(sample.array.ndim - 1 for sample in few).most_common(1)[0][0] if few else 0
    few = [sample for sample in few if sample.array.ndim - 1 == ndim]
    grid = grid_for([sample.array.shape[1:] for sample in few]) if few else ()
    sound = any(sample.rate for sample in few)
    lowest = min((sample.rate for sample in few if sample.rate), default=None)
    channels = few[0].array.shape[0] if few else 0

    def describe(item: Item, samples: list[Sample]) -> list[Fact]:
        out: dict[int, Fact] = {}
        alike: dict[Any, list[int]] = defaultdict(list)
        for i, sample in enumerate(samples):
            alike[sample.array.shape, sample.rate].append(i)
        for (shape, rate), which in alike.items():
            x = np.stack([samples[i].array for i in which])
            comparable = len(shape) - 1 == ndim and 0 not in shape and bool(rate) == sound
            if comparable and ndim == 1 and not sound and shape[0] != channels:
                comparable = False  # channels of a series are compared one by one
            grids = signatures(x, grid, rate, lowest) if comparable else None
            flat = x.reshape(len(x), int(np.prod(shape)))
            finite = np.isfinite(flat).all(1) if x.dtype.kind == "f" else np.ones(len(x), bool)
            spreads = np.where(finite[:, None], flat, 0).std(1, dtype=np.float64) if flat.shape[1] else np.zeros(len(x))
            for row, i in enumerate(which):
                sample = samples[i]
                digest = hashlib.blake2b(repr((shape, x.dtype.name)).encode(), digest_size=16)
                digest.update(np.ascontiguousarray(x[row]).data)
                out[i] = Fact(
                    sample.path,
                    item,
                    sample.label,
                    sample.split,
                    sample.group,
                    shape,
                    x.dtype.name,
                    rate,
                    float(spreads[row]),
                    bool(finite[row]),
                    digest.digest(),
                    grids[row] if grids is not None and finite[row] else None,
                    sample.column,
                )
        return [out[i] for i in range(len(samples))]

    return describe


def _suffix(file: File) -> Iterator[Finding]:
    try:
        kind = other_than_named(file.name, file.head(16))
    except ReadError:
        return  # decoding names it
    if kind is not None:
        yield Finding("wrong suffix", (str(file),), f"is {kind} by content, not {file.name.rpartition('.')[2]}")


# ---- pairs


def _pairs(facts: list[Fact], findings: list[Finding], notes: list[str]) -> list[tuple[int, int, str]]:
    """Equal and nearly equal pairs (first, second, word), each entered as a finding too."""
    same: dict[bytes, list[int]] = defaultdict(list)
    for i, fact in enumerate(facts):
        same[fact.digest].append(i)
    pairs = []
    for numbers in same.values():
        if len(numbers) > 1 and facts[numbers[0]].spread > 0:  # constant items are reported as such
            findings.append(finding(facts, "duplicate", numbers, f"{len(numbers)} equal items"))
            pairs += [(a, b, "equal to") for a, b in _representative_pairs(facts, numbers)]
    # one of each set of equal items is compared with the others
    unique = [numbers[0] for numbers in same.values() if facts[numbers[0]].grid is not None]
    if len(unique) > LARGEST:
        notes.append(f"near-duplicates are not looked for among more than {LARGEST:,} items")
    elif len(unique) > 1:
        near = close_pairs(np.stack([grid for i in unique if (grid := facts[i].grid) is not None]))
        for (a, b), distance in zip(near.pairs.tolist(), near.distance.tolist(), strict=True):
            first, second = unique[a], unique[b]
            text = f"nearly equal ({1 - distance:.1%} of what varies agrees)"
            findings.append(finding(facts, "near-duplicate", (first, second), text))
            for one in _one_a_side(facts, same[facts[first].digest]):
                pairs += [(one, other, "nearly equal to") for other in _one_a_side(facts, same[facts[second].digest])]
        if not near.complete:
            notes.append("there are too many near-duplicates to list all: are these frames of a film?")
    return pairs


def _one_a_side(facts: list[Fact], numbers: Sequence[int]) -> list[int]:
    """One item for each (split, group, label) that equal items have: all that pairs across these need."""
    return list({(facts[i].split, facts[i].group, facts[i].label): i for i in reversed(numbers)}.values())


def _representative_pairs(facts: list[Fact], numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of equal items: every item with one of each other side, never all with all."""
    sides = _one_a_side(facts, numbers)
    seen = set()
    for i in numbers:
        for j in sides:
            pair = (min(i, j), max(i, j))
            if i != j and pair not in seen:
                seen.add(pair)
                yield pair


def _across(facts: list[Fact], pairs: list[tuple[int, int, str]], findings: list[Finding], task: TaskName) -> list[str]:
    """Pairs on two sides of a split, in two groups, under two labels; what stops training."""
    leaked: set[int] = set()
    trained = {"train", "val"}
    for a, b, word in pairs:
        one, other = facts[a], facts[b]
        if one.split != other.split and None not in (one.split, other.split):
            text = f"the {one.split} item is {word} the {other.split} item"
            findings.append(finding(facts, "leak", (a, b), text))
            if "test" in (one.split, other.split) and trained & {one.split, other.split}:
                leaked.add(a if one.split == "test" else b)
        if one.group != other.group and None not in (one.group, other.group):
            text = f"the item of group {one.group} is {word} the item of group {other.group}"
            findings.append(finding(facts, "in two groups", (a, b), text))
        if set(classes_of(one, task)) != set(classes_of(other, task)) and None not in (one.label, other.label):
            text = f"the item of class {one.label} is {word} the item of class {other.label}"
            findings.append(finding(facts, "label conflict", (a, b), text))
    tested = sum(fact.split == "test" for fact in facts)
    if leaked and len(leaked) > MOST_BAD * tested:
        return [f"{len(leaked):,} of {tested:,} test items are in the training data too (more than {MOST_BAD:.0%})"]
    return []


# ---- single items


def _flat(facts: list[Fact]) -> Iterator[Finding]:
    spreads = [fact.spread for fact in facts if fact.finite and fact.spread > 0]
    usual = float(np.median(spreads)) if spreads else 0.0
    for i, fact in enumerate(facts):
        if not fact.finite:
            yield finding(facts, "not finite", (i,), "holds NaN or infinite values")
        elif fact.spread == 0:
            text = "all values are equal" if 0 not in fact.shape else "holds no values"
            yield finding(facts, "constant", (i,), text)
        elif fact.spread < FLAT * usual:
            text = f"varies by {fact.spread:.3g} (standard deviation) where {usual:.3g} is usual"
            yield finding(facts, "almost constant", (i,), text)


def _odd(facts: list[Fact]) -> Iterator[Finding]:
    """Items unlike the rest in axes, channels, type, rate, or size."""
    what: tuple[tuple[str, Callable[[Fact], Any]], ...] = (
        ("axes", lambda fact: len(fact.shape) - 1),
        ("channels", lambda fact: fact.shape[0]),
        ("type", lambda fact: fact.dtype),
        ("rate", lambda fact: fact.rate),
    )
    for name, value in what:
        counts = Counter(value(fact) for fact in facts)
        if len(counts) > 1:
            usual, count = counts.most_common(1)[0]
            for i, fact in enumerate(facts):
                if value(fact) != usual:
                    text = f"has {name} {value(fact)} where {count / len(facts):.0%} have {usual}"
                    yield finding(facts, f"odd {name}", (i,), text)
    yield from _odd_sizes(facts)


def _odd_sizes(facts: list[Fact]) -> Iterator[Finding]:
    if not facts:
        return
    ndim = Counter(len(fact.shape) for fact in facts).most_common(1)[0][0]
    which = [i for i, fact in enumerate(facts) if len(fact.shape) == ndim]
    shapes = np.array([facts[i].shape[1:] for i in which], float).reshape(len(which), -1)
    counts = Counter(facts[i].shape[1:] for i in which)
    if len(counts) < 2:
        return
    usual, most = counts.most_common(1)[0]
    word = "length" if ndim == 2 else "size"
    if most >= USUAL * len(which):
        odd = [facts[i].shape[1:] != usual for i in which]
        expected = f"{most / len(which):.0%} have {_size(usual)}"
    else:
        middle = np.median(shapes, axis=0)
        times = np.maximum(shapes, 1e-9) / middle
        skew = times.max(1) / times.min(1)  # another aspect
        odd = ((times > ODD).any(1) | (times < 1 / ODD).any(1) | (skew > ODD)).tolist()
        expected = f"the median is {_size(middle)}"
    for i, strange in zip(which, odd, strict=True):
        if strange:
            yield finding(facts, f"odd {word}", (i,), f"has {word} {_size(facts[i].shape[1:])} where {expected}")


def _size(shape: Iterable[float]) -> str:
    return " x ".join(f"{value:,.0f}" for value in shape)


# ---- classes and groups


def _task(source: Source, facts: list[Fact], findings: list[Finding], stops: list[str], asked: str) -> TaskName:
    """What the labels are."""
    labels = {i: fact.label for i, fact in enumerate(facts) if fact.label is not None}
    column = source.target or next((fact.column for fact in facts if fact.column), "")
    for k in odd_texts([*labels.values()], column) if asked == "auto" else ():
        i = [*labels][k]
        text = f"the label {labels[i]!r} is no number, as most are: with it every label is read as a class"
        findings.append(finding(facts, "odd label", (i,), text))
    try:
        return decide([*labels.values()], column, asked).task
    except DataError as error:
        stops.append(str(error))
        return "regress"


def _classes(source: Source, facts: list[Fact], findings: list[Finding], task: TaskName) -> list[str]:
    findings += [Finding("empty class", (name,), "the folder holds no items") for name in source.empty]
    counts = Counter(name for fact in facts for name in classes_of(fact, task))
    for i, fact in enumerate(facts):
        if fact.label is None:
            findings.append(finding(facts, "no label", (i,), "has no label"))
        for name in classes_of(fact, task):
            if counts[name] == 1:
                findings.append(finding(facts, "class of one", (i,), f"is the only item of class {name}"))
    if task == "regress":
        return []
    if task == "classify" and len(counts) < 2:
        return [f"there is {'one class only' if counts else 'no class'}; a classifier needs at least two"]
    (largest, most), (smallest, least) = counts.most_common()[0], counts.most_common()[-1]
    if most > UNBALANCED * least:
        text = f"class {largest} has {most:,} items and {smallest} {least:,}: {most / least:,.0f} times as many"
        findings.append(Finding("imbalance", (), text))
    trained = {name for fact in facts if fact.split in ("train", None) for name in classes_of(fact, task)}
    only = natural_order(name for name in counts if name not in trained)
    for name in only:
        findings.append(Finding("never trained on", (), f"class {name} is in the test or validation data only"))
    return [f"classes that are never trained on: {', '.join(only)}"] if only else []


def _groups(facts: list[Fact], findings: list[Finding]) -> list[str]:
    sides: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        if fact.group is not None and fact.split is not None:
            sides[fact.group].add(fact.split)
    both = natural_order(group for group, splits in sides.items() if len(splits) > 1)
    for group in both:
        text = f"group {group} is in {' and '.join(sorted(sides[group]))}"
        findings.append(Finding("group on two sides", (), text))
    return [f"{len(both):,} groups are on two sides of the split"] if both else []
