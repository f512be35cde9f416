"""Grad-CAM++: a layer's channels, weighed by their gradients above 0, more where these are alone (Chattopadhay et al.,
arXiv:1710.11063, equation 19, of the exponential of the answer).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._layer import layer_map


@EXPLAINERS.register(
    "grad_cam_plus_plus",
    ndims=(1, 2, 3),
    needs="layer",
    complete=False,
    linear="",
    nonlinear="it reads a layer with a grid, and a linear network has none",
    sound=False,
    unsound="its weights are never below 0: it shows where a layer is active, nearly so with shuffled weights too",
    source="Chattopadhay et al., arXiv:1710.11063",
)
@dataclass(frozen=True)
class GradCAMPlusPlus:
    """Of `layer`, or of the most faithful one."""

    layer: str | None = None

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        def weigh(activations: Tensor, slopes: Tensor) -> Tensor:
            cells = tuple(range(2, slopes.dim()))
            square, sums = slopes.square(), activations.sum(cells, keepdim=True)
            below = 2 * square + sums * square * slopes
            share = square / below.where(below != 0, below.new_ones(()))
            weights = (share * slopes.relu()).sum(cells, keepdim=True)
            return (weights * activations).sum(1).relu()

        return layer_map(net, x, target, self.layer, weigh)
