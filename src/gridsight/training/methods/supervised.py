"""Supervised learning: front end, augmentation, network, the task's loss, one optimiser step a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gridsight.data.augment import apply
from gridsight.data.loader import Batch
from gridsight.nn.frontend import FrontEnd
from gridsight.tasks.classify import Classify
from gridsight.training.methods import METHODS

Operations = Sequence[tuple[str, float]]


@METHODS.register("supervised")
class Supervised:
    """One network, one task; `step` leaves the gradients of a batch in the parameters."""

    def __init__(self, net: nn.Module, front: FrontEnd, task: Classify, operations: Operations, seed: int) -> None:
        self.net, self.front, self.task, self.operations, self.seed = net, front, task, tuple(operations), seed

    def inputs(self, batch: Batch, epoch: int) -> Tensor:
        """What the network sees of a batch: scaled, augmented, through the front end."""
        sound = self.front.mel is not None
        x = self.front.scale(batch.x)
        x = apply(x, batch.items, self.seed, epoch, self.operations, "signal" if sound else "grid")
        x = self.front.transform(x)
        return apply(x, batch.items, self.seed, epoch, self.operations, "spectrum") if sound else x

    def step(self, batch: Batch, epoch: int, accumulate: int = 1) -> tuple[Tensor, Tensor]:
        """(loss, correct answers) of a batch, both scalars on the device; `accumulate` parts give the same gradient."""
        x = self.inputs(batch, epoch)
        if accumulate == 1:
            outputs = self.net.forward_train(x)  # type: ignore[operator]
            loss = self._loss(outputs, batch.y)
            loss.backward()
            return loss.detach(), (outputs[0].detach().argmax(1) == batch.y).sum()
        total = torch.zeros((), device=x.device)
        correct = torch.zeros((), dtype=torch.int64, device=x.device)
        whole = self.task.mass(batch.y)
        for part_x, part_y in zip(x.chunk(accumulate), batch.y.chunk(accumulate), strict=True):
            outputs = self.net.forward_train(part_x)  # type: ignore[operator]
            loss = self._loss(outputs, part_y) * (self.task.mass(part_y) / whole)
            loss.backward()
            total += loss.detach()
            correct += (outputs[0].detach().argmax(1) == part_y).sum()
        return total, correct

    def _loss(self, outputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        # auxiliary heads count 0.3, as in GoogLeNet (Szegedy et al., arXiv:1409.4842, section 5)
        loss = self.task.loss(outputs[0], y)
        for auxiliary in outputs[1:]:
            loss = loss + 0.3 * self.task.loss(auxiliary, y)
        return loss
