"""What several processes exchange after each has computed its share of a batch: one call a step.

The sum of their gradients is that of the whole batch, for each was divided by the mass of the whole (`Task.mass`).
Batch norms have the statistics of a share; their running statistics are averaged in the same call, so that the state is
the same in all and never depends on when it is saved or evaluated.
"""

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.core.ranks import Ranks
from gridsight.data.loader import Loader


@torch.no_grad()
def exchange(net: nn.Module, ranks: Ranks, loss: Tensor, good: Tensor, asked: bool) -> tuple[float, float, bool]:
    """(loss, goodness) of the whole batch, its gradient in the parameters, and whether any was `asked` to stop."""
    if ranks.world == 1:
        return float(loss), float(good), asked
    # which parameters have a gradient is up to the network, so it is the same in all
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    statistics = [
        value
        for module in net.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training  # not a frozen one
        for value in (module.running_mean, module.running_var)
        if value is not None
    ]
    for value in statistics:
        value /= ranks.world
    said = torch.stack([loss.double(), good.double(), torch.full_like(good, float(asked))])
    ranks.add([*gradients, *statistics, said])
    total, goodness, stop = said.tolist()
    return total, goodness, stop > 0


def refuse_too_many(ranks: Ranks, data: Loader) -> None:
    """A `UsageError` where a batch has fewer items than there are processes."""
    least = len(data.index) * data.repeats // len(data)
    if least < ranks.world:
        raise UsageError(
            f"{ranks.world} processes cannot share batches of {least} items: each takes one at least; "
            "give a larger --batch, or torchrun fewer processes"
        )
