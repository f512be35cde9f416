"""How much of one small grid another leaves unexplained once it is moved, zoomed and, where that fits better, mirrored.

Grids are (P, K, *grid): P pairs, K channels. The mirror and a first shift come from phase correlation of the lowest
frequencies (Kuglin and Hines, Proc. IEEE Cybernetics and Society, 1975); shift and zoom of each axis are refined by
Gauss-Newton steps (Lucas and Kanade, IJCAI 1981), on the halved grid and then on the full one. What counts is the share
of b's variance, over the cells that both cover, that a, its Laplacian (which makes blur and resampling a matter of
indifference) and a constant do not explain: 0 equal, 1 nothing in common.
"""

from dataclasses import dataclass

import numpy as np

FREQUENCIES = {1: 12, 2: 6, 3: 5}  # cycles an axis
STEPS = (2, 1)  # Gauss-Newton steps on the halved and on the full grid
FARTHEST = 0.15  # of an axis, by shift; of the size, by zoom
CELLS = 1 << 18  # of all grids compared at once: they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Waves:
    """The frequencies (F, ndim) that grids of one size are compared by, and which one is a frequency's mirror (F,).

    One of each two opposite frequencies, in a ball, without the constant. `windowed` turns an axis into its spectrum;
    the window keeps what enters and leaves at the borders from counting.
    """

    windowed: tuple[np.ndarray, ...]
    kept: np.ndarray
    cycles: np.ndarray
    mirror: np.ndarray

    @classmethod
    def of(cls, grid: tuple[int, ...]) -> "Waves":
        """For grids of this size."""
        tops = [min(FREQUENCIES[len(grid)], max(1, (size - 1) // 2)) for size in grid]
        ranges = [np.arange(-top, top + 1) for top in tops[:-1]] + [np.arange(tops[-1] + 1)]
        windowed = []
        for size, own in zip(grid, ranges, strict=True):
            at = (np.arange(size) + 0.5) / size
            windowed.append((np.sin(np.pi * at) * np.exp(-2j * np.pi * own[:, None] * at)).astype(np.complex64))
        cycles = np.stack(np.meshgrid(*ranges, indexing="ij"), -1)
        flipped = np.arange(cycles[..., 0].size).reshape(cycles.shape[:-1])[(slice(None, None, -1),) * (len(grid) - 1)]
        length = (cycles.reshape(-1, len(grid)) ** 2).sum(1)
        kept = np.flatnonzero((length > 0) & (length <= (max(tops) + 0.5) ** 2))
        mirror = np.searchsorted(kept, flipped.ravel()[kept])
        return cls(tuple(windowed), kept, cycles.reshape(-1, len(grid))[kept], mirror)

    def spectra(self, x: np.ndarray) -> np.ndarray:
        """(n, K, F) complex64 of grids (n, K, *grid)."""
        for axis in range(len(self.windowed), 0, -1):  # the last axis has the fewest frequencies
            x = np.moveaxis(np.moveaxis(x, axis + 1, -1) @ self.windowed[axis - 1].T, -1, axis + 1)
        return x.reshape(*x.shape[:2], -1)[:, :, self.kept]

    def mirrored(self, spectra: np.ndarray) -> np.ndarray:
        """Spectra of the grids mirrored along the last axis."""
        return spectra[:, :, self.mirror].conj()


def left_over(grids: np.ndarray, a: np.ndarray, b: np.ndarray, bound: float = 1.0, aligned: bool = True) -> np.ndarray:
    """(P,) what items a (P,) leave unexplained of items b (P,), or b of a if that is less; `grids` (n, K, *grid).

    Pairs above `bound` on the halved grid are not looked at further: their figure is of that. Without `aligned` the
    items are compared as they lie.
    """
    waves, out = Waves.of(grids.shape[2:]), np.ones(len(a), np.float32)
    step = max(1, CELLS // int(np.prod(grids.shape[1:])))
    for k in range(0, len(a), step):
        first, second = grids[a[k : k + step]], grids[b[k : k + step]]
        if aligned:
            out[k : k + step] = _aligned(waves, first, second, bound)
        else:
            still = np.tile(np.array([1, 0], np.float32), (len(first), len(waves.windowed), 1))
            out[k : k + step] = np.minimum(_fit(first, second, still)[0], _fit(second, first, still)[0])
    return out


def _aligned(waves: Waves, a: np.ndarray, b: np.ndarray, bound: float) -> np.ndarray:
    b, moves = _first_guess(waves, a, b)
    small, other = halved(a), halved(b)
    scale = np.array([small.shape[2:], a.shape[2:]], np.float32)
    moves[:, :, 1] *= scale[0] / scale[1]
    left, moves = _refined(small, other, moves, STEPS[0])
    moves[:, :, 1] *= scale[1] / scale[0]
    good = np.flatnonzero(left <= bound)
    if len(good):
        a, b = a[good], b[good]
        _, forth = _refined(a, b, moves[good], STEPS[1])
        back = np.stack([1 / forth[:, :, 0], -forth[:, :, 1] / forth[:, :, 0]], 2)
        left[good] = np.minimum(_fit(a, b, forth)[0], _fit(b, a, back)[0])
    return left


def halved(x: np.ndarray) -> np.ndarray:
    """Half the cells along each axis of 8 and more, smoothed first, so that a shift of one cell leaves little over."""
    for axis in range(2, x.ndim):
        half = x.shape[axis] // 2
        if half >= 4:
            x = np.moveaxis(x, axis, -1)[..., : 2 * half]
            x = np.concatenate([x[..., :1], x, x[..., -1:]], -1)
            for _ in range(3):  # weights 1, 3, 3, 1
                x = x[..., 1:] + x[..., :-1]
            x = np.moveaxis(x[..., ::2] / 8, -1, axis)
    return x


def _first_guess(waves: Waves, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """b, mirrored where that is more like a, and (P, ndim, 2): zoom 1 and the likeliest shift, in cells."""
    shape = a.shape[2:]
    reach = [np.arange(-int(FARTHEST * size), FARTHEST * size, max(1, size // 32)) for size in shape]
    shifts = np.stack(np.meshgrid(*reach, indexing="ij"), -1).reshape(-1, len(shape))
    turns = 2 * np.pi * (waves.cycles / shape) @ shifts.T
    real, imaginary = np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)
    own, other = waves.spectra(a), waves.spectra(b)
    best, where = [], []
    for candidate in (other, waves.mirrored(other))[: len(shape)]:  # a series read backwards is another one
        both = (own.conj() * candidate).sum(1)
        both /= np.sqrt(np.abs(both) + 1e-12)
        score = both.real @ real + both.imag @ imaginary
        where.append(score.argmax(1))
        best.append(score.max(1))
    flipped = best[-1] > best[0]
    b = np.where(flipped.reshape(-1, *[1] * (b.ndim - 1)), b[..., ::-1], b)
    shift = shifts[np.where(flipped, where[-1], where[0])]
    return b, np.stack([np.ones_like(shift), shift], 2).astype(np.float32)


def _refined(a: np.ndarray, b: np.ndarray, moves: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """What is left over, and the moves after so many Gauss-Newton steps; the last step's gain is estimated."""
    left = np.ones(len(a), np.float32)
    for _ in range(steps):
        left, moves = _fit(a, b, moves, improve=True)
    return left, moves


def _fit(a: np.ndarray, b: np.ndarray, moves: np.ndarray, improve: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of b on the moved a, its Laplacian, a constant and, to improve, what a small move would change."""
    moved, inside = _moved(a, moves)
    columns = np.empty((len(a), 3 + 2 * (a.ndim - 2) * improve, *a.shape[1:]), np.float32)
    columns[:, 0], columns[:, 1], columns[:, 2] = 1, moved, laplacian(moved)
    if improve:
        for i, size in enumerate(a.shape[2:]):
            slope, at = columns[:, 3 + 2 * i], columns[:, 4 + 2 * i]
            slope[...] = np.gradient(moved, axis=2 + i) if size > 1 else 0
            cells = np.arange(size, dtype=np.float32) - (size - 1) / 2
            np.multiply(slope, cells.reshape(-1, *[1] * (a.ndim - 3 - i)), out=at)
    columns *= inside[:, None, None]
    x, y = columns.reshape(len(a), columns.shape[1], -1), (b * inside[:, None]).reshape(len(a), -1, 1)
    gram, product = x @ x.transpose(0, 2, 1), x @ y
    size = np.einsum("pcc->pc", gram)
    gram += (1e-5 * size + 1e-12)[:, :, None] * np.eye(x.shape[1], dtype=np.float32)
    solved = np.linalg.solve(gram, product)
    # x.T x with the ridge is what was solved, so the residual is counted in full
    rest = ((y - x.transpose(0, 2, 1) @ solved) ** 2).sum((1, 2))
    total = (y**2).sum((1, 2)) - y.sum((1, 2)) ** 2 / np.maximum(inside.reshape(len(a), -1).sum(1) * a.shape[1], 1)
    left = np.where(total > 1e-12, rest / np.maximum(total, 1e-12), 1)
    if improve:
        likeness = solved[:, 1:2, 0]
        steps = solved[:, 3:, 0].reshape(len(a), -1, 2) / np.where(np.abs(likeness) > 0.2, likeness, 0.2)[:, :, None]
        zoom, shift = moves[:, :, 0], moves[:, :, 1]
        far = FARTHEST * np.array(a.shape[2:], np.float32)
        shift = np.clip(shift + np.clip(steps[:, :, 0], -1, 1) * zoom, -far, far)
        zoom = np.clip(zoom + np.clip(steps[:, :, 1], -0.05, 0.05) * zoom, 1 - FARTHEST, 1 + FARTHEST)
        moves = np.stack([zoom, shift], 2)
    return left, moves


def _moved(x: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x (P, K, *grid) read at zoom * (cell - middle) + middle + shift, linearly; which cells lie inside (P, *grid)."""
    pairs = np.arange(len(x))[:, None]
    inside = np.ones((len(x), *x.shape[2:]), np.float32)
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        middle = (size - 1) / 2
        at = (np.arange(size, dtype=np.float32) - middle) * moves[:, axis - 2, :1] + middle + moves[:, axis - 2, 1:]
        within = (at >= -0.01) & (at <= size - 0.99)
        low = np.clip(at.astype(np.int64), 0, max(size - 2, 0))
        high = np.minimum(low + 1, size - 1)
        part = np.clip(at - low, 0, 1).reshape(*at.shape, *[1] * (x.ndim - 2))
        rows = np.moveaxis(x, axis, 1)
        rows = rows[pairs, low] * (1 - part) + rows[pairs, high] * part
        x = np.moveaxis(rows, 1, axis)
        inside = inside * np.moveaxis(within.reshape(*at.shape, *[1] * (x.ndim - 3)), 1, axis - 1)
    return x, inside


def laplacian(x: np.ndarray) -> np.ndarray:
    """Second differences summed over the spatial axes, edges repeated; x (n, K, *grid)."""
    out = np.zeros_like(x)
    for axis in range(2, x.ndim):
        y, source = np.moveaxis(out, axis, -1), np.moveaxis(x, axis, -1)
        steps = np.diff(source, axis=-1)
        y[..., :-1] += steps
        y[..., 1:] -= steps
    return out
