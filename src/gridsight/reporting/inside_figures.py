"""What a network has inside, as figures: filters, maps, pools, patches, dreams, concepts, likeness, receptive fields.

Signed values have one scale a figure with its numbers; items are drawn as their readers know them. Arrays in, figures
out; every figure says in its head which network, layer and data it is of.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gridsight.data.alphabet import to_text
from gridsight.reporting.evidence import (
    DPI,
    INK,
    RULE,
    SIGNED,
    SOFT,
    WIDTH,
    headed,
    line_axes,
    place_axes,
    plain_axes,
    scale_bar,
)

BAR = 1.1
LEFT = 0.15


def tiles(
    head: Sequence[str],
    arrays: Sequence[np.ndarray],
    names: Sequence[str],
    limit: float,
    label: str,
    *,
    across: int = 8,
    clipped: bool = False,
) -> Figure:
    """Signed arrays (C, *spatial) in rows with one scale; see `_flat` for what is shown of each."""
    flat = [_flat(each) for each in arrays]
    lines = all(each.ndim == 2 and len(each) == 1 for each in flat)  # drawn as bars
    wide = 1.6 if lines else max(each.shape[1] / each.shape[0] for each in flat)
    across = max(1, min(across, len(flat), int(across * 1.5 / max(wide, 1.5)) if wide > 1.5 else across))
    rows = -(-len(flat) // across)
    gap = 0.12
    width = min(1.6 if wide <= 2 and len(flat) > 1 else 9.0, (WIDTH - LEFT - BAR - gap * (across - 1)) / across)
    height = float(np.clip(width / wide, 0.18, 2.2 if len(flat) > 1 else 5.0))
    figure = headed(head, rows * (height + 0.3) + 0.2)
    for i, (each, name) in enumerate(zip(flat, names, strict=True)):
        row, column = divmod(i, across)
        axes = place_axes(
            figure, LEFT + column * (width + gap), 0.15 + (rows - 1 - row) * (height + 0.3), width, height
        )
        if lines:
            axes.bar(range(each.shape[1]), each[0], width=1.0, color=SIGNED((np.sign(each[0]) * 0.72 + 1) / 2))
            axes.axhline(0, color=SOFT, linewidth=0.5)
            axes.set(ylim=(-limit, limit), xlim=(-0.5, each.shape[1] - 0.5))
        elif each.ndim == 3:
            axes.imshow(np.clip(0.5 + each / (2 * limit), 0, 1), aspect="auto", interpolation="nearest")
        else:
            shown = np.ma.masked_invalid(each)
            axes.imshow(shown, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        plain_axes(axes)
        axes.set_title(name, fontsize=7.5, color=SOFT, pad=2, parse_math=False)
    tall = max(0.9, min(2.4, rows * (height + 0.3) - 0.3))
    right = LEFT + across * (width + gap) + 0.05
    bottom = 0.15 + max(0.0, rows * (height + 0.3) - 0.3 - tall)
    scale_bar(figure, place_axes(figure, right, bottom, 0.14, tall), limit, label, clipped)
    return figure


def rows_of_items(
    head: Sequence[str],
    rows: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    captions: Sequence[Sequence[str]],
    *,
    alphabet: str | None = None,
    sound: bool = False,
    spacing: tuple[float, ...] | None = None,
) -> Figure:
    """Parts of items (C, *spatial), a row a unit, each stretched over the range of all of its row."""
    most = max(len(row) for row in rows)
    first = rows[0][0]
    left, gap = 1.35, 0.1
    width = (WIDTH - left - 0.1 - gap * (most - 1)) / most
    height = 0.3 if alphabet else 0.65 if first.ndim == 2 else width * _tall(first, spacing)
    height = min(height, 1.6)
    figure = headed(head, len(rows) * (height + 0.36) + 0.1)
    for r, (row, name, said) in enumerate(zip(rows, names, captions, strict=True)):
        bottom = 0.1 + (len(rows) - 1 - r) * (height + 0.36)
        low, high = min(float(each.min()) for each in row), max(float(each.max()) for each in row)
        whole = figure.get_size_inches()
        figure.text(0.15 / whole[0], (bottom + height / 2) / whole[1], name, fontsize=8.5, color=INK, va="center",
                    parse_math=False)  # fmt: skip
        for i, (each, caption) in enumerate(zip(row, said, strict=True)):
            axes = place_axes(figure, left + i * (width + gap), bottom, width, height)
            draw_item(axes, each, (low, high), alphabet=alphabet, sound=sound, spacing=spacing)
            axes.set_title(caption, fontsize=7, color=SOFT, pad=2, parse_math=False)
    return figure


def draw_item(
    axes: Axes,
    x: np.ndarray,
    ends: tuple[float, float],
    *,
    alphabet: str | None = None,
    sound: bool = False,
    spacing: tuple[float, ...] | None = None,
) -> None:
    """One item, or a part of it, as the network sees it: letters, a trace, bands, a picture, a middle slice."""
    plain_axes(axes)
    low, high = ends
    if alphabet is not None:
        axes.set_axis_off()
        text = to_text(x, alphabet)
        room = axes.bbox.width / DPI
        size = float(np.clip(72 * room / (0.64 * max(len(text), 1)), 3.0, 10))
        axes.text(0.5, 0.5, text, fontsize=size, family="monospace", ha="center", va="center", color=INK)
        return
    if x.ndim == 2:
        axes.plot(x.T, linewidth=0.9, color=INK if len(x) == 1 else None)
        axes.set(xlim=(0, max(1, x.shape[1] - 1)), ylim=(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-9))
        return
    while x.ndim > 3:
        x = x.take(x.shape[1] // 2, 1)
    shown = np.clip((x - low) / max(high - low, 1e-12), 0, 1)
    shown = np.moveaxis(shown[:3], 0, -1) if len(shown) >= 3 else shown[0]
    ratio = 1.0 if spacing is None else spacing[-2] / spacing[-1]
    axes.imshow(shown, cmap="magma" if sound else "gray", vmin=0, vmax=1, origin="lower" if sound else "upper",
                aspect="auto" if sound else ratio, interpolation="nearest")  # fmt: skip


def pool_figure(
    head: Sequence[str],
    before: np.ndarray,
    after: np.ndarray,
    winner: np.ndarray,
    stride: Sequence[int],
    middle: Sequence[float],
) -> Figure:
    """One map before and after a max pool, with an arrow from the middle of each window to the cell that won it.

    `before` (*cells), `after` (*out), `winner` (*out, ndim); windows lie every `stride` cells, and `middle` is that of
    the first one. Volumes: the slice of the strongest cell.
    """
    if before.ndim == 3:
        plane = int(np.unravel_index(int(after.argmax()), after.shape)[0])
        depth = int(np.bincount(winner[plane, ..., 0].ravel()).argmax())
        before, after = before[depth], after[plane]
        seen = winner[plane, ..., 0] == depth
        winner, stride, middle = np.where(seen[..., None], winner[plane, ..., 1:], -1), stride[1:], middle[1:]
    limit = float(np.abs(before).max()) or 1.0
    if before.ndim == 1:
        figure = headed(head, 2.7)
        axes = place_axes(figure, 0.75, 0.5, WIDTH - 0.95, 2.0)
        axes.plot(before, color=SOFT, linewidth=1, label="before")
        axes.plot(winner[:, 0], after, "o", color=SIGNED(0.86), markersize=3.5, label="kept by the pool")
        for edge in range(0, len(before) + 1, stride[0]):
            axes.axvline(edge - 0.5, color=RULE, linewidth=0.5)
        line_axes(axes, "cell", "value")
        axes.legend(fontsize=8, frameon=False, loc="upper right")
        return figure
    width = (WIDTH - LEFT - BAR - 0.3) / 2
    height = min(4.2, width * before.shape[0] / before.shape[1])
    width = height * before.shape[1] / before.shape[0]
    figure = headed(head, height + 0.5)
    for i, (grid, title) in enumerate(((before, "before, with the winner of each window"), (after, "after"))):
        axes = place_axes(figure, LEFT + i * (width + 0.3), 0.15, width, height)
        axes.imshow(grid, cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
        plain_axes(axes, title)
        if i == 0:
            out = np.stack(np.meshgrid(*[np.arange(n) for n in after.shape], indexing="ij"), -1)
            centre = out * np.asarray(stride) + np.asarray(middle)
            shown = (winner >= 0).all(-1)
            step = winner - centre
            axes.quiver(centre[..., 1][shown], centre[..., 0][shown], step[..., 1][shown], step[..., 0][shown],
                        angles="xy", scale_units="xy", scale=1, color=INK, width=0.0035, headwidth=5)  # fmt: skip
            axes.plot(winner[..., 1][shown], winner[..., 0][shown], ".", color=INK, markersize=3)
    scale_bar(figure, place_axes(figure, LEFT + 2 * width + 0.45, 0.15, 0.14, height), limit, "value", False)
    return figure


def matrix_figure(head: Sequence[str], values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Likeness of layers from 0 to 1, with its numbers."""
    cell = min(0.75, 5.8 / max(len(columns), len(rows)))
    longest = 0.09 * max(map(len, rows)) + 0.2
    height = cell * len(rows)
    figure = headed(head, height + 0.09 * max(map(len, columns)) + 0.4)
    bottom = 0.09 * max(map(len, columns)) + 0.2
    axes = place_axes(figure, longest, bottom, cell * len(columns), height)
    axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, fontsize=8, parse_math=False)
    axes.tick_params(length=0)
    if cell > 0.4:
        for (i, j), value in np.ndenumerate(values):
            axes.text(
                j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="black" if value > 0.6 else "white"
            )
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), "cividis"),
        cax=place_axes(figure, longest + cell * len(columns) + 0.15, bottom, 0.14, max(0.9, height)),
    )
    bar.ax.tick_params(labelsize=8)
    bar.set_label("CKA", fontsize=8.5)
    return figure


