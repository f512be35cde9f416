"""Layer-CAM: every cell of a layer, weighed by its own gradient where that is above 0, so that early layers with fine
grids can be read as well (Jiang et al., TIP 2021, doi:10.1109/TIP.2021.3089943, equations 6 and 7).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._layer import layer_map


@EXPLAINERS.register(
    "layer_cam",
    ndims=(1, 2, 3),
    needs="layer",
    complete=False,
    linear="",
    nonlinear="it reads a layer with a grid, and a linear network has none",
    sound=True,
    source="Jiang et al., doi:10.1109/TIP.2021.3089943",
)
@dataclass(frozen=True)
class LayerCAM:
    """Of `layer`, or of the most faithful one."""

    layer: str | None = None

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        return layer_map(net, x, target, self.layer, lambda a, slopes: (a * slopes.relu()).sum(1).relu())
