"""The mean slopes of one function call from baseline to input: the multipliers of `_rescale`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

NODES = (1, 4, 16, 64)
CLOSE = 1e-5
"""Of y - y0, as what comes after the call weighs it: when there are enough nodes."""


class Call:
    """One call of the run on the inputs, its multipliers the means of its slopes on the line between its arguments.

    `again` maps tensors in the place of `given`, which depend on the input, to what they make; `learn` is told what the
    run on the baselines has in their place; `back` turns multipliers of `made` into those of `given`. A call whose
    nodes do not suffice puts its name into `kept`.
    """

    def __init__(
        self,
        name: str,
        again: Callable[[list[Tensor]], list[Tensor]],
        given: Sequence[Tensor],
        made: Sequence[Tensor],
        kept: set[str],
    ) -> None:
        self.name, self.again, self.kept = name, again, kept
        self.given, self.made = [a.detach() for a in given], [y.detach() for y in made]
        self.base: list[Tensor] = []
        self.change: list[Tensor] = []

    def learn(self, given: list[Tensor], made: list[Tensor]) -> None:
        """What the run on the baselines has here."""
        self.base = given
        self.change = [y - y0 for y, y0 in zip(self.made, made, strict=True)]
        self.made = []

    def save(self, storage: int) -> None:
        """Keep apart what shares this storage, which is about to be written over."""
        self.given, self.made, self.base = (
            [a.clone() if storage_of(a) == storage else a for a in kept] for kept in (self.given, self.made, self.base)
        )

    def back(self, slopes: Sequence[Tensor]) -> list[Tensor]:
        if not self.base:
            return self.slopes(self.given, slopes)
        if any(each.is_complex() for each in (*self.given, *self.change)):
            self.kept.add(self.name)
            return self.slopes(self.given, slopes)
        # both may be -inf: a mask
        steps = [torch.where(a == a0, 0, a - a0) for a, a0 in zip(self.given, self.base, strict=True)]
        change = [torch.where(c.isfinite(), c, 0) for c in self.change]
        wanted = _dot(slopes, change)
        rounding = 1e-6 * _dot([s.abs() for s in slopes], [c.abs() for c in change])
        for count in NODES:
            total = [torch.zeros_like(a) for a in self.given]
            for place, share in zip(*np.polynomial.legendre.leggauss(count), strict=True):
                at = [a - (1 - float(place)) / 2 * step for a, step in zip(self.given, steps, strict=True)]
                for sum_, slope in zip(total, self.slopes(at, slopes), strict=True):
                    sum_.add_(slope, alpha=float(share) / 2)
            if abs(_dot(total, steps) - wanted) <= CLOSE * abs(wanted) + rounding:
                return total
        self.kept.add(self.name)
        return total

    def slopes(self, at: list[Tensor], slopes: Sequence[Tensor]) -> list[Tensor]:
        """Those of `slopes` times the outputs, where the arguments are `at`."""
        with torch.enable_grad():
            asked = [a.detach().requires_grad_() for a in at]
            pairs = [(y, s) for y, s in zip(self.again(asked), slopes, strict=True) if y.requires_grad]
            found = torch.autograd.grad([y for y, _ in pairs], asked, [s for _, s in pairs], allow_unused=True)
        return [torch.zeros_like(a) if slope is None else slope for a, slope in zip(at, found, strict=True)]


class Cellwise(Call):
    """A function of each cell."""

    smooth = False
    """Without kinks or poles, and changing over lengths of about 1."""
    many: Tensor | None = None

    def learn(self, given: list[Tensor], made: list[Tensor]) -> None:
        (a,), (y,), (a0,), (y0,) = self.given, self.made, given, made
        step = a - a0
        many = (y - y0).div_(step)
        if self.name == "relu":  # exact, however near
            near, slope = step == 0, (a > 0).to(a.dtype)
        else:
            eps = torch.finfo(a.dtype).eps
            near = step.abs() <= (eps ** (1 / 3) if self.smooth else eps**0.5 * a.abs())
            slope = self.slopes([(a + a0) / 2], [torch.ones_like(y)])[0] if bool(near.any()) else many
        self.many = torch.where(near, slope, many)
        self.given, self.made = [], []

    def back(self, slopes: Sequence[Tensor]) -> list[Tensor]:
        return super().back(slopes) if self.many is None else [slopes[0] * self.many]


class Smooth(Cellwise):
    """A function of each cell that needs a wider step for its quotient."""

    smooth = True


class Largest(Call):
    """The largest cells along the last axis: `again` makes [values, their places]."""

    parts: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def learn(self, given: list[Tensor], made: list[Tensor]) -> None:
        (now,), (top, own), (before,), (base, rival) = self.given, self.made, given, made
        change, cross = now - before, torch.maximum(top, base)
        won, lost = change.gather(-1, own), change.gather(-1, rival)
        # what is gained goes to the cell that wins for the input; where nothing changes, the slope of the maximum
        up = torch.where((top == base) & (won == 0), 1, _quotient(cross - base, won))
        self.parts = own, up, rival, _quotient(top - cross, lost)
        self.shape, self.given, self.made = now.shape, [], []

    def back(self, slopes: Sequence[Tensor]) -> list[Tensor]:
        (slope,) = slopes
        if self.parts is None:
            return [torch.zeros_like(self.given[0]).scatter_add_(-1, self.made[1], slope)]
        own, up, rival, down = self.parts
        total = slope.new_zeros(self.shape).scatter_add_(-1, own, slope * up)
        return [total.scatter_add_(-1, rival, slope * down)]


class Linked(torch.autograd.Function):
    """What a call just made, `made` in a list so that autograd takes it for new, with the call's own way back."""

    @staticmethod
    def forward(ctx: Any, call: Call, made: list[Tensor], *given: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return None, None, *ctx.call.back(slopes)


def storage_of(x: Tensor) -> int:
    """The same number for tensors that share memory."""
    return x.untyped_storage().data_ptr()


def _quotient(change: Tensor, step: Tensor) -> Tensor:
    return torch.where(step == 0, 0, change / step)


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float((x * y).sum(dtype=torch.float64)) for x, y in zip(a, b, strict=True))
