"""A contact sheet: one PNG with what an audit found, a row a problem; pictures, traces, spectrograms, middle slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gridsight.core.run import atomic_write
from gridsight.data.sample import Sample
from gridsight.reporting.pictures import middle_slices, pixels, spectrogram

COLUMNS = 8
CELL = 1.5  # inches
DPI = 100


@dataclass(frozen=True, eq=False)
class Row:
    """Samples that share a problem, each with a caption of a line or two."""

    title: str
    cells: Sequence[tuple[str, Sample]]


def contact_sheet(rows: Sequence[Row], path: Path) -> None:
    """Write the PNG; at most `COLUMNS` samples a row are drawn."""
    height = max(1, len(rows)) * CELL * 1.4
    figure = Figure(figsize=(COLUMNS * CELL, height), dpi=DPI)
    FigureCanvasAgg(figure)
    top, bottom = 1 - 0.25 / height, 0.35 / height
    grid = figure.add_gridspec(max(1, len(rows)), COLUMNS, left=0.01, right=0.99, top=top, bottom=bottom, hspace=0.55)
    for r, row in enumerate(rows):
        for c, (caption, sample) in enumerate(row.cells[:COLUMNS]):
            axes = figure.add_subplot(grid[r, c])
            _draw(axes, sample)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(latin(caption), fontsize=6, parse_math=False)
            if c == 0:
                axes.set_title(latin(row.title), fontsize=9, loc="left", parse_math=False)
    atomic_write(path, lambda temporary: figure.savefig(temporary, format="png"))


def _draw(axes: Axes, sample: Sample) -> None:
    x = sample.array
    if x.dtype.kind == "f":
        x = np.nan_to_num(x.astype(np.float32), posinf=0.0, neginf=0.0)
    if x.ndim == 2 and sample.rate:
        axes.imshow(spectrogram(x, sample.rate), origin="lower", aspect="auto", cmap="magma")
    elif x.ndim == 2:
        axes.plot(x[:3].T, linewidth=0.7)
    else:
        picture = pixels(x if x.ndim == 3 else middle_slices(x)[0])
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def latin(text: str) -> str:
    """Text that any font draws without a warning: what is not Latin becomes an escape."""
    return text.encode("latin-1", "backslashreplace").decode("latin-1")
