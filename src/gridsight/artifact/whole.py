"""Predict an item at its own resolution instead of bringing it to the size that the network was trained on.

This answers the question that was trained when the network was trained on patches or crops of this resolution: cells
are then as large as they were in training, and the item is many patches, of which a global mean takes the average. A
network trained on whole pictures that were shrunk to 224 x 224 has never seen cells of this size: shrink its input as
`predict` does. The temperature and the `unsure` threshold were fitted at the trained size; on averages over many
patches they are a guess.

A network of local stages runs over the whole item in tiles with exact halos (`nn.tiled`): the answer is that of one
pass over the item, and memory holds the decoded item, one tile and the last stage. A network of a fixed size, or any
other when an overlap is asked for, runs over windows of the trained size, whose outputs are averaged (`nn.windows`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gridsight.artifact.predictor import NOT_FINITE, Predictor
from gridsight.core.errors import ReadError
from gridsight.data.conform import conform
from gridsight.data.sample import Sample
from gridsight.nn.blocks import times
from gridsight.nn.reach import Box
from gridsight.nn.tiled import MEMORY, tiled_logits
from gridsight.nn.windows import windowed_logits


def whole_answers(
    predictor: Predictor,
    samples: Iterable[Sample | ReadError],
    *,
    coverage: float | None = None,
    overlap: float | None = None,
) -> Iterator[dict[str, Any]]:
    """As `Predictor.answers`, each item by itself and at its own resolution."""
    threshold, check = predictor.threshold(coverage), True
    for sample in samples:
        try:
            if isinstance(sample, ReadError):
                raise sample
            outputs = whole_outputs(predictor, sample, overlap=overlap, check=check)
            if not np.isfinite(outputs).all():
                raise ReadError(sample.path, NOT_FINITE)
        except ReadError as error:
            yield {"path": error.path, "error": error.reason}
            continue
        check = False  # the network is the same for the next item
        predicted = predictor.task.predict(outputs, predictor.model.calibration)
        answer = predictor.task.decode(predicted, threshold)[0]
        # how unlike the training data features of another size are was never measured
        more = {"novelty": None, "reason": "low probability" if answer.get("unsure") else None}
        yield {"path": sample.path, "unsure": None} | answer | more


def whole_outputs(
    predictor: Predictor,
    sample: Sample,
    *,
    overlap: float | None = None,
    memory: int = MEMORY,
    check: bool = True,
) -> np.ndarray:
    """What the network says of the item at its own resolution, float32 (1, num_outputs).

    `overlap`, a share of a window, takes windows of the trained size: for networks that tiles refuse. `memory` (bytes)
    and `check` are those of `tiled_logits`.
    """
    spec, array, net = predictor.model.spec, sample.array, predictor.net
    for what, unit, have, want in (
        ("sampled at", "samples a second", sample.rate, spec.rate),
        ("of cells of", "mm", sample.spacing, spec.spacing),
    ):
        if have and want and not np.allclose(have, want, rtol=1e-3):
            raise ReadError(
                sample.path, f"is {what} {have} {unit}, the training data {want}: predict it at the trained size"
            )

    def read(box: Box) -> Tensor:
        # channels and type are brought to the network's cell by cell, so a box needs nothing around it
        part = replace(sample, array=array[(slice(None), *box)], rate=None, spacing=None)
        size = tuple(side.stop - side.start for side in box)
        return torch.from_numpy(conform(part, replace(spec, spatial=size, fit="exact")).copy())[None]

    if array.ndim != spec.ndim + 1 or 0 in array.shape:
        conform(sample, spec)  # says what is wrong
    read((slice(0, 1),) * spec.ndim)  # as does this of channels and type, before anything is computed
    spatial = array.shape[1:]
    if overlap is None and net.spatial is None:
        logits = tiled_logits(net, read, spatial, front=predictor.front, memory=memory, check=check)
    else:
        if any(have < window for have, window in zip(spatial, spec.spatial, strict=True)):
            raise ReadError(
                sample.path,
                f"has {times(spatial)} cells, less than one window of {times(spec.spatial)}: predict it at "
                "the trained size",
            )
        overlap = 0.5 if overlap is None else overlap
        logits = windowed_logits(net, read, spatial, spec.spatial, overlap=overlap, front=predictor.front)
    return logits.float().cpu().numpy()
