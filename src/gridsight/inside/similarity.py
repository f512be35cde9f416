"""Similarity of what layers say: linear CKA, between the layers of a network or of two, on the same items.

Kornblith, Norouzi, Lee and Hinton, arXiv:1905.00414, section 3: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the Gram
matrices K = X X', L = Y Y' of features (n, d); 1 of a layer with itself, turned or scaled as a whole. Their HSIC is
biased: with fewer items than features, unrelated layers come near 1. So the unbiased estimator stands first (Song et
al., JMLR 13, 2012, section 4), averaged over groups of items as they stream by (Nguyen, Raghu and Kornblith,
arXiv:2010.15327, section 3.1); it is 0 on average of unrelated layers and may fall below. A layer's grid is one long
row of features, as in the papers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.inside._reading import Data, batches, read
from gridsight.nn.memory import SHARE, free_memory
from gridsight.nn.undisturbed import undisturbed

FEWEST = 4
"""Items of which the unbiased estimator can be had."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """`values` (rows, columns): linear CKA of each layer of `rows` with each of `columns`, over `n` items.

    `groups`: how many groups of items were averaged; `unbiased`: which estimator.
    """

    values: NDArray[np.float64]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    n: int
    groups: int
    unbiased: bool


def cka(x: Tensor, y: Tensor, unbiased: bool = True) -> float:
    """Linear CKA of two tables of features (n, d), (n, e) of the same items.

    Computed from features or from items, whichever are fewer: both forms are equal.

    >>> x = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 3], [2, 5]])
    >>> round(cka(x, 2 * x @ torch.tensor([[0.6, -0.8], [0.8, 0.6]])), 6)
    1.0
    """
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y):
        raise UsageError(f"features are (n, d) and (n, e) of the same items, not {tuple(x.shape)} and {tuple(y.shape)}")
    _enough(len(x), unbiased)
    x, y = (each.double() - each[:1].double() for each in (x, y))
    x, y = x - x.mean(0), y - y.mean(0)
    small = x.shape[1] + y.shape[1] < 2 * len(x)
    said = _by_features if small else _by_items
    return _ratio(said(x, y, unbiased), said(x, x, unbiased), said(y, y, unbiased))


def similarity(
    net: nn.Module,
    data: Data,
    layers: Sequence[str],
    other: nn.Module | None = None,
    other_layers: Sequence[str] | None = None,
    *,
    unbiased: bool = True,
    group: int = 256,
) -> Similarity:
    """Linear CKA of each of `layers` of `net` with each of `other_layers` of `other` (default: with one another).

    Items are taken in groups of `group`, one of which is in memory at a time, as it is or as its Gram matrices. The
    biased estimator takes all items as one group.
    """
    other, columns = other or net, tuple(layers if other_layers is None else other_layers)
    if not layers or not columns:
        raise UsageError("name at least one layer of each network")
    if group < FEWEST:
        raise UsageError(f"a group has at least {FEWEST} items, not {group}")
    same = other is net and columns == tuple(layers)
    cross, own, across = (np.zeros(shape) for shape in ((len(layers), len(columns)), len(layers), len(columns)))
    n = groups = 0
    for rows, cols in _grams(net, layers, other, None if same else columns, data, group if unbiased else None):
        count = rows.shape[1]
        _enough(count, unbiased)
        # of groups of other sizes as many pairs of items as they have count
        share = count * (count - 3) if unbiased else 1
        cross += share * _cross(rows, cols, unbiased)
        own += share * _diagonal(rows, unbiased)
        across += share * _diagonal(cols, unbiased)
        n, groups = n + count, groups + 1
    for each, names in ((own, layers), (across, columns)):
        for value, name in zip(each, names, strict=True):
            if value <= 0:
                raise UsageError(f"layer {name!r} says the same of all {n} items: it is like nothing")
    return Similarity(cross / np.sqrt(own[:, None] * across[None]), tuple(layers), columns, n, groups, unbiased)


def _enough(n: int, unbiased: bool) -> None:
    least = FEWEST if unbiased else 2
    if n < least:
        raise UsageError(f"{n} items: similarity takes at least {least}")


def _grams(
    net: nn.Module,
    layers: Sequence[str],
    other: nn.Module,
    columns: Sequence[str] | None,
    data: Data,
    group: int | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gram matrices (layers, n, n), (columns, n, n) float64 of one group of items after another."""
    held: list[list[Tensor]] = []
    count, whole = 0, False
    for x in batches(net, data):
        with undisturbed(net), undisturbed(other), torch.no_grad():
            found = read(net, x, layers)[1]
            features = [found[name].flatten(1) for name in layers]
            if columns is not None:
                found = read(other, x, columns)[1]
                features += [found[name].flatten(1) for name in columns]
        whole_group = (group or count + len(x)) * sum(each[0].numel() * each.element_size() for each in features)
        free = free_memory(x.device)
        if free is not None and whole_group > SHARE * free + _bytes(held):
            raise UsageError(
                f"what {len(features)} layers say of a group of items takes {whole_group / 1e9:.1f} GB: take "
                f"{'a smaller group' if group else 'unbiased=True'}, or fewer layers"
            )
        while len(features[0]):
            room = len(features[0]) if group is None else group - count
            held.append([each[:room] for each in features])
            count += len(held[-1][0])
            features = [each[room:] for each in features]
            if count == group:
                yield _gram(held, len(layers))
                held, count, whole = [], 0, True
    # of a rest of fewer the estimator cannot be had; where it is all there is, the caller says so
    if count >= FEWEST or group is None or not whole:
        yield _gram(held, len(layers))


