"""Concepts: directions that a layer's cells are made of, found by factorising, and what taking one away does.

The activations of many cells (cells, C) are about U V with nothing below 0: each of k rows of V is a concept, U says
how much of it a cell holds (Olah et al., "The building blocks of interpretability", Distill 2018,
doi:10.23915/distill.00010; Zhang et al., arXiv:2006.15417). A name for a concept proves nothing, so each is taken out
of every cell, the rest of the network runs on, and the change of each output is its `effect`.

Control: as much is taken from the same cells in random directions, a concept's own weights dealt out anew among
channels. Any removal moves the outputs, so a concept is worth naming where it moves one more than random directions
do, for as much that is taken. Intervals are over items (bootstrap). Differs from the sources: the control, the
intervals, and that what the factors leave out stays in.
"""

import heapq
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError
from gridsight.inside._reading import Data, answer, batches
from gridsight.inside.patches import Best, Patches
from gridsight.measure.intervals import bootstrap
from gridsight.measure.layers import Layer, as_grid, find_layer, run_through
from gridsight.measure.passes import at_once, outputs_of
from gridsight.nn.undisturbed import undisturbed

ROWS = 16384
"""Cells that are factorised, as many of each item."""
SWEEPS = 200
"""Of coordinate descent, for how much of each concept a cell holds."""
RESAMPLES = 1000
ALIKE = 0.9
"""Cosine of directions that are no control for one another."""


@dataclass(frozen=True, eq=False)
class Concepts:
    """`basis` (k, C), rows of length 1, in the order of `share`: of the sum of squares that they explain, each one's.

    - `explained`: share of the activations' sum of squares that all explain; `below`: share that lay below 0, which is
      left out.
    - `effect` (k, K): mean change of each output when the concept is there instead of not, over `n` items; `low`,
      `high` its 95 % interval.
    - `control` (directions, K): the same of random directions, as if as much had been taken as of all concepts on
      average; `luck` (k, K): the share of them that move an output at least as far as the concept does, for as much.
    - `top`: the patches that hold most of each; its units are concepts, its items are numbered as in the data,
      all of which are searched where they can be read twice (a tensor, a list, a loader).
    """

    layer: str
    seen: Layer
    basis: Tensor
    share: NDArray[np.float64]
    explained: float
    below: float
    effect: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    control: NDArray[np.float64]
    luck: NDArray[np.float64]
    top: Patches
    n: int

    @property
    def beyond(self) -> NDArray[np.bool_]:
        """(k, K): where the effect is not 0 by its interval and no luck at 5 %, which takes 19 directions at least.

        Of k x K figures that mean nothing, still one in twenty is here.
        """
        return ((self.low > 0) | (self.high < 0)) & (self.luck <= 0.05)


def find_concepts(
    net: nn.Module,
    data: Data,
    name: str,
    k: int | None = None,
    *,
    items: int = 64,
    controls: int = 24,
    patches: int = 9,
    seed: int = 0,
) -> Concepts:
    """The k concepts (default: 8, or as many as channels) of the layer `name`, found and tried on `items` items.

    They are drawn at random from all data; `controls` is the number of random directions.
    """
    if (k is not None and k < 1) or controls < 1 or patches < 1:
        raise UsageError("concepts take k, controls and patches of at least 1")
    x, numbers = _drawn(net, data, items, seed)
    if len(x) < 2:
        raise UsageError("concepts take at least 2 items")
    with undisturbed(net), torch.no_grad():
        layer, most = find_layer(net, tuple(x.shape[1:]), name), at_once(net, x)
        if k is not None and k > layer.shape[0]:
            raise UsageError(f"{name} has {layer.shape[0]} channels: it cannot be made of {k} concepts")
        grids = torch.cat([as_grid(net, run_through(net, part, name)[1], name) for part in x.split(most)])
        rows = _rows(grids, seed)
        below = float(rows.clamp(max=0).double().square().sum() / rows.double().square().sum().clamp(min=1e-300))
        wanted = min(8, layer.shape[0]) if k is None else k
        basis = _factorised(rows.clamp(min=0), wanted, seed, name).to(grids)
        if k is not None and len(basis) < k:
            raise UsageError(f"layer {name!r} is made of {len(basis)} concepts, not {k}")
        k = len(basis)
        held = _held(grids, basis)
        share = held.double().square().movedim(1, 0).flatten(1).sum(1)
        order = share.argsort(descending=True, stable=True)
        basis, held, share = basis[order], held[:, order], share[order]
        left = grids.clamp(min=0) - torch.einsum("nk...,kc->nc...", held, basis)
        whole = grids.clamp(min=0).double().square().sum()
        top = _top(net, data, x, numbers, layer, basis, patches)
        effect, control, luck = _effects(net, x, name, basis, held, controls, most, seed)
    low, high = _interval(effect, seed)
    return Concepts(
        name,
        layer,
        basis.float().cpu(),
        (share / share.sum()).cpu().numpy(),
        1 - float(left.double().square().sum() / whole),
        below,
        effect.mean(0),
        low,
        high,
        control,
        luck,
        top,
        len(x),
    )


def concept_maps(net: nn.Module, x: Tensor, found: Concepts) -> Tensor:
    """How much of each concept the cells of items x (N, C, *spatial) hold: (N, k, *cells).

    `measure.layers.place` puts a concept's maps on the cells of the input.
    """
    with undisturbed(net), torch.no_grad():
        parts = x.split(at_once(net, x))
        grids = torch.cat([as_grid(net, run_through(net, part, found.layer)[1], found.layer) for part in parts])
        return _held(grids, found.basis.to(grids))