def field_figure(
    head: Sequence[str],
    heat: np.ndarray,
    box: Sequence[tuple[int, int]],
    spacing: tuple[float, ...] | None = None,
) -> Figure:
    """Where a cell of a layer really looks, within the box that it could see; volumes cut through the middle."""
    if heat.ndim == 1:
        figure = headed(head, 2.4)
        axes = place_axes(figure, 0.75, 0.5, WIDTH - 0.95, 1.75)
        axes.fill_between(np.arange(len(heat)), heat, color=SIGNED(0.86), linewidth=0)
        axes.axvspan(box[0][0] - 0.5, box[0][1] - 0.5, color=RULE, alpha=0.45, zorder=0)
        axes.set(xlim=(-0.5, len(heat) - 0.5), ylim=(0, 1.05))
        line_axes(axes, "cell of the input", "mean gradient")
        return figure
    pairs = [(0, 1)] if heat.ndim == 2 else [(1, 2), (0, 2), (0, 1)]
    peak = np.unravel_index(int(heat.argmax()), heat.shape)
    width = 2.4 if len(pairs) > 1 else 4.0
    cuts = [heat if heat.ndim == 2 else heat.take(int(peak[3 - sum(pair)]), 3 - sum(pair)) for pair in pairs]
    ratios = [1.0 if spacing is None else spacing[a] / spacing[b] for a, b in pairs]
    tall = [width * cut.shape[0] * ratio / cut.shape[1] for cut, ratio in zip(cuts, ratios, strict=True)]
    figure = headed(head, max(tall) + 0.45)
    for i, (cut, (a, b), ratio, height) in enumerate(zip(cuts, pairs, ratios, tall, strict=True)):
        axes = place_axes(figure, LEFT + i * (width + 0.2), 0.15, width, height)
        axes.imshow(cut, cmap="cividis", vmin=0, vmax=1, aspect=ratio, interpolation="nearest")
        (top, bottom), (left, right) = box[a], box[b]
        axes.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor="white", linewidth=1.4)
        )
        axes.set(xlim=(-0.5, cut.shape[1] - 0.5), ylim=(cut.shape[0] - 0.5, -0.5))
        plain_axes(axes, "" if heat.ndim == 2 else f"axes {a + 1} and {b + 1}")
    beside = LEFT + len(pairs) * (width + 0.2)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), "cividis"), cax=place_axes(figure, beside, 0.15, 0.14, min(max(tall), 2.4))
    )
    bar.ax.tick_params(labelsize=8)
    bar.set_label("mean gradient", fontsize=8.5)
    return figure


