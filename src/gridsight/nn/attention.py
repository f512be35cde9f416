"""Attention: every place asks every other one (or those of its window) and takes a weighted mean of what they say.

Scaled dot products in several heads: Vaswani et al., arXiv:1706.03762, section 3.2. Windows that shift and a learned
bias for every offset between two places of a window: Liu et al. (Swin), arXiv:2103.14030, section 3.2.
What differs: the weights themselves are never dropped; dropout (`nn.dropout`) is where the networks put it.

Tokens are (N, T, C): a list of places, the first axis of a grid varying slowest; `tokens` and `grid` go between them
and (N, C, *spatial), so that everything here works for any number of axes. A mask (N, T) marks the real tokens; where
none is real the answer is that of values 0. Attention matrices are (N, heads, queries, keys) and their rows sum to 1;
those of windows have an axis of windows before the heads. The fast kernels never hold them: `matrices` computes them
beside the pass, for whoever wants to see them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from gridsight.core.errors import UsageError
from gridsight.nn.dropout import Dropout, DropPath
from gridsight.nn.masked import Mask
from gridsight.nn.nd import Nd, OneOrEach


def tokens(x: Tensor) -> Tensor:
    """(N, C, *spatial) -> (N, T, C)."""
    return x.flatten(2).transpose(1, 2)


def grid(x: Tensor, spatial: Sequence[int]) -> Tensor:
    """(N, T, C) -> (N, C, *spatial)."""
    return x.transpose(1, 2).unflatten(2, tuple(spatial))


def pad_to_multiple(x: Tensor, window: Sequence[int], first: int = 2) -> Tensor:
    """Zeros at the end of each spatial axis, the first of which is axis `first`, up to whole windows."""
    missing = [-x.shape[first + axis] % cells for axis, cells in enumerate(window)]
    if not any(missing):
        return x
    behind = [0] * (x.dim() - first - len(window))
    return pad(x, [side for count in reversed(missing + behind) for side in (0, count)])


class Attention(nn.Module):
    """What the three below share: heads, the weighted mean, and the matrix. `out` maps what the heads found."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"{width} channels do not part into {heads} heads: take a number that divides them")
        self.heads = heads
        self.out = nn.Linear(width, width)

    def parts(self, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Mask]:
        """Queries (N, heads, T, d), keys and values (N, heads, S, d), and what is added to the scores or allowed."""
        raise NotImplementedError(f"{type(self).__name__} does not define parts")

    def forward(self, *inputs: Any) -> Tensor:
        q, k, v, mask = self.parts(*inputs)
        return self.out(self.merged(scaled_dot_product_attention(q, k, v, attn_mask=mask)))

    @torch.no_grad()
    def matrix(self, *inputs: Any) -> Tensor:
        """The weights that `forward` of the same inputs takes: (N, heads, T, S), rows that sum to 1."""
        q, k, _, mask = self.parts(*inputs)
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1).nan_to_num()  # a row without real keys has no weights

    def split(self, x: Tensor) -> Tensor:
        """(N, T, C) -> (N, heads, T, C / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merged(self, x: Tensor) -> Tensor:
        """(N, heads, T, C / heads) -> (N, T, C)."""
        return x.transpose(1, 2).flatten(2)


class SelfAttention(Attention):
    """Tokens (N, T, width) ask each other -> (N, T, width); `mask` (N, T) marks those that may be read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.qkv = nn.Linear(width, 3 * width)

    def parts(self, x: Tensor, mask: Mask = None) -> tuple[Tensor, Tensor, Tensor, Mask]:
        q, k, v = map(self.split, self.qkv(x).chunk(3, -1))
        return q, k, v, None if mask is None else mask[:, None, None]


class CrossAttention(Attention):
    """Tokens (N, T, width) ask those of a source (N, S, source_width): another input, scale or number of axes.

    `mask` (N, S) marks the tokens of the source that may be read.
    """

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.q, self.kv = nn.Linear(width, width), nn.Linear(source_width, 2 * width)

    def parts(self, x: Tensor, source: Tensor, mask: Mask = None) -> tuple[Tensor, Tensor, Tensor, Mask]:
        k, v = map(self.split, self.kv(source).chunk(2, -1))
        return self.split(self.q(x)), k, v, None if mask is None else mask[:, None, None]