def _top(
    net: nn.Module, data: Data, drawn: Tensor, numbers: NDArray[np.int64], layer: Layer, basis: Tensor, patches: int
) -> Patches:
    """Of all items where the data can be read once more, else of those that were drawn."""
    again = isinstance(data, Tensor) or iter(data) is not data
    best = Best(layer, len(basis), patches, drawn[0])
    most = at_once(net, drawn)
    for x in batches(net, data if again else drawn):
        for part in x.split(most):
            best.add(part, _held(as_grid(net, run_through(net, part, layer.name)[1], layer.name), basis))
    found = best.result(range(len(basis)), tuple(drawn.shape[2:]))
    return found if again else replace(found, items=numbers[found.items])


def _drawn(net: nn.Module, data: Data, items: int, seed: int) -> tuple[Tensor, NDArray[np.int64]]:
    """At most `items` items, each as likely as any, and their numbers in the order of the data."""
    kept: list[tuple[float, int, Tensor]] = []
    count = 0
    for x in batches(net, data):
        drawn = hashing.uniform(seed, 0, torch.arange(count, count + len(x)), "concepts", 2).double()
        for i, key in enumerate((drawn[:, 0] + drawn[:, 1] / (1 << 24)).tolist()):
            if len(kept) < items:
                heapq.heappush(kept, (-key, count + i, x[i].detach().clone()))
            elif -key > kept[0][0]:
                heapq.heapreplace(kept, (-key, count + i, x[i].detach().clone()))
        count += len(x)
    kept.sort(key=lambda each: each[1])
    return torch.stack([item for _, _, item in kept]), np.array([number for _, number, _ in kept], np.int64)


def _rows(grids: Tensor, seed: int) -> Tensor:
    """Some cells of every item, (rows, C)."""
    flat = grids.flatten(2).transpose(1, 2)
    n, cells, _ = flat.shape
    quota = min(cells, max(1, ROWS // n))
    order = hashing.uniform(seed, 0, torch.arange(n), "cells", cells).argsort(1)[:, :quota].to(flat.device)
    return flat.gather(1, order[:, :, None].expand(-1, -1, flat.shape[2])).flatten(0, 1)


def _factorised(rows: Tensor, k: int, seed: int, name: str) -> Tensor:
    """(k, C), rows of length 1; fewer where there is no more to explain."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    values = rows.double().cpu().numpy()
    if not values.any():
        raise UsageError(f"nothing in layer {name!r} is above 0: take the layer behind its activation")
    number = hashing.key(seed, "concepts") % (1 << 31)
    method = NMF(min(k, *values.shape), init="nndsvda", max_iter=400, random_state=number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # how good it is `explained` says
        basis = method.fit(values / values.max()).components_
    lengths = np.linalg.norm(basis, axis=1)
    return torch.from_numpy(basis[lengths > 0] / lengths[lengths > 0, None])


def _held(grids: Tensor, basis: Tensor) -> Tensor:
    """U for grids (N, C, *cells): (N, k, *cells), the nearest that is nowhere below 0 (coordinate descent)."""
    towards = torch.einsum("nc...,kc->kn...", grids.clamp(min=0), basis).flatten(1)
    alike = basis @ basis.T
    held, enough = torch.zeros_like(towards), 1e-5 * towards.abs().max()
    for _ in range(SWEEPS):
        moved = torch.zeros((), dtype=towards.dtype, device=towards.device)
        for j in range(len(basis)):
            own = (held[j] + (towards[j] - alike[j] @ held) / alike[j, j]).clamp(min=0)
            moved = torch.maximum(moved, (own - held[j]).abs().max())
            held[j] = own
        if moved <= enough:
            break
    return held.view(len(basis), len(grids), *grids.shape[2:]).transpose(0, 1).contiguous()


def _effects(
    net: nn.Module, x: Tensor, name: str, basis: Tensor, held: Tensor, controls: int, most: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(N, k, K): outputs as they are minus those without each concept; `control` and `luck` of `Concepts`."""
    plain = torch.cat([outputs_of(net, part) for part in x.split(most)]).double()

    def effect(j: int, direction: Tensor) -> Tensor:
        said = []
        for part, much in zip(x.split(most), held[:, j].split(most), strict=True):
            taken = torch.einsum("n...,c->nc...", much, direction)
            said.append(answer(net, part, name, lambda grid, taken=taken: -taken))  # type: ignore[misc]
        return plain - torch.cat(said).double()

    own = torch.stack([effect(j, direction) for j, direction in enumerate(basis)], 1).cpu().numpy()
    k = len(basis)
    amount = torch.linalg.vector_norm(held.double().flatten(2), dim=2).mean(0).clamp(min=1e-300).cpu().numpy()
    others = []
    for draw in range(controls):
        j = draw % k
        turned = _turned(basis[j], hashing.key(seed, draw, "control"))
        others.append(effect(j, turned).mean(0).cpu().numpy() / amount[j])
    control = np.stack(others)
    each = np.abs(own.mean(0) / amount[:, None])
    luck = (1 + (np.abs(control) >= each[:, None]).sum(1)) / (1 + controls)
    return own, control * amount.mean(), luck


def _turned(direction: Tensor, number: int) -> Tensor:
    """The weights of a direction (C,) dealt out anew; not so that it is nearly the same, where there is another way."""
    for attempt in range(16):
        order = hashing.permutation(number, attempt, len(direction))
        turned = direction[torch.from_numpy(order).to(direction.device)]
        if float(turned @ direction) < ALIKE:
            break
    return turned


def _interval(values: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % of the mean over items of (N, k, K): each (k, K)."""
    flat = values.reshape(len(values), -1)
    means = bootstrap(lambda w: (w.T @ flat) / w.sum(0)[:, None], np.arange(len(flat)), RESAMPLES, seed)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])
