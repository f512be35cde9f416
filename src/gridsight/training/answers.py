"""What a network says of the items of a loader, each asked about once."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from gridsight.core.ranks import Ranks
from gridsight.data.loader import Batch, Loader
from gridsight.nn.frontend import FrontEnd
from gridsight.nn.memory import is_out_of_memory

T = TypeVar("T")


def each_batch(data: Loader, device: torch.device, ask: Callable[[Batch], T]) -> list[T]:
    """What `ask` says of every batch in order, on `device`; must not depend on the size of a batch.

    Where memory runs out all are asked about again, in batches half as large.
    """
    while True:
        try:
            return [ask(batch.to(device)) for batch in data.in_order()]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or data.size == 1:
                raise
        data = replace(data, size=data.size // 2)


@torch.no_grad()
def predict_logits(
    net: nn.Module, front: FrontEnd, data: Loader, device: torch.device, ranks: Ranks | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs (n, K) float32 and targets (n, ...) of every item in order, on the CPU; the network is left as it was.

    Each of several processes asks about its share; all have all answers.
    """
    ranks = ranks or Ranks()
    data = replace(data, rank=ranks.rank, world=ranks.world)
    training = net.training
    net.eval()
    try:
        found = each_batch(data, device, lambda batch: _answer(net, front, batch))
    finally:
        net.train(training)
    found = [pair for share in ranks.gather(found) for pair in share]
    return torch.cat([outputs for outputs, _ in found]), torch.cat([y for _, y in found])


def _answer(net: nn.Module, front: FrontEnd, batch: Batch) -> tuple[Tensor, Tensor]:
    x = front(batch.x)
    return (net(x) if batch.sizes is None else net(x, batch.mask)).float().cpu(), batch.y.cpu()
