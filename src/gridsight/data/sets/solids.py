"""Solids: six bodies under any rotation in noise, (1, 28, 28, 28) uint8; computed here, no files.

Cone, cube, cylinder, sphere, tetrahedron and torus of equal volume, so that none is told by how much of it there is.
Size (the radius of the sphere of that volume, 3.8 to 5.4 cells), place (2.5 cells to any side), brightness and noise
are random. Rotations are uniform over all (Haar). A cell's value is how much of it lies inside, told by its distance
to the surface.
"""

import numpy as np

from gridsight.data.sample import Header, Sample
from gridsight.data.sets import SETS
from gridsight.data.sets._simulated import Draws, rotation, simulated
from gridsight.data.source import Source

CELLS = 28
CLASSES = ("cone", "cube", "cylinder", "sphere", "tetrahedron", "torus")
SPHERE = 4 * np.pi / 3  # volume of every body below, at size 1


def distance(body: str, p: np.ndarray) -> np.ndarray:
    """About the distance of points (3, n) to the surface, negative inside; exact near the middle of each face."""
    x, y, z = p
    across = np.hypot(x, y)
    if body == "sphere":
        return np.hypot(across, z) - 1
    if body == "cube":
        return np.abs(p).max(0) - SPHERE ** (1 / 3) / 2
    if body == "cylinder":  # as high as it is wide
        return np.maximum(across, np.abs(z)) - (SPHERE / (2 * np.pi)) ** (1 / 3)
    if body == "torus":  # a tube of 0.4 times the ring's radius
        ring = (SPHERE / (2 * np.pi**2 * 0.16)) ** (1 / 3)
        return np.hypot(across - ring, z) - 0.4 * ring
    if body == "cone":  # as high as its base is wide; its centre of mass a quarter above the base
        base = (3 * SPHERE / (2 * np.pi)) ** (1 / 3)
        side = (2 * (across - base) + z + base / 2) / np.sqrt(5)
        return np.maximum(side, -z - base / 2)
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    edge = (6 * np.sqrt(2) * SPHERE) ** (1 / 3)
    return (-corners @ p).max(0) - edge / (2 * np.sqrt(6))


def solid(index: int) -> Sample:
    """Item `index` with its label."""
    draws = Draws("solids", index)
    body = CLASSES[int(draws.uniform("body", 1)[0] * len(CLASSES))]
    size, bright, noise = draws.uniform("how", 3, (3.8, 0.3, 0.1), (5.4, 0.6, 0.2))
    centre = (CELLS - 1) / 2 + draws.uniform("where", 3, -2.5, 2.5)
    cells = np.indices((CELLS,) * 3).reshape(3, -1) - centre[:, None]
    inside = np.clip(0.5 - size * distance(body, rotation(draws.uniform("turn", 3)) @ cells / size), 0, 1)
    values = 0.25 + bright * inside + noise * draws.normal("noise", inside.size)
    array = np.rint(255 * values.clip(0, 1)).astype(np.uint8).reshape(1, CELLS, CELLS, CELLS)
    return Sample(array, f"solids[{index}]", body)


@SETS.register("solids", licence="computed", paper="gridsight's own simulator", items=1600)
def solids(train: int = 1200, test: int = 400) -> Source:
    """`train` and `test` solids; any item is the same whatever the numbers."""
    return simulated("solids", __file__, solid, Header(1, (CELLS,) * 3, "uint8"), train, test)
