"""Every way to ask for a maximum, as one: the largest along the last axis of rows, and where it is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MAXIMA = {"max", "amax", "maximum", "fmax", "min", "amin", "minimum", "fmin"}
POOLS = {f"{kind}max_pool{ndim}d" for kind in ("", "adaptive_") for ndim in (1, 2, 3)}

Again = Callable[[list[Tensor]], list[Tensor]]
Finish = Callable[[Tensor, Tensor], Any]


def along_rows(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Again, Finish]:
    """(rows, `again`: rows -> [values, their places in the row], `finish`: these -> what the call returns)."""
    pool = name.removesuffix("_with_indices")
    return _pool(pool, args, kwargs, pool != name) if pool in POOLS else _reduced(name, args, kwargs)


def _pool(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], both: bool) -> tuple[Tensor, Again, Finish]:
    named = {key: value for key, value in kwargs.items() if key not in ("return_indices", "input")}
    x, ndim, window = args[0] if args else kwargs["input"], int(name[-2]), F.__dict__[name + "_with_indices"]
    given = args[1 : 2 if name.startswith("adaptive") else 6]  # what follows is `return_indices`
    shape: list[torch.Size] = []

    def again(rows: list[Tensor]) -> list[Tensor]:
        values, places = window(rows[0].view(x.shape), *given, **named)
        shape[:] = [values.shape]
        return [values.flatten(-ndim), places.flatten(-ndim)]

    def finish(values: Tensor, places: Tensor) -> Any:
        return (values.view(shape[0]), places.view(shape[0])) if both else values.view(shape[0])

    return x.flatten(-ndim), again, finish


def _reduced(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Again, Finish]:
    names = ("input", "other" if name in ("maximum", "minimum", "fmax", "fmin") else "dim", "keepdim")
    named = {**dict(zip(names, args, strict=False)), **kwargs}
    x, sign = named["input"], -1 if "min" in name else 1
    other = named.get("other", named.get("dim"))
    axes, keep = named.get("dim", named.get("axis")), bool(named.get("keepdim", False))
    if isinstance(other, Tensor):
        x, axes, keep = torch.stack(torch.broadcast_tensors(x, other), -1), -1, False
    count = 1 if isinstance(axes, int) else len(axes or ()) or x.dim()
    each = (axes,) if isinstance(axes, int) else axes or range(x.dim())
    dims = sorted(axis % x.dim() for axis in each)
    rows = sign * x.movedim(dims, tuple(range(-count, 0))).flatten(-count)

    def again(rows: list[Tensor]) -> list[Tensor]:
        return list(rows[0].max(-1, keepdim=True))

    def finish(values: Tensor, places: Tensor) -> Any:
        found = [sign * values.squeeze(-1), places.squeeze(-1)]
        for axis in dims if keep else ():
            found = [each.unsqueeze(axis) for each in found]
        if name in ("max", "min") and isinstance(axes, int) and not isinstance(other, Tensor):
            return getattr(torch.return_types, name)(found)
        return found[0]

    return rows, again, finish
