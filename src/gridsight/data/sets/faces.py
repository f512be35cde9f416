"""Faces: line drawings under a small grammar whose words mean nothing by themselves, (1, 48, 48) uint8; computed here.

    stroke: an arc, a bar or a dark spot
    eye:    two arcs that close around a spot           false eye: the same two arcs and spot, put together otherwise
    nose:   two bars with a common corner               mouth:     an arc and the bar that closes it
    face:   two eyes above a nose above a mouth         scrambled: the same parts in the same four places, exchanged

The four classes are eyes or false eyes, in order or exchanged ("neither": false eyes, exchanged), so that all have the
same strokes, and a label needs both how strokes make an eye and how eyes make a face. Tilt, size, place, the shape of
eyes, contrast, brightness, noise and a few loose strokes around it are random.

`scenes` gives pictures with the truth: which cells hold which stroke, part and whole. It is what unit searches
(`measure/units.py`) ask networks for: does anything inside find eyes, which no label names?
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gridsight.data.sample import Header, Sample
from gridsight.data.sets import SETS
from gridsight.data.sets._simulated import Draws, simulated
from gridsight.data.source import Source

CELLS = 48
CLASSES = ("face", "false eyes", "neither", "scrambled")
CONCEPTS = ("arc", "bar", "spot", "eye", "false eye", "mouth", "nose", "face")
SLOTS = ((-8.5, -8.0), (-8.5, 8.0), (1.5, 0.0), (11.5, 0.0))  # (row, column) of two eyes, nose and mouth, in cells
MIDDLE, HALF = np.array([1.5, 0.0]), np.array([15.5, 13.5])  # all strokes lie within MIDDLE +- HALF
WIDTH, EYE = 1.4, 4.5  # of a stroke; half of an eye's
LOOSE = (4, 10)  # loose strokes tried; about a third finds room

_CELLS = np.indices((CELLS, CELLS)).reshape(2, -1).T.astype(np.float64)  # (cells, 2)
_BORDER = ((_CELLS == 0) | (_CELLS == CELLS - 1)).any(1)


@dataclass(frozen=True)
class Stroke:
    """An arc or bar from (0, -half) to (0, half), the arc's top at (-rise, 0); or a spot of radius `half` around 0.

    Turned by `turn` (radians, clockwise as seen), then moved to `at`; (row, column), in cells.
    """

    kind: Literal["arc", "bar", "spot"]
    at: tuple[float, float]
    half: float
    turn: float = 0.0
    rise: float = 0.0

    def distance(self, p: np.ndarray) -> np.ndarray:
        """Of points (n, 2) to the line; to the edge of a spot, negative inside."""
        y, x = ((p - self.at) @ rotation(self.turn)).T
        ends = np.hypot(y, np.abs(x) - self.half)
        if self.kind == "spot":
            return np.hypot(y, x) - self.half
        if self.kind == "bar":
            return np.where(np.abs(x) < self.half, np.abs(y), ends)
        radius = (self.half**2 + self.rise**2) / (2 * self.rise)
        down = radius - self.rise  # the centre lies at (down, 0)
        # within the sector between the lines from the centre to both ends the circle is nearest
        inside = np.abs(x) * down < self.half * (down - y)
        return np.where(inside, np.abs(np.hypot(y - down, x) - radius), ends)


def rotation(turn: float) -> np.ndarray:
    """(2, 2): rows times this are rows in the frame turned by `turn`."""
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array([[cos, -sin], [sin, cos]])


Part = tuple[str, tuple[Stroke, ...]]
"""A concept with its strokes around (0, 0)."""


def eye(rise: float) -> Part:
    """Two arcs that close around a spot."""
    return "eye", (
        Stroke("arc", (0, 0), EYE, 0, rise),
        Stroke("arc", (0, 0), EYE, np.pi, rise),
        Stroke("spot", (0, 0), 1.3),
    )


def false_eye(rise: float, way: int) -> Part:
    """The strokes of `eye`: 0 arcs back to back, 1 one above the other, 2 and 3 the spot above or below both."""
    if way == 0:
        upper, lower, spot = (-rise - 2.2, np.pi), (rise + 2.2, 0.0), 0.0
    elif way == 1:
        upper, lower, spot = (-1.4, 0.0), (rise + 1.4, 0.0), -0.9
    else:
        upper, lower, spot = (0.0, 0.0), (0.0, np.pi), (rise + 2.2) * (-1 if way == 2 else 1)
    arcs = tuple(Stroke("arc", (row, 0), EYE, turn, rise) for row, turn in (upper, lower))
    return "false eye", (*arcs, Stroke("spot", (spot, 0), 1.3))


def nose(side: int) -> Part:
    """Two bars with a common corner, its foot to the left (-1) or right (1)."""
    return "nose", (Stroke("bar", (0, 0), 3.2, np.pi / 2), Stroke("bar", (3.2, 1.8 * side), 1.8))


def mouth() -> Part:
    """An arc and the bar that closes it."""
    return "mouth", (Stroke("bar", (-1.5, 0), 4.8), Stroke("arc", (-1.5, 0), 4.8, np.pi, 3.2))


@dataclass(frozen=True)
class Scene:
    """`picture` (1, 48, 48) uint8, its `label`, and `truth` (8, 48, 48) uint8: a plane for each of `CONCEPTS`, in
    which the cells of instance 1, 2, ... have that number; a stroke has those it darkens by half or more, a part and a
    face all in the upright box around their strokes."""

    picture: np.ndarray
    label: str
    truth: np.ndarray


def scene(index: int, seed: int = 0) -> Scene:
    """Scene `index` of `seed`; seed 0 is the named set."""
    draws = Draws(f"faces {seed}", index)
    what = draws.uniform("what", 5)
    in_order, real = what[0] < 0.5, what[1] < 0.5
    label = ("face" if real else "false eyes") if in_order else ("scrambled" if real else "neither")
    rise, way = EYE * (0.55 + 0.2 * what[2]), int(what[3] * 4)
    pair = eye(rise) if real else false_eye(rise, way)
    parts = [pair, pair, nose(1 if what[4] < 0.5 else -1), mouth()]
    if not in_order:
        parts = _exchanged(parts, draws)

    size, turned = draws.uniform("size", 1, 0.9, 1.15)[0], rotation(draws.uniform("tilt", 1, -0.2, 0.2)[0])
    room = CELLS / 2 - 1 - size * (np.abs(turned) @ HALF)
    centre = (CELLS - 1) / 2 + room * draws.uniform("place", 2, -1.0, 1.0) - size * MIDDLE @ turned.T
    frame = (_CELLS - centre) @ turned / size

    ink, truth = np.zeros(len(_CELLS)), np.zeros((len(CONCEPTS), len(_CELLS)), np.uint8)
    strength = iter(draws.uniform("strength", 10 + LOOSE[1], 0.75, 1.0))
    occupied = np.zeros(len(_CELLS), bool)
    for (name, strokes), slot in zip(parts, SLOTS, strict=True):
        together = np.zeros(len(_CELLS), bool)
        for stroke in strokes:
            # lines are as wide in large pictures as in small ones
            dark = _dark(stroke, size * stroke.distance(frame - slot))
            _number(truth, stroke.kind, dark >= 0.5)
            ink, together = np.maximum(ink, dark * next(strength)), together | (dark >= 0.5)
        _number(truth, name, box := _box(together))
        occupied |= box
    if label == "face":
        _number(truth, "face", _box(occupied))

    for stroke in _loose(draws):
        dark = _dark(stroke, stroke.distance(_CELLS))
        around = _box(dark > 0, 1)
        if not (around & (occupied | _BORDER)).any():
            occupied |= around
            _number(truth, stroke.kind, dark >= 0.5)
            ink = np.maximum(ink, dark * next(strength))

    bright = draws.uniform("bright", 1, 0.55, 0.85) + (_CELLS / CELLS - 0.5) @ draws.uniform("slope", 2, -0.15, 0.15)
    noise = draws.uniform("coarse", 1, 0.03, 0.08) * draws.normal("noise", len(_CELLS))
    values = bright - draws.uniform("contrast", 1, 0.25, 0.5) * ink + noise
    picture = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    return Scene(picture.reshape(1, CELLS, CELLS), label, truth.reshape(-1, CELLS, CELLS))


def scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (count, 1, 48, 48) uint8, numbers of their classes (count,) and truth (count, 8, 48, 48) uint8."""
    made = [scene(i, seed) for i in range(count)]
    classes = np.array([CLASSES.index(one.label) for one in made], np.int64)
    return np.stack([one.picture for one in made]), classes, np.stack([one.truth for one in made])


