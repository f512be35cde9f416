"""Is a convolutional network the cheaper one at equal accuracy, on this processor?

Vision transformers beside convolutional networks whose published ImageNet accuracy (1,000 classes, trained on these
alone) is about theirs or above. A process each, in turns: milliseconds of one picture and of a batch of 8 (medians,
folded, channels-last, in float32), processor seconds a picture, which energy goes by on a processor, joules where the
kernel tells them (RAPL), and how much memory the process holds above what it held before the network was made. Weights
are random: no figure here depends on their values. The accuracies are their publishers', not measured here.

    python benchmarks/bench_vit.py [--rounds 3]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from bench_accuracy import matmul_rate
from small import machine

from gridsight.measure.cost import cost
from gridsight.models import MODELS, create
from gridsight.nn.fold import fold
from gridsight.nn.nd import channels_last

SIZES = {"efficientnet_b2": 288, "efficientnet_b3": 300}
"""Pixels at which the published accuracy was measured; 224 of all others."""
GROUPS = {
    "72 to 74 %": ("deit_tiny", "mobilenet_v3_large", "regnet_y_400mf"),
    "80 to 81 %": ("deit_small", "regnet_y_8gf", "efficientnet_b2"),
    "81 to 82.5 %": ("vit_b_16", "swin_t", "convnext_tiny", "efficientnet_b3"),
}
ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
"""Microjoules that the first processor has taken, where it can be read."""


def main() -> int:
    """A table a group."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one)))
        return 0
    print(f"{machine()}; matmul {matmul_rate():.0f} GFLOP/s; energy {'read' if ENERGY.exists() else 'not told here'}")
    for group, names in GROUPS.items():
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(given.rounds):
            for name in names:
                command = [sys.executable, "-W", "ignore", __file__, "--one", name]
                rows[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        print(f"\n{group} (published)\n| network | top-1 | px | M parameters | G MACs | ms for 1 | pictures/s of 8 | "
              "processor s a picture | J a picture | MB |\n" + "|---" * 10 + "|")  # fmt: skip
        for name, found in rows.items():
            first, said = found[0], {key: statistics.median(r[key] for r in found) for key in ("one", "many", "work")}
            joules = [r["joules"] for r in found if r["joules"] is not None]
            print(
                f"| {name} | {first['published']} | {first['size']} | {first['parameters'] / 1e6:.1f} | "
                f"{first['macs'] / 1e9:.2f} | {1e3 * said['one']:.1f} | {8 / said['many']:.1f} | {said['work']:.3f} | "
                f"{f'{statistics.median(joules):.2f}' if joules else '-'} | "
                f"{max(r['bytes'] for r in found) / 1e6:.0f} |",
                flush=True,
            )
    return 0


@torch.inference_mode()
def measured(name: str) -> dict[str, Any]:
    """The figures of one network, in a process of its own."""
    size, before = SIZES.get(name, 224), _held()
    arguments = {"spatial": size} if MODELS.accepts(name, "spatial") else {}
    with torch.inference_mode(False):
        net = create(name, num_classes=1000, **arguments).eval()
        total = cost(net, (3, size, size))
        net = channels_last(fold(net, torch.zeros(1, 3, size, size)).net)
    one, many = (torch.randn(n, 3, size, size).to(memory_format=torch.channels_last) for n in (1, 8))
    seconds = {}
    for key, x in (("one", one), ("many", many)):
        net(x), net(x)
        turns = []
        for _ in range(15 if key == "one" else 5):
            start = time.perf_counter()
            net(x)
            turns.append(time.perf_counter() - start)
        seconds[key] = statistics.median(turns)
    work, joules, start = time.process_time(), _joules(), time.perf_counter()
    count = 0
    while time.perf_counter() - start < 2:
        net(many)
        count += len(many)
    after = _joules()
    return {
        "published": str(MODELS.get(name).tags["published"]).split(",")[0].split(" top")[0],
        "size": size,
        "parameters": total.parameters,
        "macs": total.macs,
        **seconds,
        "work": (time.process_time() - work) / count,
        "joules": None if joules is None or after is None else (after - joules) / count,
        "bytes": _held() - before,
    }


def _held() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _joules() -> float | None:
    try:
        return int(ENERGY.read_text()) / 1e6
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
