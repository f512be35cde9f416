"""Trained weights in a network for other data: another head, other channels, another number of axes.

- The head answers about other classes, so it keeps its fresh weights; which tensors it has is not written down
  anywhere: they are those whose shape changes with the number of classes.
- Channels: one channel reads the sum of the kernels (a picture of three equal channels gives the same answer); any
  other number repeats them in turn, corrected so that equal channels give the same answer.
- Axes: one more by the middle slice, one less by a sum over the axis (`nn.inflate`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gridsight.core.errors import UsageError
from gridsight.nn.inflate import inflate, sum_axis
from gridsight.nn.net import Net

Build = Callable[[int, int, int], Net]
"""The architecture for (ndim, in_channels, num_classes)."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The weights of an architecture, under its own keys, and what it was built for."""

    state: Mapping[str, Tensor]
    ndim: int
    in_channels: int
    num_classes: int


def transfer(build: Build, trained: Trained, target: Net, ndim: int, in_channels: int, num_classes: int) -> Net:
    """`target`, built for the second trio, with the trained weights in all but its head."""
    if abs(ndim - trained.ndim) > 1:
        raise UsageError(f"weights of {trained.ndim} axes do not become those of {ndim}: one more or one less")
    head, stem = changing(build, trained, (0, 1), (1, 0))
    fresh = {key: value.clone() for key, value in target.state_dict().items() if key in head}
    flat = target if ndim == trained.ndim else build(trained.ndim, in_channels, num_classes)
    own = flat.state_dict()
    carried = {key: value for key, value in trained.state.items() if key not in head}
    kernels = {key: value for key, value in carried.items() if key in stem and value.dim() > 1}
    carried |= {key: to_channels(value, in_channels) for key, value in kernels.items()}
    state = flat.fit_state(own | carried)
    # where there is one channel, or as many as a layer has, some networks leave a layer out
    missing = {key for key in own if key not in trained.state and not key.endswith("num_batches_tracked")}
    odd = sorted(missing | {key for key in state if key not in own or state[key].shape != own[key].shape})
    if odd:
        raise UsageError(
            f"weights for {trained.in_channels} channels do not fit the network for {in_channels} channels of this "
            f"size (first: {odd[0]}); take data of the channels and the size that they were trained on"
        )
    flat.load_state_dict(state)
    if ndim != trained.ndim:
        (inflate if ndim > trained.ndim else sum_axis)(flat, target)
        target.load_state_dict(target.state_dict() | fresh)
    return target


def changing(build: Build, trained: Trained, *more: tuple[int, int]) -> list[set[str]]:
    """For each (channels, classes), the keys whose shapes differ in a network with so many more of them."""

    def shapes(channels: int, classes: int) -> dict[str, torch.Size]:
        with torch.device("meta"):
            net = build(trained.ndim, trained.in_channels + channels, trained.num_classes + classes)
        return {key: value.shape for key, value in net.state_dict().items()}

    now = shapes(0, 0)
    return [{key for key in now if now[key] != other.get(key)} for other in (shapes(*each) for each in more)]


def to_channels(kernel: Tensor, count: int) -> Tensor:
    """(out, in, *taps) as a kernel (out, count, *taps) that answers the same about equal channels."""
    old = kernel.shape[1]
    if count == old:
        return kernel
    if count == 1:
        return kernel.sum(1, keepdim=True)
    repeated = kernel[:, torch.arange(count) % old] * (old / count)
    # where `count` is no multiple of `old`, what is missing to the sum is spread over all
    return repeated + (kernel.sum(1, keepdim=True) - repeated.sum(1, keepdim=True)) / count