def _bytes(held: list[list[Tensor]]) -> int:
    return sum(each.numel() * each.element_size() for parts in held for each in parts)


def _gram(held: list[list[Tensor]], rows: int) -> tuple[Tensor, Tensor]:
    grams = []
    for parts in zip(*held, strict=True):
        x = torch.cat(parts)
        x = x - x[:1]  # HSIC is the same, sums of squares are not rounded away, and what is constant is exactly 0
        grams.append((x.double() @ x.double().T) if x.shape[1] < 4096 else _in_parts(x))
    own = torch.stack(grams[:rows])
    return own, torch.stack(grams[rows:]) if len(grams) > rows else own


def _in_parts(x: Tensor) -> Tensor:
    """x x' in float64 without all of x in float64."""
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    for part in x.split(4096, 1):
        total += part.double() @ part.double().T
    return total


def _cross(rows: Tensor, columns: Tensor, unbiased: bool) -> NDArray[np.float64]:
    """HSIC of every pair of Gram matrices (a, n, n), (b, n, n)."""
    rows, columns = _centred(rows, unbiased), _centred(columns, unbiased)
    return np.asarray((rows.flatten(1) @ columns.flatten(1).T).cpu().numpy()) / _pairs(rows.shape[1], unbiased)


def _diagonal(grams: Tensor, unbiased: bool) -> NDArray[np.float64]:
    squares = _centred(grams, unbiased).square().flatten(1).sum(1)
    return np.asarray(squares.cpu().numpy()) / _pairs(grams.shape[1], unbiased)


def _pairs(n: int, unbiased: bool) -> int:
    return n * (n - 3) if unbiased else (n - 1) ** 2


def _centred(grams: Tensor, unbiased: bool) -> Tensor:
    """Gram matrices whose product, cell by cell, sums to HSIC times `_pairs`.

    Unbiased: without the diagonal, and centred so that no row has a sum (U-centring, Szekely and Rizzo,
    arXiv:1310.2926, which is the estimator of Song et al. in another form).
    """
    n = grams.shape[1]
    if not unbiased:
        return grams - grams.mean(1, keepdim=True) - grams.mean(2, keepdim=True) + grams.mean((1, 2), keepdim=True)
    off = 1 - torch.eye(n, dtype=grams.dtype, device=grams.device)
    grams = grams * off
    row = grams.sum(2, keepdim=True) / (n - 2)
    return (grams - row - row.transpose(1, 2) + grams.sum((1, 2), keepdim=True) / ((n - 1) * (n - 2))) * off


def _by_items(x: Tensor, y: Tensor, unbiased: bool) -> float:
    return float(_cross((x @ x.T)[None], (y @ y.T)[None], unbiased)[0, 0])


def _by_features(x: Tensor, y: Tensor, unbiased: bool) -> float:
    """The same of centred features without any matrix of items by items."""
    n = len(x)
    square = float((x.T @ y).square().sum())
    if not unbiased:
        return square / (n - 1) ** 2
    # of K = x x' without its diagonal k: rows sum to -k, since those of x x' sum to 0
    k, m = x.square().sum(1), y.square().sum(1)
    trace = square - float(k @ m)
    sums = float(k.sum() * m.sum()) / ((n - 1) * (n - 2)) - 2 / (n - 2) * float(k @ m)
    return (trace + sums) / (n * (n - 3))


def _ratio(cross: float, own: float, across: float) -> float:
    if min(own, across) <= 0:
        raise UsageError("one of the tables says the same of all items: it is like nothing")
    return cross / float(np.sqrt(own * across))
