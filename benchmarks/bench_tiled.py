"""Does a 20-megapixel photograph fit, predicted at its own resolution by tiles, and what do tiles cost?

A process of its own decodes a JPEG with the package's reader and runs one network over it; its peak of resident memory
(VmHWM of Linux, everything included: Python, torch, the decoded picture) and its seconds are printed, and the largest
difference to one untiled pass on a part that fits. Networks: that of the recipe for photographs of 224 x 224, and
ResNet-18. Bars: below 1.5 GB, and equal to 1e-5.

    python benchmarks/bench_tiled.py            # 20 megapixels
    python benchmarks/bench_tiled.py 10000 10000
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

PART = 1200  # cells an axis of what is also run untiled
BAR_MB, BAR_EQUAL = 1500, 1e-5


def write_picture(path: Path, height: int, width: int) -> None:
    """A JPEG with detail at every scale, as a photograph has."""
    import numpy as np
    import simplejpeg

    rng = np.random.default_rng(0)
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, 512):  # in strips, for the memory of this process is no question
        rows = min(512, height - top)
        layers = [
            np.kron(rng.normal(size=(rows // s + 1, width // s + 1, 3)), np.ones((s, s, 1)))[:rows, :width] * s**0.5
            for s in (1, 8, 64)
        ]
        picture[top : top + rows] = np.clip(128 + 14 * sum(layers), 0, 255)
    path.write_bytes(simplejpeg.encode_jpeg(picture, quality=90))


def measure(name: str, path: Path) -> None:
    """Decode, run, and print one line; in a process of its own."""
    import numpy as np
    import torch

    from gridsight.artifact.model_file import Model
    from gridsight.artifact.predictor import Predictor
    from gridsight.artifact.whole import whole_outputs
    from gridsight.data.files import File
    from gridsight.data.readers import READERS
    from gridsight.data.sample import Sample
    from gridsight.data.spec import DataSpec
    from gridsight.models import create
    from gridsight.nn.frontend import FrontEndSettings
    from gridsight.training.recipe import recipe

    spec = DataSpec("photographs", "image", 2, 3, (224, 224), "uint8", ("a", "b"), fit="crop")
    torch.manual_seed(0)
    arguments = dict(recipe(2, 3, (224, 224), 2, 5000, colour=True).arguments) if name == "gridnet" else {}
    net = create(name, num_classes=2, **arguments).eval()
    front = FrontEndSettings(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    predictor = Predictor(Model(name, arguments, 2, 3, net, front, spec), "cpu")

    start = time.perf_counter()
    sample = READERS.create("image").read_single(File(path))
    decoded = time.perf_counter()
    whole_outputs(predictor, sample)
    ended = time.perf_counter()
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1000

    part = Sample(np.ascontiguousarray(sample.array[:, :PART, : PART - 77]), "part")
    begin = time.perf_counter()
    tiles = whole_outputs(predictor, part, memory=64 << 20)  # small enough for several tiles
    between = time.perf_counter()
    with torch.no_grad():
        untiled = predictor.net(predictor.front(torch.from_numpy(part.array)[None])).numpy()
    after = time.perf_counter()
    worst, cells = float(np.abs(tiles - untiled).max()), sample.array[0].size
    a_cell = (after - between) / part.array[0].size
    print(
        f"{name}, {cells / 1e6:.0f} MP: decoded in {decoded - start:.2f} s, answered in {ended - decoded:.1f} s = "
        f"{(ended - decoded) / cells / a_cell:.2f} times an untiled pass a cell; "
        f"peak {peak:,.0f} MB ({'below' if peak < BAR_MB else 'ABOVE'} {BAR_MB:,}); largest difference on "
        f"{PART} x {PART - 77} cells {worst:.1e} ({'below' if worst < BAR_EQUAL else 'ABOVE'} {BAR_EQUAL:g}), "
        f"logits {untiled[0].round(3)}, tiles of it {between - begin:.1f} s, untiled {after - between:.1f} s"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--measure":
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        height, width = map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (4000, 5000)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "photograph.jpg"
            write_picture(path, height, width)
            print(f"{width} x {height}, {path.stat().st_size / 1e6:.0f} MB of JPEG", flush=True)
            for name in ("gridnet", "resnet18"):
                subprocess.run([sys.executable, __file__, "--measure", name, str(path)], check=True)
