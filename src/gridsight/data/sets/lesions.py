"""Lesions: is there a faint blob in a noisy volume? (1, 16, 32, 32) uint8, 2 x 1 x 1 mm; computed here, no files.

Each patient has four volumes, and its own texture (noise whose power falls with frequency, from a length of 1 to 2 mm
on), contrast, and slope of brightness across the field. Half of the volumes hold one lesion: an ellipsoid of 2.5 to
4.5 mm with soft edges, anywhere, 2.5 to 5.5 times as bright as the texture varies. `group` is the patient; none is on
both sides of the split. Some lesions drown in the texture, so that no method finds all.
"""

import numpy as np

from gridsight.data.sample import Header, Sample
from gridsight.data.sets import SETS
from gridsight.data.sets._simulated import Draws, rotation, simulated
from gridsight.data.source import Source

SHAPE, SPACING = (16, 32, 32), (2.0, 1.0, 1.0)
EACH = 4  # volumes a patient


def texture(white: np.ndarray, length: float) -> np.ndarray:
    """Coloured noise of deviation 1: power falls as frequency ** -4 beyond 1 / (2 pi length), `length` in mm."""
    axes = [np.fft.fftfreq(n, step) for n, step in zip(SHAPE, SPACING, strict=True)]
    square = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    coloured = np.fft.ifftn(np.fft.fftn(white) / (1 + (2 * np.pi * length) ** 2 * square)).real
    return (coloured - coloured.mean()) / coloured.std()


def volume(index: int) -> Sample:
    """Item `index` with its label and its patient."""
    patient, own = Draws("lesions of patients", index // EACH), Draws("lesions", index)
    length, contrast = patient.uniform("texture", 2, (1.0, 0.08), (2.0, 0.12))
    slope = patient.uniform("slope", 3, -0.1, 0.1)
    mm = [step * (np.arange(n) - (n - 1) / 2) for n, step in zip(SHAPE, SPACING, strict=True)]
    place = np.stack(np.meshgrid(*mm, indexing="ij")).reshape(3, -1)
    values = texture(own.normal("texture", place.shape[1]).reshape(SHAPE), length).ravel()
    values += 0.3 * own.normal("grain", values.size)
    sick = bool(own.uniform("sick", 1)[0] < 0.5)
    if sick:
        centre = own.uniform("centre", 3, -0.7, 0.7) * [axis[-1] for axis in mm]
        radii = own.uniform("radii", 3, 2.5, 4.5)
        inside = rotation(own.uniform("turn", 3)) @ (place - centre[:, None]) / radii[:, None]
        values += own.uniform("bright", 1, 2.5, 5.5) * np.exp(-((inside**2).sum(0) ** 2))
    values = 0.4 + contrast * values + slope @ (place / np.array([axis[-1] for axis in mm])[:, None])
    array = np.rint(255 * values.clip(0, 1)).astype(np.uint8).reshape(1, *SHAPE)
    return Sample(
        array, f"lesions[{index}]", "lesion" if sick else "clear", group=f"patient {index // EACH}", spacing=SPACING
    )


@SETS.register("lesions", licence="computed", paper="gridsight's own simulator", items=1600)
def lesions(train: int = 1200, test: int = 400) -> Source:
    """`train` and `test` volumes, whole patients of four each; any item is the same whatever the numbers."""
    header = Header(1, SHAPE, "uint8", spacing=SPACING)
    return simulated("lesions", __file__, volume, header, train // EACH * EACH, test // EACH * EACH, "patient")
