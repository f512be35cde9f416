"""Volumes in one orientation, whatever order their file keeps its axes in.

(C, D, H, W) is: feet to head, back to front, left to right. So rising indices are the patient's superior, anterior and
right: "RAS" of neuroimaging, last axis first. Axes are only swapped and turned round, never interpolated: an oblique
volume keeps its own grid, each axis going to the direction that it is nearest to. What `nibabel.as_closest_canonical`
gives, transposed, unless an axis lies about half way between two directions: there the three are matched together.
"""

from itertools import permutations

import numpy as np


def upright(array: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]]:
    """(C, i, j, k) -> (C, D, H, W) and its spacing in mm an axis.

    `steps` (3, 3): column a is the way in mm (right, front, head) from one cell to the next along array axis a.
    """
    along = np.abs(steps) / np.linalg.norm(steps, axis=0)
    # order[w]: the array axis that goes to world axis w; the best of the six ways in all, not axis by axis
    order = max(permutations(range(3)), key=lambda order: sum(along[w, a] for w, a in enumerate(order)))
    turned = [slice(None, None, -1) if steps[w, a] < 0 else slice(None) for w, a in enumerate(order)]
    out = array.transpose(0, *(1 + order[w] for w in (2, 1, 0)))[:, turned[2], turned[1], turned[0]]
    depth, height, width = (float(np.linalg.norm(steps[:, order[w]])) for w in (2, 1, 0))
    return out, (depth, height, width)


def usable(steps: np.ndarray) -> bool:
    """Whether three directions span a space: finite, none of length zero, not all in one plane."""
    if not np.isfinite(steps).all():
        return False
    lengths = np.linalg.norm(steps, axis=0)
    return bool(lengths.min() > 0 and np.isfinite(lengths).all() and abs(np.linalg.det(steps / lengths)) > 1e-3)
