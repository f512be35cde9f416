"""Small grids that items are compared on: zero or more axes of space brought to a few cells, whatever the item's size.

Pictures become gray, 32x32 cells; volumes 12x12x12; series 1,024 values shared out over their channels; sounds a 32x32
log spectrogram. Cells are means over equal stretches, so that a resize leaves them nearly alone.
"""

import numpy as np

GRIDS = {1: 1024, 2: 32, 3: 12}  # cells an axis
SPECTROGRAM = 32  # frames and bands


def grid_for(shapes: "list[tuple[int, ...]]") -> tuple[int, ...]:
    """The grid that items of these spatial shapes are compared on: their median, at most what the kind has."""
    sizes = np.median(np.array(shapes, float), axis=0)
    return tuple(max(1, min(GRIDS[len(sizes)], int(size))) for size in sizes)


def signatures(
    block: np.ndarray, grid: tuple[int, ...], rate: float | None = None, lowest_rate: float | None = None
) -> np.ndarray:
    """Small grids (n, K, *grid) float32 of items (n, C, *spatial) of one size: gray, a series' channels, or sound.

    `lowest_rate` (samples a second) bounds the frequencies that sounds of several rates are compared by.
    """
    x = block.astype(np.float32)
    if block.dtype.kind == "f":
        x = np.nan_to_num(x, copy=False, posinf=0.0, neginf=0.0)
    if rate:
        return _spectrograms(x.mean(1), rate, lowest_rate or rate)
    if x.ndim > 3:
        x = x.mean(1, keepdims=True) if x.shape[1] > 1 else x
    else:
        channels = min(16, x.shape[1])
        x = _area(x, channels, 1)
        grid = (min(grid[0], max(32, GRIDS[1] // channels)),)
    for axis, size in enumerate(grid, 2):
        x = _area(x, size, axis)
    return x


def _area(x: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Means over `size` equal stretches of one axis, cells cut where one ends within them; straight lines to more."""
    have = x.shape[axis]
    if have == size:
        return x
    x = np.moveaxis(x, axis, -1)
    if have < size:
        at = np.clip((np.arange(size) + 0.5) * (have / size) - 0.5, 0, have - 1)
        low = np.minimum(at.astype(np.int64), max(have - 2, 0))
        out = x[..., low] + (x[..., np.minimum(low + 1, have - 1)] - x[..., low]) * (at - low)
    elif have % size == 0:
        out = x.reshape(*x.shape[:-1], size, have // size).mean(-1)
    else:
        edges = np.linspace(0, have, size + 1)
        whole = np.minimum(edges.astype(np.int64), have - 1)
        sums = np.concatenate([np.zeros((*x.shape[:-1], 1)), np.cumsum(x, -1, dtype=np.float64)], -1)
        out = np.diff(sums[..., whole] + (edges - whole) * x[..., whole], axis=-1) * (size / have)
    return np.moveaxis(out.astype(np.float32), -1, axis)


def _spectrograms(waves: np.ndarray, rate: float, lowest_rate: float) -> np.ndarray:
    """Log power (n, 1, bands, frames) of sounds (n, samples) up to half of `lowest_rate`, whatever their own rate.

    What lies more than 20 dB under the loudest cell hardly counts: 8 bits a sample add noise there.
    """
    window = max(16, round(0.032 * rate))
    if waves.shape[1] < window:
        waves = np.pad(waves, ((0, 0), (0, window - waves.shape[1])))
    step = max(1, min(window // 2, (waves.shape[1] - window) // SPECTROGRAM + 1))
    kept = max(2, int(window / 2 * min(1.0, lowest_rate / rate)) + 1)
    shape = np.hanning(window).astype(np.float32)
    out = []
    for wave in waves:
        frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::step] * shape
        power = np.abs(np.fft.rfft(frames, axis=1)[:, :kept]).astype(np.float32) ** 2
        power = _area(_area(power, SPECTROGRAM, 0), SPECTROGRAM, 1)
        out.append(np.log(power.T + 1e-3 * power.max() + 1e-20))
    return np.stack(out)[:, None]