def _exchanged(parts: list[Part], draws: Draws) -> list[Part]:
    """The parts in another order: any of the eleven (both eyes are alike) is as likely."""
    orders = [(a, b) for a in range(4) for b in range(4) if a != b and (a, b) != (2, 3)]  # slots of nose and mouth
    at_nose, at_mouth = orders[int(draws.uniform("order", 1)[0] * len(orders))]
    placed = [parts[0]] * 4
    placed[at_nose], placed[at_mouth] = parts[2], parts[3]
    return placed


def _loose(draws: Draws) -> list[Stroke]:
    """Strokes anywhere; the caller leaves out those that would touch anything."""
    count = LOOSE[0] + int(draws.uniform("count", 1)[0] * (LOOSE[1] - LOOSE[0] + 1))
    kind, row, column, turn, half, rise = draws.uniform("loose", 6 * count).reshape(6, count)
    strokes = []
    for i in range(count):
        at, angle = (CELLS * row[i] - 0.5, CELLS * column[i] - 0.5), 2 * np.pi * turn[i]
        length = 3.5 + 1.5 * half[i]
        if kind[i] < 1 / 3:
            strokes.append(Stroke("spot", at, 1.2 + 0.3 * half[i]))
        elif kind[i] < 2 / 3:
            strokes.append(Stroke("bar", at, length, angle))
        else:
            strokes.append(Stroke("arc", at, length, angle, length * (0.55 + 0.2 * rise[i])))
    return strokes


