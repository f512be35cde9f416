"""Slices that lie anywhere in space, put into their order: sorted along their normal, and known to be evenly spaced.

Positions and directions are DICOM's: mm, x to the patient's left, y to the back, z to the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data.orientation import usable

UNEVEN = 0.05  # share of the distance between slices by which one may differ
SAME_PLACE = 1e-3  # mm
LPS_TO_RAS = np.array([[-1.0], [-1.0], [1.0]])


@dataclass(frozen=True)
class Place:
    """Where parallel slices lie: the directions in which columns and rows count up (6), mm from row to row and from
    column to column, and the first pixel of each slice (3).
    """

    plane: tuple[float, ...]
    pixel: tuple[float, float]
    positions: tuple[tuple[float, ...], ...]


def in_order(path: str, names: Sequence[str], place: Place) -> tuple[list[int], np.ndarray]:
    """The order of slices along their normal, and the steps of (slice, row, column) for `orientation.upright`.

    A missing, doubled or displaced slice is a `ReadError` of `path` that names it.
    """
    plane, pixel, positions = place.plane, place.pixel, place.positions
    right, down = np.array(plane[:3]), np.array(plane[3:])
    normal = np.cross(right, down)
    if not usable(np.stack([normal, down, right], 1)):
        raise ReadError(path, f"its orientation makes no sense: {', '.join(f'{v:g}' for v in plane)}")
    normal /= np.linalg.norm(normal)
    along = [float(np.dot(position, normal)) for position in positions]
    order = sorted(range(len(along)), key=lambda i: along[i])
    gaps = [along[b] - along[a] for a, b in pairwise(order)]
    usual = median_low(gaps)  # of a gap and a double one the single one
    for (a, b), gap in zip(pairwise(order), gaps, strict=True):
        if gap < SAME_PLACE:
            raise ReadError(path, f"{names[a]} and {names[b]} lie at the same place: several volumes, or copies?")
        if abs(gap - usual) > max(UNEVEN * usual, 10 * SAME_PLACE):
            raise ReadError(
                path,
                f"its slices are not evenly spaced: {gap:.4g} mm from {names[a]} to {names[b]}, {usual:.4g} mm as a "
                f"rule{' (is a slice missing?)' if gap > usual else ''}",
            )
    # the mean, not the median: positions are rounded, and so the whole has its right length
    step = (along[order[-1]] - along[order[0]]) / (len(order) - 1)
    return order, LPS_TO_RAS * np.stack([normal * step, down * pixel[0], right * pixel[1]], 1)
