"""torchvision's ImageFolder and DataLoader to batches of random windows of 224 pixels; a pass a line of standard input.

RandomResizedCrop of 49 to 100 % of the area at the picture's own aspect of 1, mirrors, ToTensor, Normalize: float32 in
batches of 64, shuffled. Answers each line with {"wall", "cpu", "items"} (seconds; workers included).

    echo | python benchmarks/peers/torchvision_input.py FOLDER [--workers 2]
"""

import argparse
import json
import resource
import sys
import time

import torch
from torch.utils.data import DataLoader
from torchvision import __version__, datasets, transforms


def used() -> float:
    """Seconds of processor time, of workers that have ended too."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    steps = [
        transforms.RandomResizedCrop(224, scale=(0.49, 1.0), ratio=(1.0, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    data = datasets.ImageFolder(given.folder, transforms.Compose(steps))
    loader = DataLoader(data, 64, shuffle=True, num_workers=given.workers)
    print(f"torchvision {__version__}, torch {torch.__version__}", file=sys.stderr)
    for _ in sys.stdin:
        cpu, wall, items = used(), time.perf_counter(), 0
        for x, _ in loader:
            items += len(x)
        print(json.dumps({"wall": time.perf_counter() - wall, "cpu": used() - cpu, "items": items}), flush=True)