class WindowAttention(Attention):
    """Places of a grid (N, *spatial, width) ask those of their window -> the same shape.

    Windows lie side by side from the first cell on; with `shifted` they begin half a window later, and the parts that
    are left at both ends are windows of their own. An axis that one window covers is not shifted. `bias` is added to
    the scores: one number a head for every offset between two places. As in the authors' code the last windows are
    filled up with zeros, which are read as any other place.
    """

    index: Tensor

    def __init__(self, nd: Nd, width: int, heads: int, window: OneOrEach, shifted: bool = False) -> None:
        super().__init__(width, heads)
        self.window, self.shifted = nd.each(window), shifted
        self.qkv = nn.Linear(width, 3 * width)
        self.bias = nn.Parameter(torch.zeros(prod(2 * w - 1 for w in self.window), heads))
        # kept with the weights because publishers' checkpoints hold it
        self.register_buffer("index", offsets(self.window).flatten())

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Mask]:
        x = pad_to_multiple(x, self.window, 1)
        spatial = x.shape[1:-1]
        shift = self.shift(spatial)
        if any(shift):
            x = x.roll([-s for s in shift], list(range(1, x.dim() - 1)))
        windows = split_windows(x, self.window)  # (N, windows, places, width)
        q, k, v = map(self.split, self.qkv(windows.flatten(0, 1)).chunk(3, -1))
        places = prod(self.window)
        bias = self.bias[self.index].view(1, places, places, -1).permute(0, 3, 1, 2)
        if any(shift):
            far = borders(spatial, self.window, shift, x.device)
            bias = bias.masked_fill(far[:, None], -torch.inf).repeat(len(x), 1, 1, 1)
        return q, k, v, bias

    def forward(self, x: Tensor) -> Tensor:
        cells = x.shape[1:-1]
        spatial = [n + -n % w for n, w in zip(cells, self.window, strict=True)]
        found = super().forward(x).unflatten(0, (len(x), -1))
        shift = self.shift(spatial)
        y = join_windows(found, spatial, self.window)
        if any(shift):
            y = y.roll(shift, list(range(1, x.dim() - 1)))
        return y[(slice(None), *map(slice, cells))]

    def matrix(self, x: Tensor) -> Tensor:
        """(N, windows, heads, places, places): of every window, in the order of `split_windows`."""
        return super().matrix(x).unflatten(0, (len(x), -1))

    def shift(self, spatial: Sequence[int]) -> list[int]:
        """Cells by which the windows are moved on each axis of a grid of whole windows."""
        return [w // 2 if self.shifted and w < n else 0 for n, w in zip(spatial, self.window, strict=True)]


def split_windows(x: Tensor, window: Sequence[int]) -> Tensor:
    """(N, *spatial, C) -> (N, windows, places, C); windows and the places in them in row-major order."""
    ndim = len(window)
    parted = [size for n, w in zip(x.shape[1:-1], window, strict=True) for size in (n // w, w)]
    x = x.reshape(len(x), *parted, x.shape[-1])
    return x.permute(0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2), -1).flatten(ndim + 1, -2).flatten(1, ndim)


def join_windows(x: Tensor, spatial: Sequence[int], window: Sequence[int]) -> Tensor:
    """(N, windows, places, C) -> (N, *spatial, C), what `split_windows` parted."""
    counts = [n // w for n, w in zip(spatial, window, strict=True)]
    x = x.reshape(len(x), *counts, *window, x.shape[-1])
    ndim = len(window)
    order = [axis for pair in zip(range(1, ndim + 1), range(ndim + 1, 2 * ndim + 1), strict=True) for axis in pair]
    return x.permute(0, *order, -1).reshape(len(x), *spatial, x.shape[-1])


def offsets(window: Sequence[int]) -> Tensor:
    """(places, places) int64: which entry of a table of all offsets lies between two places of a window.

    Entry 0 is the offset of the first place from the last, and the last axis varies fastest.

    >>> offsets((3,)).tolist()
    [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    """
    places = torch.tensor(list(product(*map(range, window))))
    number = torch.zeros(len(places), len(places), dtype=torch.long)
    for axis, cells in enumerate(window):
        along = places[:, axis]
        number = number * (2 * cells - 1) + along[:, None] - along[None, :] + cells - 1
    return number


def borders(spatial: Sequence[int], window: Sequence[int], shift: Sequence[int], device: Any = None) -> Tensor:
    """(windows, places, places) bool: the pairs of one window that only rolling the grid has brought together.

    >>> borders((4,), (2,), (1,)).int().tolist()
    [[[0, 0], [0, 0]], [[0, 1], [1, 0]]]
    """
    side = torch.zeros(1, *spatial, 1, dtype=torch.long, device=device)
    for axis, (n, s) in enumerate(zip(spatial, shift, strict=True)):
        if s:
            rolled = torch.arange(n, device=device) >= n - s  # these were the first cells
            side = side * 2 + rolled.view(-1, *[1] * (len(spatial) - axis))
    parted = split_windows(side, window)[0, :, :, 0]
    return parted[:, :, None] != parted[:, None, :]


class Mlp(nn.Sequential):
    """Linear to `hidden`, GELU, dropout, linear back, dropout: each token by itself."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        drops = Dropout(dropout), Dropout(dropout)
        super().__init__(nn.Linear(width, hidden), nn.GELU(), drops[0], nn.Linear(hidden, width), drops[1])


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (norms first: arXiv:2010.11929, equations 2 and 3).

    Whatever the attention takes besides x is handed on to it; `path` is the rate at which an item skips a branch.
    """

    def __init__(
        self,
        width: int,
        attention: Attention,
        expansion: int,
        dropout: float = 0.0,
        path: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.attention, self.mlp = attention, Mlp(width, expansion * width, dropout)
        self.dropout, self.path1, self.path2 = Dropout(dropout), DropPath(path), DropPath(path)

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        x = x + self.path1(self.dropout(self.attention(self.norm1(x), *others)))
        return x + self.path2(self.mlp(self.norm2(x)))


def narrow_init(net: nn.Module) -> None:
    """What both papers' code does: weights of linear maps and tables of biases from a normal of deviation 0.02, cut at
    two units; the maps' own biases 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, WindowAttention):
            nn.init.trunc_normal_(layer.bias, std=0.02)


@contextmanager
def matrices(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within it, every pass of `net` writes the attention matrix of each layer into the dict, by the layer's name.

    >>> net = SelfAttention(4, 2)
    >>> with matrices(net) as found:
    ...     _ = net(torch.randn(1, 3, 4))
    >>> found[""].shape, torch.allclose(found[""].sum(-1), torch.ones(1, 2, 3))
    (torch.Size([1, 2, 3, 3]), True)
    """
    found: dict[str, Tensor] = {}
    hooks = []
    for name, layer in net.named_modules():
        if isinstance(layer, Attention):

            def keep(layer: Any, inputs: tuple[Any, ...], name: str = name) -> None:
                found[name] = layer.matrix(*inputs)

            hooks.append(layer.register_forward_pre_hook(keep))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