def _dark(stroke: Stroke, distance: np.ndarray) -> np.ndarray:
    """How much of each cell the stroke covers, 0 to 1."""
    return np.clip(0.5 + (0 if stroke.kind == "spot" else WIDTH / 2) - distance, 0, 1)


def _number(truth: np.ndarray, concept: str, cells: np.ndarray) -> None:
    """Give the cells (n,) bool the next number in the concept's plane."""
    plane = truth[CONCEPTS.index(concept)]
    plane[cells] = plane.max() + 1


def _box(cells: np.ndarray, margin: int = 0) -> np.ndarray:
    """(n,) bool: all cells in the upright box around these, `margin` wider at each side."""
    grid = cells.reshape(CELLS, CELLS)
    box = np.zeros_like(grid)
    rows, columns = np.flatnonzero(grid.any(1)), np.flatnonzero(grid.any(0))
    if len(rows):
        top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
        box[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1] = True
    return box.ravel()


def _sample(index: int) -> Sample:
    made = scene(index)
    return Sample(made.picture, f"faces[{index}]", made.label)


@SETS.register("faces", licence="computed", paper="gridsight's own simulator", items=7000)
def faces(train: int = 6000, test: int = 1000) -> Source:
    """`train` and `test` scenes; any item is the same whatever the numbers."""
    return simulated("faces", __file__, _sample, Header(1, (CELLS, CELLS), "uint8"), train, test)
