"""What a drawing of a network shows: the graph of its operations, brought to boxes that a reader can take in.

A layer and what follows it cell by cell (norm, activation) are one box. A module made of several is a block, a frame
around its boxes; a module within a block is one box with its class name. Blocks that follow each other and would be
drawn alike are drawn once: the others are `Box.others`. So are stages, where they hand on the same shape.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from gridsight.measure.graph import Call, Graph, Step
from gridsight.reporting.naming import class_words, kind_of, words_of


@dataclass(eq=False)
class Box:
    """A leaf, which has `steps` and `words` that say what these do, or a frame around `inner`, in the order of time.

    `kind` is conv, linear, pool, mix (attention, recurrence), join, minor (cell by cell), other, end, or frame.
    """

    call: Call | None
    kind: str = "frame"
    words: list[str] = field(default_factory=list)
    own: list[Step] = field(default_factory=list)
    inner: list["Box"] = field(default_factory=list)
    others: list["Box"] = field(default_factory=list)

    def leaves(self) -> Iterator["Box"]:
        """The leaves in it, without those of `others`."""
        if self.kind != "frame":
            yield self
        for box in self.inner:
            yield from box.leaves()

    def steps(self) -> Iterator[Step]:
        """Every step in it, once more for each repetition of a box in it, but not for its own repetitions."""
        yield from self.own
        for box in self.inner:
            for each in box.alike:
                yield from each.steps()

    @property
    def alike(self) -> tuple["Box", ...]:
        """The box and those that are drawn by it."""
        return (self, *self.others)

    def drawn(self) -> Iterator[tuple["Box", list["Box"]]]:
        """Each box in it with all that this box stands for: its repetitions, and those in repetitions around it."""
        yield from self._drawn(list(self.alike))

    def _drawn(self, copies: list["Box"]) -> Iterator[tuple["Box", list["Box"]]]:
        yield self, copies
        for i, box in enumerate(self.inner):
            yield from box._drawn([each for copy in copies for each in copy.inner[i].alike])

    @property
    def parameters(self) -> int:
        return sum({key: size for step in self.steps() for key, size in step.parameters.items()}.values())

    @property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps())


@dataclass(frozen=True)
class Edge:
    """`target`, a leaf, reads what the leaf `source` wrote, as `shape` (without N)."""

    source: Box
    target: Box
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Sketch:
    """`boxes` are the input, a frame a stage, the head and the answer; edges lead from leaf to leaf."""

    boxes: list[Box]
    edges: list[Edge]


def sketch(graph: Graph, shape: Sequence[int]) -> Sketch:
    """The boxes and edges of `graph` on an input of `shape` (in_channels, *spatial)."""
    tree = _Tree(graph)
    start, end = Box(None, "end", ["input"]), Box(None, "end", ["answer"])
    for frame in tree.frames:
        frame.inner = tree.reduced(frame)
    # a class with something beside it in one stage is a block; one that always fills a stage is just the stage
    blocks = {box.call.kind for frame in tree.frames if len(frame.inner) > 1 for box in frame.inner if box.call}
    for frame in tree.frames:
        tree.flatten(frame, blocks)
    stages = Box(None, inner=tree.frames)
    tree.fold(stages, most=1)
    boxes = [start, *stages.inner, end]
    order = {leaf: i for i, leaf in enumerate(leaf for box in boxes for leaf in box.leaves())}
    edges: dict[tuple[Box, Box], Edge] = {}
    for step in graph.steps:
        target = tree.leaf(step)
        for source, seen in step.reads:
            edge = Edge(tree.leaf(source) if source else start, target, _shape(source, seen))
            # what a repeated block reads of its own kind would lead back
            if order[edge.source] < order[target]:
                edges.setdefault((edge.source, target), edge)
    last = graph.steps[-1]
    edges[tree.leaf(last), end] = Edge(tree.leaf(last), end, last.shape)
    return Sketch(boxes, list(edges.values()))


class _Tree:
    """Frames of modules around leaves, while they are brought together."""

    def __init__(self, graph: Graph) -> None:
        self.of: dict[Step, Box] = {}
        self.stages = [shape for shape, _ in graph.stages]
        self.time = {step: i for i, step in enumerate(graph.steps)}
        self.merged: dict[Box, Box] = {}
        self.sources: dict[Box, set[Box]] = {}
        self.targets: dict[Box, set[Box]] = {}
        found: dict[tuple[object, ...], Box] = {}
        for step in graph.steps:
            leaf = self._place(step, found)
            self.sources.setdefault(leaf, set())
            self.targets.setdefault(leaf, set())
            for source, _ in step.reads:
                if source and self.of[source] is not leaf:
                    self.sources[leaf].add(self.of[source])
                    self.targets[self.of[source]].add(leaf)
        for leaf in self.sources:
            leaf.kind, leaf.words = kind_of(leaf.own), words_of(leaf.call, leaf.own)
        self.frames = [box for path, box in found.items() if len(path) == 1]

    def _place(self, step: Step, found: dict[tuple[object, ...], Box]) -> Box:
        """The leaf of the step: a call of a layer, or the operation alone; in a frame a call, in one a stage."""
        calls: list[Call] = []
        call: Call | None = step.call
        while call is not None and call.name:
            calls.insert(0, call)
            call = call.outer
        layer = next((call for call in calls if call.leaf), None)
        blocks = [call for call in calls[: calls.index(layer) if layer else None] if not call.container]
        path: tuple[object, ...] = (step.stage,)
        outer = found.setdefault(path, Box(None))
        for call in blocks:
            path = (*path, call)
            if path not in found:
                found[path] = Box(call)
                outer.inner.append(found[path])
            outer = found[path]
        path = (*path, layer or step)
        if path not in found:
            found[path] = Box(layer or step.call, "other")
            outer.inner.append(found[path])
        self.of[step] = found[path]
        found[path].own.append(step)
        return found[path]

    def leaf(self, step: Step) -> Box:
        """The leaf that the step is in by now."""
        box = self.of[step]
        while box in self.merged:
            box = self.merged[box]
        return box

    def reduced(self, frame: Box) -> list[Box]:
        """What the frame holds, frames of one box replaced by it, layers joined with what follows cell by cell."""
        inner: list[Box] = []
        for box in frame.inner:
            if box.inner:
                box.inner = self.reduced(box)
            if box.inner or not self._is_silent(box):
                inner.append(box.inner[0] if len(box.inner) == 1 else box)
        return self._joined(inner)

    def _is_silent(self, leaf: Box) -> bool:
        """Whether a leaf is not worth a word (a sum with a number, say); it then becomes part of what it reads."""
        if leaf.kind == "frame" or leaf.words or len(self.sources[leaf]) != 1:
            return False
        self._merge(next(iter(self.sources[leaf])), [leaf])
        return True

    def _joined(self, inner: list[Box]) -> list[Box]:
        kept: list[Box] = []
        for box in inner:
            before = kept[-1] if kept else None
            leaves = before and "frame" not in (before.kind, box.kind)
            if before and leaves and self._is_chain([before, box]) and _belong(before, box):
                self._merge(before, [box])
                before.words += box.words
                before.kind = before.kind if box.kind == "minor" else box.kind
                continue
            kept.append(box)
        return kept

    def _merge(self, into: Box, boxes: Sequence[Box]) -> None:
        """Make `boxes` part of the leaf `into`."""
        gone = {*boxes, into}
        for box in boxes:
            self.merged[box] = into
            into.own += box.own
        for near in (self.sources, self.targets):
            near[into] = {other for box in gone for other in near[box]} - gone
        for ways, back in ((self.sources, self.targets), (self.targets, self.sources)):
            for other in ways[into]:
                back[other] = back[other] - gone | {into}

    def _is_chain(self, boxes: Sequence[Box]) -> bool:
        """Whether each of these leaves alone reads the one before it, and nothing else."""
        return all(self.targets[a] == {b} and self.sources[b] == {a} for a, b in pairwise(boxes))

    def flatten(self, stage: Box, blocks: set[str]) -> None:
        """Leave one level of frames in a stage; `blocks` are the classes of these frames in any stage."""
        while len(stage.inner) == 1 and stage.inner[0].call and stage.inner[0].inner:
            if stage.inner[0].call.kind in blocks:
                break
            stage.inner = stage.inner[0].inner
        stage.inner = [inner for box in stage.inner for inner in (box.inner if self._is_row(box) else [box])]
        for block in stage.inner:
            parts: list[Box] = []
            for part in block.inner:
                short = len(part.inner) <= 3 and all(not box.inner for box in part.inner)
                if part.inner and short and self._is_chain(part.inner):
                    parts += part.inner
                else:
                    parts.append(self._closed(part) if part.inner else part)
            block.inner = self._joined(parts)

    def _is_row(self, frame: Box) -> bool:
        """Whether the frame holds blocks of one class, each reading what the one before it wrote."""
        blocks = [box for box in frame.inner if box.inner]
        one_class = len({box.call.kind for box in blocks if box.call}) == 1
        return len(blocks) > 1 and one_class and all(self._reads(after, before) for before, after in pairwise(blocks))

    def _reads(self, after: Box, before: Box) -> bool:
        written = set(before.leaves())
        return any(self.sources[leaf] & written for leaf in after.leaves())

    def _closed(self, frame: Box) -> Box:
        """The frame as one leaf with the name of its class."""
        first, *rest = frame.leaves()
        self._merge(first, rest)
        first.own.sort(key=self.time.__getitem__)
        first.call = frame.call
        first.kind = "mix" if kind_of(first.own) == "mix" else "other"
        first.words = [class_words(frame.call)]
        return first

    def fold(self, frame: Box, most: int = 4) -> None:
        """Keep the first of boxes, or of groups of up to `most`, that follow each other and would be drawn alike."""
        for box in frame.inner:
            if box.inner:
                self.fold(box)
        kept: list[Box] = []
        rest = list(frame.inner)
        while rest:
            size, times = max(((size, self._times(rest, size)) for size in range(1, most + 1)), key=_worth)
            if times == 1:
                kept.append(rest.pop(0))
                continue
            units = [rest[i * size : (i + 1) * size] for i in range(times)]
            rest = rest[size * times :]
            first, *others = [unit[0] if size == 1 else Box(None, inner=unit) for unit in units]
            for other in others:
                self.merged.update(zip(other.leaves(), first.leaves(), strict=True))
            first.others = others
            kept.append(first)
        frame.inner = kept

    def _times(self, boxes: list[Box], size: int) -> int:
        """How often the first `size` boxes are repeated, each time reading what the time before wrote."""
        unit, times = [self._seen(box) for box in boxes[:size]], 1
        while len(following := boxes[times * size : (times + 1) * size]) == size:
            before = boxes[(times - 1) * size : times * size]
            linked = self._reads(Box(None, inner=following), Box(None, inner=before))
            if not linked or [self._seen(box) for box in following] != unit:
                break
            times += 1
        return times

    def _seen(self, box: Box) -> tuple[object, ...]:
        """What is equal for boxes that are drawn once; stages, whose shape stands beside them, also in that."""
        stage = next(box.steps()).stage if box in self.frames else len(self.stages)
        return (*_look(box), *self.stages[stage : stage + 1])


def _shape(source: Step | None, seen: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to write at an edge: as it was written, without axes of one cell that only the operation had."""
    if source is None or math.prod(source.shape) != math.prod(seen):
        return seen
    same = [n for n in source.shape if n > 1] == [n for n in seen if n > 1]
    return min(seen, source.shape, key=len) if same else source.shape


def _belong(before: Box, after: Box) -> bool:
    """Whether two leaves in a row are drawn as one: what is done cell by cell joins what it stands beside."""
    return after.kind == "minor" or (before.kind == "minor" and after.kind != "join")


def _worth(found: tuple[int, int]) -> tuple[int, int]:
    """Order of ways to fold: the most boxes first, then the smallest group."""
    size, times = found
    return (size * times if times > 1 else 0, -size)


def _look(box: Box) -> tuple[object, ...]:
    """What is equal for boxes that are drawn alike."""
    return (box.kind, len(box.others), *box.words, *(_look(inner) for inner in box.inner))
