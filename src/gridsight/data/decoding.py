"""From files to items as the cache keeps them: decoded, labelled and brought to the DataSpec's form, in threads.

Pictures of one size lie with their channels last, as decoders give them and networks take them: turning them round
takes as long as resizing them.
"""

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data.conform import conform, is_resized
from gridsight.data.ragged import channels_last
from gridsight.data.sample import Sample
from gridsight.data.source import Item, Source
from gridsight.data.spec import DataSpec

CHUNK = 512
"""Items of a file of many that are handed on at once."""
WAITING = 64
"""Most items that wait in memory until they are written."""
TASK = 4
"""Items that a thread is given at a time."""


def decode(source: Source, item: Item, spec: DataSpec | None = None) -> Iterator[Sample | ReadError]:
    """Every sample of one item with its label, split and group filled in; what fails comes as a `ReadError`.

    Samples that will be brought to the form of `spec` may come smaller than they are.
    """
    reader = source.readers[item.reader]
    if spec is not None and is_resized(spec):
        reader = reader.fitting(spec.spatial)
    try:
        samples: Iterable[Sample | ReadError]
        many = holds_many(item)
        samples = reader.read(item.file, source.axes) if many else [reader.read_single(item.file, source.axes)]
        for sample in samples:
            if isinstance(sample, ReadError):
                yield sample
                continue
            group = item.fields.get(source.group, sample.group) if source.group else sample.group
            if source.group and group is None:
                group = sample.path  # what does not say its group is one of its own
            own = sample.label
            if item.many and item.label is not None and sample.column is None:
                own = None  # what was only guessed of a record's name yields to its file's class
            yield replace(sample, label=own or item.label, split=sample.split or item.split, group=group)
    except ReadError as error:
        yield error


def holds_many(item: Item) -> bool:
    """Whether an item may be many, each with its own label."""
    # a file whose label comes from outside (folder or name) is one item, unless its format has a class of them a file
    return item.label is None or item.many


class Packed(NamedTuple):
    """An item as it is written: `sample` without its array, `size` its cells, `check` a checksum of its `values`."""

    sample: Sample
    size: tuple[int, ...]
    values: bytes
    check: bytes


def _pack(sample: Sample, spec: DataSpec) -> Packed:
    if sample.label is None:
        how = "; write label=NAME into its header, or a file a class" if sample.alphabet else ""
        raise ReadError(sample.path, f"has no label{how}")
    array = conform(sample, spec)
    values = (channels_last(array) if is_last(spec) else array).tobytes()
    # CRC-32 finds what changed by chance, in a fifth of the time of a cryptographic hash
    return Packed(replace(sample, array=np.empty(0)), array.shape[1:], values, zlib.crc32(values).to_bytes(4, "little"))


def is_last(spec: DataSpec) -> bool:
    """Whether channels lie last in the cache, as decoders give pictures and networks take them."""
    return spec.kind == "image" and spec.fit not in ("mask", "patch")


def packed(source: Source, spec: DataSpec, largest: int) -> Iterator[list[Packed | ReadError]]:
    """Packed items in order, some at a time; a file of many items is never held whole.

    `largest` are the bytes of the largest item.
    """

    def of(item: Item) -> Iterator[Packed | ReadError]:
        for sample in decode(source, item, spec):
            try:
                yield sample if isinstance(sample, ReadError) else _pack(sample, spec)
            except ReadError as error:
                yield error

    for many, items in groupby(source.items, holds_many):
        if not many:
            # some wait in memory until they are written: some hundred items, or some hundred megabytes
            yield from in_threads(lambda item: list(of(item)), list(items), (256 << 20) // largest)
            continue
        for item in items:
            stream = of(item)
            while part := list(islice(stream, CHUNK)):
                yield part


def in_threads(work: Callable[[Item], Any], items: Sequence[Item], most: int = WAITING) -> Iterator[Any]:
    """Results in order; at most `most` wait, so that a slow disk never piles up decoded items in memory."""
    tasks = [items[start : start + TASK] for start in range(0, len(items), TASK)]
    if len(tasks) < 2:
        yield from map(work, items)
        return
    ahead = max(2, min(WAITING, most) // TASK)
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    waiting: deque[Future[list[Any]]] = deque()
    try:
        for part in tasks:
            if len(waiting) == ahead:
                yield from waiting.popleft().result()
            waiting.append(pool.submit(lambda part: list(map(work, part)), part))
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
