"""A network as one SVG drawing: stages with their shapes and what they cost, blocks, branches and shortcuts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from gridsight.measure.graph import Graph
from gridsight.reporting.layout import Item, Link, arrange
from gridsight.reporting.naming import JOINS, is_minor, times
from gridsight.reporting.sketch import Box, Edge, sketch
from gridsight.reporting.svg import FONT, SMALL, along, group, rect, route, short, style, text, wide

KINDS = {
    "conv": "convolution",
    "linear": "linear",
    "pool": "pool",
    "mix": "attention, recurrence",
    "join": "paths meet",
}
PAD = 12.0
GUTTER = 196.0


def draw(graph: Graph, name: str, shape: Sequence[int], totals: Mapping[str, int]) -> str:
    """The drawing of `graph` on an input of `shape` (in_channels, *spatial); `totals` has parameters and macs."""
    found = sketch(graph, shape)
    return _Drawing(graph, found.edges, totals, tuple(shape)).svg(found.boxes, name)


@dataclass
class _Part:
    """A box with its size, and where along it links enter (by the leaf that they come from) and leave (by theirs)."""

    box: Box
    left: float
    right: float
    height: float
    svg: str
    enter: dict[Box, float] = field(default_factory=dict)
    leave: dict[Box, float] = field(default_factory=dict)


class _Drawing:
    def __init__(self, graph: Graph, edges: list[Edge], totals: Mapping[str, int], shape: tuple[int, ...]) -> None:
        self.graph, self.edges, self.totals, self.shape = graph, edges, totals, shape
        self.reads: dict[Box, list[Edge]] = {}
        self.written: dict[Box, tuple[int, ...]] = {}
        self.copies: dict[Box, list[Box]] = {}
        for edge in edges:
            self.reads.setdefault(edge.target, []).append(edge)
            wrote = edge.source.own[-1].shape if edge.source.own else edge.shape
            if len(shape) == 2 and len(wrote) == 3:  # PyTorch pools a line as a plane of one row
                wrote = tuple(n for i, n in enumerate(wrote) if i != 1 or n > 1)
            # readers may have seen parts of it
            whole = math.prod(edge.shape) >= math.prod(wrote)
            self.written.setdefault(edge.source, wrote)
            if whole:
                self.written[edge.source] = edge.shape

    def svg(self, boxes: list[Box], name: str) -> str:
        """The whole drawing: a head, then a panel a stage with its figures beside it."""
        self.copies = {inner: copies for box in boxes for inner, copies in box.drawn()}
        parts = [self.stage(box) if box.inner else self.leaf(box, 0) for box in boxes]
        body = self.compose(parts, {leaf: i for i, box in enumerate(boxes) for leaf in box.leaves()}, ports=False)
        left = min(body.x[i] - part.left for i, part in enumerate(parts)) - PAD
        right = max(body.x[i] + part.right for i, part in enumerate(parts)) + PAD
        answer = times(self.graph.steps[-1].shape)
        title = f"{name}: {times(self.shape)} to {answer}"
        parameters, used = self.totals["parameters"], Box(None, own=list(self.graph.steps)).parameters
        facts = f"{short(parameters)} parameters, {short(self.totals['macs'])} multiply-accumulates (MACs)"
        facts += f"; {short(parameters - used)} of the parameters in training alone" if used < parameters else ""
        legend = [kind for kind in KINDS if any(leaf.kind == kind for box in boxes for leaf in box.leaves())]
        keys = self.legend(legend)
        top = 92.0 if keys else 66.0
        heads = [wide(title, 17) * 1.06, wide(facts, FONT), sum(wide(KINDS[kind], SMALL) + 42 for kind in legend)]
        width = max(GUTTER + right - left + PAD, *(2 * PAD + head for head in heads))
        height = top + body.height + PAD
        panels = []
        for i, (box, part) in enumerate(zip(boxes, parts, strict=True)):
            if box.inner:
                y = body.y[i]
                panels += [
                    rect(left + offset, y + offset, right - left, part.height, "card frame", 8)
                    for offset in ((4, 0) if box.others else (0,))
                ]
                panels.append(group(-GUTTER + left + PAD, y, self.figures(box)))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" font-family="system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif" '
            f'font-size="{FONT:g}">'
            f"<title>{escape(title)}</title><desc>{escape(facts)}</desc>"
            + style(("frame", *KINDS, "other"))
            + f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>'
            + text(PAD, 28, title, "ink b", 17)
            + text(PAD, 48, facts, "soft")
            + group(PAD, 64, keys)
            + group(GUTTER - left, top, "".join(panels) + body.svg)
            + "</svg>\n"
        )

    def legend(self, kinds: Sequence[str]) -> str:
        """What the colours mean."""
        drawn, x = "", 0.0
        for kind in kinds:
            drawn += rect(x, 0, 18, 12, kind, 3) + text(x + 24, 10, KINDS[kind], "soft", SMALL)
            x += 24 + wide(KINDS[kind], SMALL) + 18
        return drawn

    def figures(self, box: Box) -> str:
        """The figures of a stage or of several equal ones, with bars for their share of parameters and MACs."""
        first, last = (next(each.steps()).stage for each in (box, box.alike[-1]))
        lines = [("Head", "ink b", FONT)]
        if last < len(self.graph.stages):
            shape, field = self.graph.stages[last]
            name = f"Stages {first + 1} to {last + 1} (× {len(box.alike)})" if box.others else f"Stage {first + 1}"
            lines = [(name, "ink b", FONT), (times(shape), "ink", FONT)]
            sees = "all" if None in field.size else " × ".join(f"{n:,}" for n in _same(field.size))
            figures = [f"receptive field {sees}"]
            if None not in field.jump:
                figures.append(f"jump {' × '.join(map(str, _same(field.jump)))}")
            one_line = wide(", ".join(figures), SMALL) < GUTTER - 2 * PAD
            lines += [(line, "soft", SMALL) for line in ([", ".join(figures)] if one_line else figures)]
        drawn, y = "", 19.0
        for line, kind, size in lines:
            drawn += text(0, y, line, kind, size)
            y += 16
        for what, value in (
            ("parameters", sum(each.parameters for each in box.alike)),
            ("MACs", sum(each.macs for each in box.alike)),
        ):
            share = value / max(self.totals[what.lower()], 1)
            drawn += text(0, y, f"{short(value)} {what}, {100 * share:.2g} %", "soft", SMALL)
            drawn += rect(0, y + 4, max(1.0, share * (GUTTER - 3 * PAD)), 3, "bar", 1.5)
            y += 26
        return drawn

    def stage(self, box: Box) -> _Part:
        """A stage without its panel, which is as wide as the widest."""
        parts = [self.part(inner, 0) for inner in box.inner]
        return self._framed(box, parts, least=110.0, side="", margin=0.0)

    def part(self, box: Box, depth: int) -> _Part:
        return self.block(box) if box.inner else self.leaf(box, depth)

    def block(self, box: Box) -> _Part:
        """A frame with its name and figures to the right."""
        heads = [box.call.kind if box.call else "repeated"]
        copies = self.copies[box]
        names = [each.call.name for each in copies if each.call]
        if box.others:
            heads[0] += f" × {len(box.alike)}"
        lines = [names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"] if names else []
        for what, values in (
            ("parameters", [each.parameters for each in copies]),
            ("MACs", [each.macs for each in copies]),
        ):
            lines.append(_figure(what, values))
        side = text(0, 0, heads[0], "ink b") + "".join(
            text(0, 17 + 15 * i, line, "soft", SMALL) for i, line in enumerate(lines)
        )
        beside = max(wide(heads[0], FONT + 1), *(wide(line, SMALL) for line in lines))
        parts = [self.part(inner, 1) for inner in box.inner]
        return self._framed(box, parts, least=30 + 15.0 * len(lines), side=side, margin=PAD, beside=beside)

    def _framed(
        self, box: Box, parts: list[_Part], least: float, side: str, margin: float, beside: float = 0.0
    ) -> _Part:
        body = self.compose(
            parts, {leaf: i for i, inner in enumerate(box.inner) for leaf in inner.leaves()}, True, least
        )
        width = 2 * margin + body.width + (beside + margin if side else 0)
        axis = margin + (next(iter(body.enter.values())) if body.enter else body.width / 2)
        drawn = group(margin, 0, body.svg)
        if side:
            drawn += group(2 * margin + body.width, 24, side)
            stack = rect(4, 4, width, body.height, "block frame", 6) if box.others else ""
            drawn = stack + rect(0, 0, width, body.height, "block frame", 6) + drawn
        enter = {leaf: margin + x - axis for leaf, x in body.enter.items()}
        leave = {leaf: margin + x - axis for leaf, x in body.leave.items()}
        return _Part(box, axis, width - axis, body.height, drawn, enter, leave)

    def leaf(self, box: Box, depth: int) -> _Part:
        """A layer or operation."""
        lines = _wrapped(box.words)
        notes = []
        copies = self.copies[box]
        if depth == 0 and box.parameters and box.kind != "end":
            notes = [_figure("parameters", [each.parameters for each in copies])]
            macs = _figure("MACs", [each.macs for each in copies])
            notes = [f"{notes[0]}, {macs}"] if len(copies) == 1 else [*notes, macs]
        width = max(64.0, *(wide(line, FONT) + 18 for line in lines), *(wide(note, SMALL) + 18 for note in notes))
        height = 9 + 16.0 * len(lines) + 14 * len(notes)
        kind = "block frame" if box.kind in ("end", "minor") else box.kind
        drawn = rect(3, 3, width, height, kind, 5) if box.others else ""
        drawn += rect(0, 0, width, height, kind, min(height / 2, 14) if box.kind in ("end", "join") else 5)
        main = next((i for i, line in enumerate(lines) if not is_minor(line)), 0)
        for i, line in enumerate(lines):
            kind, size = ("ink", FONT) if i == main else ("soft", SMALL)
            drawn += text(width / 2, 17 + 16 * i, line, kind, size, "middle")
        for i, note in enumerate(notes):
            drawn += text(width / 2, 16 + 16 * len(lines) + 14 * i, note, "soft", SMALL, "middle")
        more = 0.0
        if box.others:
            drawn += text(width + 8, height / 2 + 5, f"× {len(box.alike)}", "ink b")
            more = 34.0
        if box.kind != "end":
            drawn = f"<g><title>{escape(self.hint(box))}</title>{drawn}</g>"
        return _Part(box, width / 2, width / 2 + more, height, drawn)

    def hint(self, box: Box) -> str:
        """What a viewer shows when the pointer rests on a leaf."""
        copies = self.copies[box]
        names = [each.call.name for each in copies if each.call and each.call.name]
        words = [names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"] if names else []
        figures = [
            _figure("parameters", [each.parameters for each in copies], "{:,}".format),
            _figure("MACs", [each.macs for each in copies], "{:,}".format),
        ]
        words.append(", ".join([*figures, times(box.own[-1].shape)]))
        return ": ".join(words)

    def compose(self, parts: list[_Part], owner: dict[Box, int], ports: bool, least: float = 0.0) -> "_Body":
        """The parts with the links between them, and from and to what lies outside."""
        enter: dict[Box, int] = {}
        leave: dict[Box, int] = {}
        for edge in self.edges:
            if edge.target in owner and edge.source not in owner:
                enter.setdefault(edge.source, len(enter))
            if edge.source in owner and edge.target not in owner and ports:
                leave.setdefault(edge.source, len(leave))
        first, last = len(enter), len(enter) + len(parts)
        links: dict[tuple[int, int, Box], Link] = {}
        labels: dict[int, str] = {}
        for edge in self.edges:
            a, b = owner.get(edge.source), owner.get(edge.target)
            if a == b:
                continue
            source = enter[edge.source] if a is None else first + a
            target = last + leave[edge.source] if b is None else first + b
            labelled = a is not None and b is not None and self._labelled(parts[a], edge, ports)
            link = Link(source, target, labelled=labelled)
            link.leave = parts[a].leave.get(edge.source, 0.0) if a is not None else 0.0
            link.enter = parts[b].enter.get(edge.source, 0.0) if b is not None else 0.0
            links.setdefault((source, target, edge.source), link)
            if labelled:
                labels[source] = times(self.written[edge.source])
        items = [Item(0, 0, 0) for _ in enter]
        joins = {
            link.target for link in links.values() if sum(other.target == link.target for other in links.values()) > 1
        }
        to_join = {link.source for link in links.values() if link.target in joins}
        for i, part in enumerate(parts, first):
            room = wide(labels[i], SMALL) + 12 if i in labels else 0.0
            # where paths meet, the label goes to the side that the others do not come from
            items.append(Item(max(part.left, room if i in to_join else 0.0), max(part.right, room), part.height))
        items += [Item(0, 0, 0) for _ in leave]
        return self._body(parts, items, list(links.values()), labels, (first, last), (enter, leave), least)

    def _labelled(self, part: _Part, edge: Edge, ports: bool) -> bool:
        """Whether the shape is written: at a block and between stages always, within a block where it changed."""
        read = [self.written[before.source] for before in self.reads.get(edge.source, [])]
        return bool(part.box.inner) or not ports or self.written[edge.source] not in read

    def _body(
        self,
        parts: list[_Part],
        items: list[Item],
        links: list[Link],
        labels: dict[int, str],
        ends: tuple[int, int],
        ports: tuple[dict[Box, int], dict[Box, int]],
        least: float,
    ) -> "_Body":
        places = arrange(items, links)
        first, last = ends
        spare = max(0.0, least - places.height)

        def down(y: float) -> float:
            return y if y <= 0 and first else y + spare if y >= places.height else y + spare / 2

        drawn = ""
        routes = [[(x, down(y)) for x, y in points] for points in places.routes]
        for link, points in zip(links, routes, strict=True):
            drawn += route(points)
            if first <= link.target < last and not parts[link.target - first].box.inner:
                x, y = points[-1]
                drawn += f'<path class="soft" d="M{x:.1f} {y:.1f}l-3.5 -6h7z"/>'
        for i, part in enumerate(parts):
            drawn += group(places.x[first + i] - part.left, down(places.y[first + i]), part.svg)
        drawn_at = [point for points in routes for point in along(points)]
        for source, label in labels.items():
            offset = next(iter(parts[source - first].leave.values()), 0.0)
            x, y = places.x[source] + offset, down(places.y[source] + items[source].height) + 12
            across = wide(label, SMALL)
            spots = [(x + 7, y), (x - 7 - across, y)]
            hits = [sum(0 <= px - a <= across and -10 <= py - b <= 3 for px, py in drawn_at) for a, b in spots]
            right = hits[0] <= hits[1]
            drawn_at += [(spots[not right][0] + across * i / 12, y - 4) for i in range(13)]
            drawn += text(x + (7 if right else -7), y, label, "soft halo", SMALL, "start" if right else "end")
        enter = {leaf: places.x[i] for leaf, i in ports[0].items()}
        leave = {leaf: places.x[i + last] for leaf, i in ports[1].items()}
        axes = places.x[first:last]
        tops = [down(y) for y in places.y[first:last]]
        return _Body(drawn, places.width, places.height + spare, axes, tops, enter, leave)


@dataclass
class _Body:
    """Parts with their links: the axis and top of each part, and where links from and to outside cross the border."""

    svg: str
    width: float
    height: float
    x: list[float]
    y: list[float]
    enter: dict[Box, float]
    leave: dict[Box, float]


def _figure(what: str, values: Sequence[int], say: Callable[[int], str] = short) -> str:
    """What one box or several equal ones cost: each where they are equal, else together."""
    if len(values) == 1:
        return f"{say(values[0])} {what}"
    equal = len(set(values)) == 1
    return f"{say(values[0] if equal else sum(values))} {what} {'each' if equal else 'together'}"


def _same(values: Sequence[Any]) -> Sequence[Any]:
    return values[:1] if len(set(values)) == 1 else values


def _wrapped(words: Sequence[str]) -> list[str]:
    """What is done cell by cell shares lines, or that of a sum; all else has a line of its own."""
    lines: list[str] = []
    for word in words:
        short_line = lines and len(lines[-1]) + len(word) < 24
        if short_line and is_minor(word) and (is_minor(lines[-1]) or lines[-1] in JOINS.values()):
            lines[-1] += " · " + word
        else:
            lines.append(word)
    return lines or [""]
