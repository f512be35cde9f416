"""The cache: every item decoded, brought to the DataSpec's form and kept in a memory-mapped file.

key = source fingerprint (readers, their versions, every file's path, size, mtime_ns and ends) and decode settings.
A cache is built under a temporary name, locked against a second builder, renamed, and never edited in place. The
folder `$GRIDSIGHT_CACHE` (default: the user's cache) is bounded by 20 GB or half of the free space; oldest goes first.
Nothing is dropped in silence: an item that cannot be read is kept in `bad` with its path and the reason.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np

from gridsight.core import seed as hashing
from gridsight.core.console import Console, counted
from gridsight.core.errors import DataError, ReadError
from gridsight.core.run import atomic_write
from gridsight.data.decoding import decode, holds_many, in_threads, is_last, packed
from gridsight.data.labels import ONE_HOT
from gridsight.data.ragged import Arrays, Ragged
from gridsight.data.sample import Header, Sample
from gridsight.data.source import Item, Source
from gridsight.data.spec import DataSpec
from gridsight.data.survey import survey
from gridsight.data.target import decide, encode, odd_texts, singles, strata

VERSION = 5
LIMIT = 20 << 30


@dataclass(frozen=True, eq=False)
class Cached:
    """`x` (n, channels, *spatial) memory-mapped, targets `y` (n, ...), what each item is, and what failed.

    Pictures of one size lie there with their channels last. `y` is what `data.target.encode` makes of the labels,
    `strata` (n,) the names that splits are stratified by. `fingerprint` is of the decoded items and their labels,
    wherever their files lie.
    """

    spec: DataSpec
    x: Arrays
    y: np.ndarray
    strata: list[str]
    paths: list[str]
    splits: list[str | None]
    groups: list[str | None]
    bad: list[str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.y)


def cache_folder() -> Path:
    """`$GRIDSIGHT_CACHE`, else the user's cache folder."""
    given = os.environ.get("GRIDSIGHT_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gridsight"


def cached(
    source: Source,
    console: Console,
    *,
    size: int | None = None,
    fit: str = "auto",
    task: str = "auto",
    verify: bool = False,
    sides: tuple[int, int] | None = None,
) -> Cached:
    """The decoded items of a source, from the cache or built into it now.

    `size` and `fit` override the size that items are brought to and how, `task` what the labels mean; `sides` bounds
    the shorter side of pictures without `size`.
    """
    sized = str(size) if sides is None else f"{size} {sides}"
    key = f"{hashing.key(source.fingerprint(verify), str(source.group), sized, fit, VERSION):016x}"
    folder = cache_folder() / "items" / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock")):
            if not _complete(folder):
                _build(source, folder, console, size, fit, sides)
            (folder / "meta.json").touch()
            found = _open(folder, source, task, console)
        # what the source says now, not when the items were decoded: its name, and files that it could not use
        spec = replace(
            found.spec,
            name=source.name,
            notes=(*source.notes, *_notes(found, source.group)),
            split=source.split,
            group=source.group,
            fields=tuple(source.fields),
            target=found.spec.target or source.place,
        )
        return replace(found, spec=spec)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DataError(f"the disk of the cache {cache_folder()} is full; set GRIDSIGHT_CACHE to another") from None
        raise DataError(f"the cache {cache_folder()} cannot be used ({error.strerror}); set GRIDSIGHT_CACHE") from None


def _notes(found: Cached, group: str | None) -> list[str]:
    notes = []
    if found.spec.task == "classify" and found.spec.target == ONE_HOT:
        notes.append(
            "every row of the labels has exactly one 1: read as one class an item (--task multilabel: as sets)"
        )
    if group is not None and (alone := sum(map(eq, found.groups, found.paths))):
        notes.append(f"{counted(alone, 'item')} without a {group}, each a group of its own")
    return notes


def _build(
    source: Source, folder: Path, console: Console, size: int | None, fit: str, sides: tuple[int, int] | None
) -> None:
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left)  # of a process that was killed; the lock is ours
    headers, bad = _probe(source, console), list[str]()
    sound = any(header.rate for header in headers)
    spec = survey(
        source.name,
        headers,
        sound=sound,
        video=source.clips,
        size=size,
        fit=fit,
        axes=source.axes,
        notes=source.notes,
        sides=sides,
    )
    count = sum(header.count for header in headers)
    _make_room(folder.parent, sum(header.count * _bytes(header, spec) for header in headers))
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        kept: list[Sample] = []
        sizes: list[tuple[int, ...]] = []
        with (temporary / "x.bin").open("wb") as file, console.progress("decoding", count) as bar:
            digest = hashlib.blake2b(digest_size=16)
            for found in packed(source, spec, max(_bytes(header, spec) for header in headers)):
                for one in found:
                    if isinstance(one, ReadError):
                        bad.append(str(one))
                    else:
                        digest.update(one.check)
                        file.write(one.values)
                        sizes.append(one.size)
                        kept.append(one.sample)
                bar.update(len(kept) + len(bad))
            file.flush()
            os.fsync(file.fileno())
        if not kept:
            raise DataError(f"{source.name} has no readable items; first: {bad[0]}")
        meta: dict[str, Any] = {
            "spec": spec.to_dict(),
            "sizes": sizes if spec.fit in ("mask", "patch") else None,
            "column": next((sample.column for sample in kept if sample.column), ""),
            "labels": [sample.label for sample in kept],
            "paths": [sample.path for sample in kept],
            "splits": [sample.split for sample in kept],
            "groups": [sample.group for sample in kept],
            "bad": bad,
        }
        said = [
            meta["labels"],
            meta["splits"],
            meta["groups"],
            meta["spec"]["channels"],
            meta["spec"]["spatial"],
            meta["sizes"],
        ]
        digest.update(json.dumps(said).encode())
        meta["content"] = digest.hexdigest()
        atomic_write(temporary / "meta.json", json.dumps(meta))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _probe(source: Source, console: Console) -> list[Header]:
    """Headers of all items, each distinct one once with its count."""

    def probe(item: Item) -> Counter[Header]:
        try:
            reader = source.readers[item.reader]
            if not holds_many(item):
                return Counter([reader.probe(item.file, source.axes)])
            found: Counter[Header] = Counter()
            for header in reader.headers(item.file, source.axes):
                found[replace(header, count=1)] += header.count
            return found
        except ReadError as error:
            refused.append(error)  # decoding will meet the same fault and count it
            return Counter()

    refused: list[ReadError] = []
    counted: Counter[Header] = Counter()
    with console.progress("looking", len(source.items)) as bar:
        for done, found in enumerate(in_threads(probe, source.items), 1):
            counted += found
            bar.update(done)
    if not counted:
        reasons = [*refused, *source.bad, *_first_errors(source)]
        raise DataError(f"{source.name} has no readable items" + (f"; first: {reasons[0]}" if reasons else ""))
    return [replace(header, count=count) for header, count in counted.items()]


