"""Grad-CAM: a layer's channels, weighed by their mean gradient (Selvaraju et al., arXiv:1610.02391, section 3).

Differs: the layer is measured, not guessed (`_layer`), its cells are placed where their receptive fields have their
centres, and the map is not brought to 0 to 1.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._layer import layer_map


@EXPLAINERS.register(
    "grad_cam",
    ndims=(1, 2, 3),
    needs="layer",
    complete=False,
    linear="",
    nonlinear="it reads a layer with a grid, and a linear network has none",
    sound=True,
    source="Selvaraju et al., arXiv:1610.02391",
    contract={"positive": False},
)
@dataclass(frozen=True)
class GradCAM:
    """Of `layer`, or of the most faithful one; `positive` leaves out what speaks against the target, as the source."""

    layer: str | None = None
    positive: bool = True

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        def weigh(activations: Tensor, slopes: Tensor) -> Tensor:
            weights = slopes.mean(tuple(range(2, slopes.dim())), keepdim=True)
            grid = (weights * activations).sum(1)
            return grid.relu() if self.positive else grid

        return layer_map(net, x, target, self.layer, weigh)
