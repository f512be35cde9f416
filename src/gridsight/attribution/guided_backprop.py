"""Guided backpropagation: a gradient that passes a rectifier only where it is above 0 (Springenberg et al.,
arXiv:1412.6806, section 3.4).

Here so that it can be compared. It nearly recovers the input, whatever the network has learned (Nie et al.,
arXiv:1805.07039; Adebayo et al., arXiv:1810.03292), so its maps say little of the answer. Differs: every call of a ReLU
counts, not every module.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._passes import gradient
from gridsight.nn.undisturbed import undisturbed


class _Guided(TorchFunctionMode):
    """Within it gradients below 0 end at rectifiers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").strip("_")
        if name in ("relu", "relu6") and isinstance(found, Tensor) and found.requires_grad:
            found.register_hook(lambda slope: slope.clamp(min=0))
        return found


@EXPLAINERS.register(
    "guided_backprop",
    ndims=(1, 2, 3),
    needs="gradient",
    complete=False,
    linear="weights",
    sound=False,
    unsound="nearly the same map whatever the network has learned",
    source="Springenberg et al., arXiv:1412.6806",
)
@dataclass(frozen=True)
class GuidedBackprop:
    """The guided gradient, channels added up."""

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        with undisturbed(net), _Guided():
            _, slope = gradient(net, x, target)
        return Map(values=slope.sum(1), channels=slope, passes=len(x), backward=len(x))