def _first_errors(source: Source) -> list[ReadError]:
    """What the first file says of its items when none can be read."""
    return [found for found in islice(decode(source, source.items[0]), 3) if isinstance(found, ReadError)]


def _bytes(header: Header, spec: DataSpec) -> int:
    """What an item takes once it is brought to the form of `spec`."""
    spatial = spec.spatial
    if spec.fit in ("mask", "patch"):
        limit = spec.spatial if spec.fit == "mask" else header.spatial
        spatial = tuple(map(min, header.spatial, limit))
    return prod((spec.channels, *spatial)) * np.dtype(spec.dtype).itemsize


def _complete(folder: Path) -> bool:
    """Whether both files are there and the items have their full size."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        spec = DataSpec.from_dict(meta["spec"])
        cells = sum(map(prod, meta["sizes"])) if meta["sizes"] else len(meta["labels"]) * prod(spec.spatial)
        return (folder / "x.bin").stat().st_size == cells * spec.channels * np.dtype(spec.dtype).itemsize
    except (OSError, ValueError, KeyError):
        return False


def _open(folder: Path, source: Source, task: str, console: Console) -> Cached:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    labels, column = meta["labels"], source.target or meta["column"]
    bad = [*map(str, source.bad), *meta["bad"]]
    try:
        target = decide(labels, column, task)
        if target.task == "classify" and len(target.classes) < 2:
            raise DataError(
                f"{source.name} has one class only ({target.classes[0]!r}); a classifier needs at least two"
            )
    except DataError as error:  # what is missing may lie in what could not be read
        if bad:
            raise DataError(f"{error}; bad items, left out: {len(bad):,} (first: {bad[0]})") from None
        raise
    if task == "auto" and (odd := odd_texts(labels, column)):
        console.warn(
            f"{labels[odd[0]]!r} (of {meta['paths'][odd[0]]}) is no number, as {len(labels) - len(odd):,} of "
            f"{len(labels):,} labels in {target.name} are, so every label is read as a class; correct it or leave the "
            "item out for numbers, or say that these are classes: --task classify"
        )
    if doubt := singles(target, labels):
        console.warn(doubt)
    spec = replace(
        DataSpec.from_dict(meta["spec"]),
        task=target.task,
        classes=target.classes,
        target=target.name,
        unit=target.unit,
    )
    y = encode(target, labels)
    x: Arrays
    if meta["sizes"]:
        x = Ragged(np.memmap(folder / "x.bin", spec.dtype, "r"), spec.channels, np.array(meta["sizes"]))
    else:
        shape = (*spec.spatial, spec.channels) if is_last(spec) else (spec.channels, *spec.spatial)
        x = np.memmap(folder / "x.bin", spec.dtype, "r", shape=(len(y), *shape))
        x = np.moveaxis(x, -1, 1) if is_last(spec) else x
    return Cached(
        spec,
        x,
        y,
        strata(target, y),
        meta["paths"],
        meta["splits"],
        meta["groups"],
        bad,
        meta["content"],
    )


def _make_room(folder: Path, needed: int) -> None:
    """Drop what killed processes left, then the oldest caches until `needed` bytes fit under the bound."""
    for left in folder.glob(".*.*"):  # .KEY.xxxx, or .KEY.gone
        lock = folder / f"{left.name.split('.')[1]}.lock"
        with contextlib.suppress(BlockingIOError), _lock(lock, wait=False):  # who decodes into it holds the lock
            shutil.rmtree(left, ignore_errors=True)
    caches = sorted(folder.glob("*/meta.json"), key=lambda path: path.stat().st_mtime)
    sizes = {meta.parent: sum(f.stat().st_size for f in meta.parent.iterdir()) for meta in caches}
    used = sum(sizes.values())
    limit = min(LIMIT, (shutil.disk_usage(folder).free + used) // 2)
    if needed > limit:
        raise DataError(
            f"the decoded items need {needed / 1e9:.1f} GB and the cache {folder.parent} may take "
            f"{limit / 1e9:.1f} GB; give a smaller --size, or set GRIDSIGHT_CACHE to a larger disk"
        )
    for path in sizes:
        if used + needed <= limit:
            return
        gone = path.with_name(f".{path.name}.gone")
        path.rename(gone)  # whole or not at all
        shutil.rmtree(gone, ignore_errors=True)
        used -= sizes[path]


@contextlib.contextmanager
def _lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file; where another holds it, wait or raise `BlockingIOError`."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
