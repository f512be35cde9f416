"""Supervised learning: front end, augmentation, mixup, network, the task's loss, one optimiser step a batch.

Mixup (Zhang et al., arXiv:1710.09412): an input is `share` of one item and for the rest its neighbour in the batch,
whose order is new in every epoch; the loss is that of both labels, weighted alike. `share`, of a whole batch, is drawn
from Beta(mixup, mixup). Under masks a blend is real where either item is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gridsight.core import seed as hashing
from gridsight.data.augment import apply, prepared
from gridsight.data.loader import Batch
from gridsight.nn import masked
from gridsight.nn.dropout import numbered
from gridsight.nn.frontend import FrontEnd
from gridsight.nn.resample import resize
from gridsight.tasks import Task
from gridsight.training.methods import METHODS

Operations = Sequence[tuple[str, float]]

SMALL = 0.75
"""Size of shrunk items over their own: a step of CIFAR-10 costs little more than half."""


@METHODS.register("supervised")
class Supervised:
    """One network, one task; `step` leaves the gradients of a batch in the parameters.

    `precision` "bfloat16" is mixed precision: weights, norms and the loss stay in float32 (Kalamkar et al.,
    arXiv:1905.12322: with bfloat16's range no loss scaling is needed). With `mixup` above 0 batches come from a
    `chained` loader: their last row is only the neighbour of the one before.
    """

    def __init__(
        self,
        net: nn.Module,
        front: FrontEnd,
        task: Task,
        operations: Operations,
        seed: int,
        mixup: float = 0.0,
        precision: str = "float32",
    ) -> None:
        self.net, self.front, self.task, self.operations, self.seed = net, front, task, tuple(operations), seed
        self.mixup, self.precision = mixup, precision

    def inputs(self, batch: Batch, epoch: int, shrunk: bool = False) -> tuple[Tensor, Tensor | None]:
        """What the network sees of a batch (scaled, augmented, after the front end) and the mask of its real cells.

        `shrunk` items of equal size come at `SMALL` of it.
        """
        sound = self.front.mel is not None
        if batch.sizes is None:
            domain = "signal" if sound else "grid"
            x = prepared(batch.x, batch.items, self.seed, epoch, self.operations, self.front.scale, domain)
        else:
            x = self.front.scale(batch.x)
            if self.operations:
                x = self._each_at_its_size(x, batch, epoch)
        x = self.front.transform(x)
        if sound:
            x = apply(x, batch.items, self.seed, epoch, self.operations, "spectrum")
        if shrunk and batch.sizes is None:
            x = resize(x, [max(1, round(SMALL * n)) for n in x.shape[2:]])
        return x, batch.mask

    def _each_at_its_size(self, x: Tensor, batch: Batch, epoch: int) -> Tensor:
        """Augmented as if there were no padding: items of equal size together."""
        assert batch.sizes is not None
        x = x.clone()
        for size in batch.sizes.unique(dim=0):
            rows = (batch.sizes == size).all(1).nonzero()[:, 0]
            box = tuple(slice(int(side)) for side in size)
            own = x[(rows, slice(None), *box)]
            x[(rows, slice(None), *box)] = apply(own, batch.items[rows], self.seed, epoch, self.operations)
        return x

    def step(self, batch: Batch, epoch: int, accumulate: int = 1, shrunk: bool = False) -> tuple[Tensor, Tensor]:
        """(loss, sum of the task's goodness) of a batch, scalars on the device; `accumulate` parts, one gradient.

        Of a share of a batch: its summands of the mean over the whole, so that shares add up to loss and gradient.
        """
        x, mask = self.inputs(batch, epoch, shrunk)
        targets: Sequence[tuple[float, Tensor]] = ((1.0, batch.y),)
        if self.mixup:
            x, mask, targets = self._mixed(x, mask, batch, epoch)
        total = torch.zeros((), device=x.device)
        good = torch.zeros((), dtype=torch.float64, device=x.device)
        mass = self.task.mass(batch.targets)
        for rows in torch.arange(len(x)).chunk(accumulate):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            with numbered(self.net, self.seed, epoch, batch.items[: len(x)][part]):
                outputs = self._forward(x[part], None if mask is None else mask[part])
            loss = torch.zeros((), device=x.device)
            for weight, y in targets:
                loss = loss + self._loss(outputs, y[part]) * (weight * self.task.mass(y[part]) / mass)
                good += weight * self.task.goodness(outputs[0].detach(), y[part]).sum()
            loss.backward()
            total += loss.detach()
        return total, good

    def _forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """The network's outputs in float32; with bfloat16 its convolutions and products are computed in that."""
        given = (x,) if mask is None else (x, mask)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            outputs = self.net.forward_train(*given)  # type: ignore[operator]
        return outputs if self.precision == "float32" else tuple(each.float() for each in outputs)

    def _mixed(
        self, x: Tensor, mask: Tensor | None, batch: Batch, epoch: int
    ) -> tuple[Tensor, Tensor | None, Sequence[tuple[float, Tensor]]]:
        """Blends of every row but the last with the next one, their masks and their weighted targets."""
        from scipy.special import betaincinv

        u = hashing.key(self.seed, epoch, "mixup", batch.number) / (1 << 63)
        share = float(betaincinv(self.mixup, self.mixup, u))
        if mask is not None:
            x = masked.fill(x, mask)  # what lies beyond the shorter of the two is now read: let it be the mean
            mask = mask[:-1] | mask[1:]
        return share * x[:-1] + (1 - share) * x[1:], mask, self.task.mixed(batch.y[:-1], batch.y[1:], share)

    def _loss(self, outputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        # auxiliary heads count 0.3, as in GoogLeNet (Szegedy et al., arXiv:1409.4842, section 5)
        loss = self.task.loss(outputs[0], y)
        for auxiliary in outputs[1:]:
            loss = loss + 0.3 * self.task.loss(auxiliary, y)
        return loss
