"""What Grad-CAM, Grad-CAM++ and Layer-CAM cost: Gridsight against pytorch-grad-cam, and whether both say the same.

Same network, same inputs, same layer and targets given, one thread; both place the map on the input. Theirs keeps its
hooks from call to call and brings each map to 0 to 1; ours checks its input, finds what the layer's cells see, and
leaves the network as it was. They take turns, and the ratio of each pair of processor times counts. "slim": theirs with
the weights frozen and an input that asks for a gradient, which its users can arrange; shown, not judged. Bar: no other
median ratio above 1.05. Before placing, both maps differ by less than 1e-5 of the largest value; the last weights are
large for it, since their Grad-CAM++ adds 1e-6 to a quotient's lower part, which in ordinary networks is not small.

    pip install grad-cam
    python benchmarks/bench_cam.py
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bench_accuracy import matmul_rate
from torch import nn

from gridsight.attribution import attribute
from gridsight.models import create

BAR, SAME, SECONDS, LARGE = 1.05, 1e-5, 6.0, 1e6
CASES = (
    # network, its arguments, layer, side of the input, items
    ("resnet20", {"num_classes": 10}, "layer3.2", 32, 1),
    ("resnet20", {"num_classes": 10}, "layer3.2", 32, 16),
    ("resnet20", {"num_classes": 10}, "layer1.2", 32, 16),
    ("gridnet", {"in_channels": 1, "num_classes": 10}, "stages.1", 28, 1),
    ("resnet18", {}, "layer4.1", 224, 1),
    ("resnet18", {}, "layer2.1", 224, 4),
    ("mobilenet_v2", {}, "features.17", 224, 1),
    ("resnet50", {}, "layer4.2", 224, 1),
)


def peers() -> dict[str, Any]:
    """Their class for each method of ours."""
    try:
        from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
    except ImportError as error:
        sys.exit(f"pytorch-grad-cam is needed to compare with ({error}): pip install grad-cam")
    return {"grad_cam": GradCAM, "grad_cam_plus_plus": GradCAMPlusPlus, "layer_cam": LayerCAM}


def grid_of(cam: Any, x: torch.Tensor, targets: list[Any], layer: Any) -> np.ndarray:
    """Their map on the layer's own cells, before it is enlarged and brought to 0 to 1; values below 0 are left out."""
    cam(x, targets)
    kept = cam.activations_and_grads
    written, slopes = kept.activations[0].detach().numpy(), kept.gradients[0].detach().numpy()
    return np.maximum(cam.get_cam_image(x, layer, targets, written, slopes, False), 0)


def seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def ratio_of(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float, float]:
    """Median processor times in milliseconds, and the median ratio of pairs."""
    ours(), theirs()
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(pairs) < 5:
        pairs.append((seconds(ours), seconds(theirs)))
    a, b = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    return a, b, statistics.median(x / y for x, y in pairs)


def main() -> bool:
    """Whether every case keeps the bar."""
    found = peers()
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.set_num_threads(1)
    print(f"1 thread, torch {torch.__version__}, matmul {matmul_rate():.0f} GFLOP/s; milliseconds of processor time")
    print(
        f"{'network':13} {'layer':12} {'side':>4} {'N':>3} {'method':18} {'ours':>7} {'theirs':>7} {'ratio':>6} off by"
    )
    kept = True
    for name, arguments, layer, side, count in CASES:
        torch.manual_seed(0)
        net = create(name, **arguments).eval()
        [each for each in net.modules() if isinstance(each, nn.Linear)][-1].weight.data.mul_(LARGE)
        x = torch.randn(count, arguments.get("in_channels", 3), side, side)
        targets, module = [ClassifierOutputTarget(1)] * count, net.get_submodule(layer)
        for method, peer in found.items():
            for slim in (False, True) if method == "grad_cam" else (False,):
                given = x.clone().requires_grad_(slim)
                net.requires_grad_(not slim)
                with peer(net, [module]) as cam:
                    grid = attribute(net, x, method, 1, layer=layer).grid
                    other = grid_of(cam, given, targets, module)
                    off = float(np.abs(grid.numpy() - other).max() / max(other.max(), 1e-12))

                    def ours(net: Any = net, method: str = method, layer: str = layer, x: Any = x) -> Any:
                        return attribute(net, x, method, 1, layer=layer)

                    def theirs(cam: Any = cam, given: Any = given, targets: Any = targets) -> Any:
                        return cam(given, targets)

                    a, b, ratio = ratio_of(ours, theirs)
                called = method + (" slim" if slim else "")
                kept &= (slim or ratio <= BAR) and off < SAME
                print(f"{name:13} {layer:12} {side:4} {count:3} {called:18} {a:7.1f} {b:7.1f} {ratio:6.2f} {off:.0e}")
    return kept


if __name__ == "__main__":
    sys.exit(not main())
