"""Passes of any network that is only asked, not trained: its outputs (N, K), and how many items go at once."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gridsight.core.errors import UsageError
from gridsight.nn.memory import free_memory, parts_that_fit

MOST = 64
"""Items in one pass: larger batches are no faster on a CPU."""
ENOUGH, FEW = 2**27, 4
"""Bytes of activations and gradients in one pass on a CPU: with more, each result is too large for the caches and for
the memory that the allocator keeps, which takes up to a third longer; but `FEW` items share the reading of weights."""


def outputs_of(net: nn.Module, x: Tensor) -> Tensor:
    """The network's outputs (N, K); other shapes are a `UsageError`."""
    outputs = net(x.clone())  # a network may write over what it is given
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != len(x):
        said = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UsageError(f"a network that is explained gives outputs (N, K), not {said}: wrap it in one that does")
    return outputs


_known: WeakKeyDictionary[nn.Module, dict[Any, int]] = WeakKeyDictionary()
"""Bytes an item, of networks that were asked before, by what the item is."""


@torch.no_grad()
def at_once(net: nn.Module, x: Tensor) -> int:
    """Items like those of x that may go through the network together, at least 1, at most `MOST`.

    Of one real pass, the first time that a network is asked about items of this kind; within `undisturbed`.
    """
    known, kind = _known.setdefault(net, {}), (x.shape[1:], x.dtype, x.device)
    if kind not in known:
        with _Written() as written:
            net(x[:1].clone())
        known[kind] = written.bytes
    most = MOST // parts_that_fit(2 * known[kind], MOST, free_memory(x.device))
    if x.device.type == "cpu":
        most = min(most, max(FEW, ENOUGH // max(1, 2 * known[kind])))
    return max(1, most)


class _Written(TorchDispatchMode):
    """Counts the bytes of every result that is no view: about what a pass with gradients keeps."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(out.alias_info for out in func._schema.returns):
            for out in result if isinstance(result, list | tuple) else [result]:
                if isinstance(out, Tensor):
                    self.bytes += out.numel() * out.element_size()
        return result
