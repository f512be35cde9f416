"""The cheapest test of a network, a recipe and labels together: one batch must be learned by heart."""

import copy
import math
from dataclasses import replace

import torch
from torch import nn

from gridsight.core import seed as hashing
from gridsight.training.loop import Trainer
from gridsight.training.methods.supervised import Supervised
from gridsight.training.optimiser import make_optimiser


def overfits(trainer: Trainer, steps: int = 100) -> tuple[bool, float]:
    """Whether the network can learn one batch by heart (at least 99 % right, or nine tenths of the loss gone).

    Works on a copy: the trainer's own network is untouched. A network or recipe that cannot is not worth a long run.
    """
    net = copy.deepcopy(trainer.net)
    method = Supervised(net, trainer.front, trainer.task, (), trainer.seed)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # it is there to keep a network from learning by heart
    optimiser = make_optimiser("adamw", net, lr=2e-3, weight_decay=0.0, momentum=0.9)
    # each of several processes learns the same batch
    batch = next(replace(trainer.train, rank=0, world=1, chained=False).epoch(trainer.seed, 0))
    batch = batch.rows(slice(64)).to(trainer.device)
    share, first = 0.0, math.inf
    net.train()
    torch.manual_seed(hashing.key(trainer.seed, "overfit"))
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        loss, good = method.step(batch, 0, min(trainer.at.parts, len(batch.y)))
        optimiser.step()
        first = float(loss) if first == math.inf else first
        # of a number: how much of the loss is gone
        share = float(good) / len(batch.y) if trainer.task.classes else 1 - float(loss) / first
        if share == 1.0:
            break
    return share >= (0.99 if trainer.task.classes else 0.9), share
