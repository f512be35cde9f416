"""Attention, weighed by its gradient: which tokens the answer was carried from, through all layers.

Chefer, Gur and Wolf, "Generic attention-model explainability" (arXiv:2103.15679), equations 5 and 6, for networks whose
tokens all ask each other. Each layer's matrix A becomes the mean over heads of what is above 0 in A dA; relevance R,
which begins as each token's own, grows by that matrix times R. Without `gradient` it is attention rollout (Abnar and
Zuidema, arXiv:2005.00928): the matrices alone, half of each the identity, the same for every target.

Every call of `scaled_dot_product_attention` counts, whatever module makes it (`nn.MultiheadAttention` makes none that
can be seen). The map says what was read, not what would change the answer if it were gone, so it has to pass the same
checks as any other.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._passes import at_once, in_turn, outputs_of, picked
from gridsight.core.errors import UsageError
from gridsight.measure.layers import place
from gridsight.nn.geometry import Field, stage_shapes
from gridsight.nn.net import Net
from gridsight.nn.undisturbed import undisturbed


@EXPLAINERS.register(
    "attention",
    ndims=(1, 2, 3),
    needs="gradient",
    complete=False,
    linear="",
    nonlinear="it reads matrices of attention, and a linear network has none",
    sound=False,
    unsound="it shows what was read, whether or not that moved the answer",
    source="Chefer et al., arXiv:2103.15679",
    network=("deit_tiny", {"width": 16, "depth": 2, "heads": 2, "patch": 2}),
)
@dataclass(frozen=True)
class Attention:
    """Relevance of every token for the target, 0 and above; `gradient` false: rollout."""

    gradient: bool = True

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        cells = tuple[int, ...]()

        def ask(part: Tensor, own: Tensor) -> tuple[Tensor]:
            nonlocal cells
            with _Matrices() as kept:
                outputs = outputs_of(net, part.detach().clone().requires_grad_())
            if not kept.found:
                raise UsageError(
                    f"{type(net).__name__} calls no scaled_dot_product_attention: take integrated_gradients or grad_cam"
                )
            cells = _cells(net, part, kept.found)
            slopes: list[Tensor | None] = [None] * len(kept.found)
            if self.gradient:
                slopes = list(torch.autograd.grad(picked(outputs, own).sum(), kept.found, allow_unused=True))
            return (self._relevance(kept.found, slopes).detach(),)

        with undisturbed(net):
            (relevance,) = in_turn(ask, x, target, at_once(net, x))
        count = prod(cells)
        # a class token, which the answer is read from, comes before the others; else it is read from their mean
        grid = relevance[:, 0, 1:] if relevance.shape[1] == count + 1 else relevance.mean(1)
        grid = grid.unflatten(1, cells)
        unknown = (None,) * len(cells)
        return Map(
            values=place(grid, Field(unknown, unknown, unknown), x.shape[2:]),
            grid=grid,
            passes=len(x),
            backward=len(x) if self.gradient else 0,
        )

    def _relevance(self, matrices: list[Tensor], slopes: list[Tensor | None]) -> Tensor:
        """(N, T, T): row i says what token i was made of."""
        own = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype, device=matrices[0].device)
        relevance = own.expand(len(matrices[0]), *own.shape)
        for matrix, slope in zip(matrices, slopes, strict=True):
            if self.gradient:
                if slope is not None:
                    relevance = relevance + (matrix * slope).relu().mean(1) @ relevance
            else:
                relevance = (matrix.mean(1) + own) / 2 @ relevance
        return relevance


class _Matrices(TorchFunctionMode):
    """Within it the matrices (N, heads, T, T) of self-attention over all tokens are kept, as parts of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attend(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if query.dim() != 4 or query.shape[:3] != key.shape[:3] or is_causal or enable_gqa:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        matrix = scores.softmax(-1)
        self.found.append(matrix)
        return matrix @ value


def _cells(net: nn.Module, x: Tensor, matrices: list[Tensor]) -> tuple[int, ...]:
    """The grid that the tokens were made from: the last stage's of a `Net`, else as many an axis."""
    counts = {matrix.shape[-1] for matrix in matrices}
    if len(counts) > 1 or any(len(matrix) != len(x) for matrix in matrices):
        raise UsageError(f"{type(net).__name__} attends within windows, not from all tokens to all: take grad_cam")
    count, ndim = counts.pop(), x.dim() - 2
    each = round(count ** (1 / ndim)), round((count - 1) ** (1 / ndim))
    tried = [(n,) * ndim for n in each]
    tried.sort(key=lambda cells: any(size % max(1, n) for size, n in zip(x.shape[2:], cells, strict=True)))
    if isinstance(net, Net):
        tried.insert(0, stage_shapes(net, x.shape[1], x.shape[2:])[-1][1:])
    for cells in tried:
        if prod(cells) in (count, count - 1):
            return cells
    raise UsageError(f"{type(net).__name__} has {count} tokens, which are no grid of {ndim} axes: take grad_cam")