def effects_figure(head: Sequence[str], effect: np.ndarray, beyond: np.ndarray, classes: Sequence[str]) -> Figure:
    """What each concept does to each output (k, K); a dot where that is more than luck."""
    limit = float(np.abs(effect).max()) or 1.0
    longest = 0.085 * max(map(len, classes)) + 0.2
    cell = min(0.6, (WIDTH - 1.2 - BAR) / len(classes))
    height = 0.34 * len(effect)
    figure = headed(head, height + longest + 0.2)
    axes = place_axes(figure, 1.0, longest, cell * len(classes), height)
    axes.imshow(effect, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(effect)), [f"concept {i + 1}" for i in range(len(effect))], fontsize=8)
    axes.tick_params(length=0)
    for i, j in zip(*np.nonzero(beyond), strict=True):
        axes.plot([j], [i], "o", color=INK, markersize=3)
    right = 1.0 + cell * len(classes) + 0.15
    scale_bar(figure, place_axes(figure, right, longest, 0.14, max(0.9, height)), limit, "change of the output", False)
    return figure


def _flat(x: np.ndarray) -> np.ndarray:
    """(rows, columns), or (rows, columns, 3), of a signed array (C, *spatial).

    One axis: channels in rows. Two: one channel, three as a colour, of others the strongest. Three: slices side by side
    of the strongest channel.
    """
    if x.ndim == 2:
        return x
    strongest = x[int(np.abs(x).reshape(len(x), -1).sum(1).argmax())]
    if x.ndim == 3:
        return np.moveaxis(x, 0, -1) if len(x) == 3 else strongest
    if len(strongest) > 5:
        return strongest[len(strongest) // 2]
    edge = np.full((strongest.shape[1], 1), np.nan)
    return np.concatenate([part for each in strongest for part in (each, edge)][:-1], 1)


def _tall(x: np.ndarray, spacing: tuple[float, ...] | None) -> float:
    ratio = 1.0 if spacing is None else spacing[-2] / spacing[-1]
    return x.shape[-2] * ratio / x.shape[-1]
