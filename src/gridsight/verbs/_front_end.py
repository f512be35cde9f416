"""The front end of a run: mean and deviation a channel, of its training items or as its trained weights had them."""

from dataclasses import replace
from statistics import fmean

import numpy as np

from gridsight.data.cache import Cached
from gridsight.nn.frontend import FrontEndSettings, MelSettings
from gridsight.training.recipe import Recipe
from gridsight.verbs._start import Start

PIECE = 1 << 20
"""Cells that statistics take at once."""
STATISTICS = 4096
"""Items that mean and deviation are measured on, evenly spread over the training data."""


def front_end(recipe: Recipe, data: Cached, train: np.ndarray, start: Start | None = None) -> FrontEndSettings:
    """The front end with mean and deviation a channel of the training items alone, a few at a time.

    Pictures for trained weights have those that the weights were trained with; gray ones their mean over the channels.
    """
    spec = data.spec
    if start is not None and start.mean and spec.kind in ("image", "video"):
        if spec.channels == len(start.mean):
            return FrontEndSettings(spec.full_scale, start.mean, start.std)
        if spec.channels == 1:
            return FrontEndSettings(spec.full_scale, (fmean(start.mean),), (fmean(start.std),))
    if spec.kind == "sequence":  # a certain letter is 1, a gap or padding 0
        return FrontEndSettings(spec.full_scale, (0.0,) * spec.channels, (1.0,) * spec.channels)
    spread = np.sort(train[np.linspace(0, len(train) - 1, min(STATISTICS, len(train))).astype(np.int64)])
    total, squares, count = np.zeros(spec.channels), np.zeros(spec.channels), 0
    # against cancellation
    shift = data.x[int(spread[0])].reshape(spec.channels, -1)[:, :PIECE].astype(np.float64).mean(1)
    for i in spread:
        item = data.x[int(i)].reshape(spec.channels, -1)
        # an item of many megapixels a piece at a time: float64 takes eight times the memory of bytes
        for piece in np.array_split(item, -(-item.shape[1] // PIECE), axis=1):
            x = piece.astype(np.float64) - shift[:, None]
            total, squares, count = total + x.sum(1), squares + (x * x).sum(1), count + x.shape[1]
    mean = (shift + total / count) / spec.full_scale
    std = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0)) / spec.full_scale
    if spec.kind == "sound":
        mean = np.zeros_like(mean)  # silence stays zero
    std = np.where(std > 1e-8, std, 1.0)
    settings = FrontEndSettings(spec.full_scale, tuple(map(float, mean)), tuple(map(float, std)))
    if recipe.front_end is None or spec.rate is None:
        return settings
    found = recipe.front_end
    return replace(settings, mel=MelSettings(spec.rate, found.n_mels, found.window, found.hop, found.top_db))
