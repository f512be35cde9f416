"""Where the boxes of a drawing go: rows from top to bottom, so that every link leads downwards.

After Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures", IEEE Transactions
SMC 11, 1981: rows by the longest path, lanes through the rows that a link passes, an order within the rows with few
crossings, then places. Places pull a box below the one that it reads, and where two are read, below the one with the
longer path, so that the main path is a straight line and shortcuts run beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

GAP = 16.0
"""Units between two boxes of a row; half where one of the two is a link that passes."""
LANE = 7.0
"""Units that a link which passes a row takes to each side."""
ROW = 20.0
"""Units between two rows,"""
LABELLED = 30.0
"""where a link between them has words on it,"""
LAST = 12.0
"""and before a last row of nothing but ends of links."""
FREE = 16.0
"""Units more where many links meet, so that they can spread."""


@dataclass
class Item:
    """A box of `left` and `right` units beside its axis, `height` units high."""

    left: float
    right: float
    height: float


@dataclass
class Link:
    """From an item to another, by their numbers, leaving and entering `leave` and `enter` units beside the axes."""

    source: int
    target: int
    leave: float = 0.0
    enter: float = 0.0
    labelled: bool = False


@dataclass
class Places:
    """The axis and the top of each item, the points of each link, and the size of all, from (0, 0) on."""

    x: list[float]
    y: list[float]
    routes: list[list[tuple[float, float]]]
    width: float
    height: float


@dataclass(eq=False)
class _Cell:
    """An item, or where a link passes a row."""

    item: int | None
    row: int
    left: float
    right: float
    x: float = 0.0
    above: "list[_Cell]" = field(default_factory=list)
    below: "list[_Cell]" = field(default_factory=list)


def arrange(items: Sequence[Item], links: Sequence[Link]) -> Places:
    """Places for items that are in the order of time: a link leads from an earlier to a later one."""
    rows, paths = _rows(items, links)
    spine = _spine(items, links)
    _order(rows)
    for turn in range(41):
        down = turn % 2 == 0
        for row in rows if down else rows[::-1]:
            _shift(row, [_wish(cell, down, spine) for cell in row])
    for path in paths:
        _straighten(path[1:-1], rows)
    for row in rows:
        _shift(row, [(cell.x, 10.0 if cell.item is None else 1000.0) for cell in row])
    return _measure(items, links, rows, paths)


def _rows(items: Sequence[Item], links: Sequence[Link]) -> tuple[list[list[_Cell]], list[list[_Cell]]]:
    """The cells of each row, and the cells that each link leads through, its ends included."""
    row = [0] * len(items)
    for target in range(len(items)):
        row[target] = max((row[link.source] + 1 for link in links if link.target == target), default=0)
    cells = [_Cell(i, row[i], item.left, item.right) for i, item in enumerate(items)]
    rows: list[list[_Cell]] = [[] for _ in range(max(row) + 1)]
    for cell in cells:
        rows[cell.row].append(cell)
    paths: list[list[_Cell]] = []
    for link in links:
        path = [cells[link.source]]
        for passed in range(row[link.source] + 1, row[link.target]):
            path.append(_Cell(None, passed, LANE, LANE))
            rows[passed].append(path[-1])
        path.append(cells[link.target])
        for upper, lower in pairwise(path):
            upper.below.append(lower)
            lower.above.append(upper)
        paths.append(path)
    return rows, paths


def _spine(items: Sequence[Item], links: Sequence[Link]) -> list[int]:
    """The length of the longest path through each item."""
    before, after = [0] * len(items), [0] * len(items)
    for target in range(len(items)):
        before[target] = max((before[link.source] + 1 for link in links if link.target == target), default=0)
    for source in reversed(range(len(items))):
        after[source] = max((after[link.target] + 1 for link in links if link.source == source), default=0)
    return [a + b for a, b in zip(before, after, strict=True)]


def _order(rows: list[list[_Cell]]) -> None:
    """Order each row by the mean place of its neighbours, downwards and upwards; the best of several rounds stays."""
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for turn in range(6):
        if not fewest:
            break
        for row in rows if turn % 2 == 0 else rows[::-1]:
            place = {cell: i for other in rows for i, cell in enumerate(other)}

            def mean(cell: _Cell, place: dict[_Cell, int] = place, down: bool = turn % 2 == 0) -> float:
                near = cell.above if down else cell.below
                return sum(place[other] for other in near) / len(near) if near else place[cell]

            row.sort(key=mean)
        if (crossings := _crossings(rows)) < fewest:
            best, fewest = [list(row) for row in rows], crossings
    rows[:] = best


def _crossings(rows: list[list[_Cell]]) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        place = {cell: i for i, cell in enumerate(lower)}
        ends = [(i, place[other]) for i, cell in enumerate(upper) for other in cell.below]
        total += sum(a[0] < b[0] and a[1] > b[1] for a in ends for b in ends)
    return total


def _wish(cell: _Cell, down: bool, spine: list[int]) -> tuple[float, float]:
    """Where a cell would like to be, and how much."""
    near = cell.above if down else cell.below
    if not near:
        return cell.x, 0.1
    if cell.item is None:  # a lane runs straight, below what it comes from
        return (near[0].x, 4.0) if near[0].item is None else (near[0].x if down else cell.x, 0.05)
    boxes = [other for other in near if other.item is not None]
    if not boxes:
        return sum(other.x for other in near) / len(near), 0.2
    longest = max(spine[other.item or 0] for other in boxes)
    main = [other.x for other in boxes if len(boxes) > 2 or spine[other.item or 0] == longest]
    return (min(main) + max(main)) / 2, 1000.0 if spine[cell.item] == longest else 1.0


def _straighten(lane: Sequence[_Cell], rows: list[list[_Cell]]) -> None:
    """Make a lane one straight line, outside of what any of its cells lies outside of."""
    if lane:
        boxes = [cell.x for passed in lane for cell in rows[passed.row] if cell.item is not None]
        outer = max if not boxes or sum(cell.x for cell in lane) / len(lane) >= sum(boxes) / len(boxes) else min
        place = outer(cell.x for cell in lane)
        for cell in lane:
            cell.x = place


def _shift(row: list[_Cell], wishes: list[tuple[float, float]]) -> None:
    """The places nearest to the wishes (weighted squares) in which no two cells touch: isotonic regression."""
    offsets = [0.0]
    for before, after in pairwise(row):
        offsets.append(offsets[-1] + before.right + GAP / (2 if None in (before.item, after.item) else 1) + after.left)
    blocks: list[tuple[float, float, int]] = []
    for (wish, weight), offset in zip(wishes, offsets, strict=True):
        block = (wish - offset, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, mass, count = blocks.pop()
            total = mass + block[1]
            block = ((mean * mass + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for cell, mean, offset in zip(row, means, offsets, strict=True):
        cell.x = mean + offset


def _measure(items: Sequence[Item], links: Sequence[Link], rows: list[list[_Cell]], paths: list[list[_Cell]]) -> Places:
    left = min(cell.x - cell.left for row in rows for cell in row)
    right = max(cell.x + cell.right for row in rows for cell in row)
    heights = [max((items[cell.item].height for cell in row if cell.item is not None), default=0.0) for row in rows]
    wide = {paths[i][0].row for i, link in enumerate(links) if link.labelled}
    # of three or more links that meet, the outer ones bend over the labels of the inner ones: they bend below them
    free = [
        FREE if i in wide and any(len(cell.above) > 2 for cell in below) else 0.0 for i, below in enumerate(rows[1:])
    ]
    tops = [0.0]
    for i, height in enumerate(heights[:-1]):
        border = i + 2 == len(rows) and not heights[-1]
        tops.append(tops[-1] + height + (FREE + ROW if free[i] else LAST if border else LABELLED if i in wide else ROW))
    bottoms = [top + height + below for top, height, below in zip(tops, heights, [*free, 0.0], strict=True)]
    at = {cell.item: cell for row in rows for cell in row if cell.item is not None}
    x = [at[i].x - left for i in range(len(items))]
    y = [tops[at[i].row] for i in range(len(items))]
    routes = []
    for link, path in zip(links, paths, strict=True):
        start, end = x[link.source] + link.leave, x[link.target] + link.enter
        points = [
            (start, y[link.source] + items[link.source].height),
            (start, bottoms[path[0].row]),
        ]
        for cell in path[1:-1]:
            points += [(cell.x - left, tops[cell.row]), (cell.x - left, bottoms[cell.row])]
        routes.append([*points, (end, y[link.target])])
    return Places(x, y, routes, right - left, tops[-1] + heights[-1])
