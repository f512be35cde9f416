"""PyTorch on MNIST: the settings of its official example (pytorch/examples, mnist), with torchvision's MNIST.

Convolutions 3x3 of 32 and 64 channels, a pool, dropout 0.25, a layer of 128, dropout 0.5; Adadelta at a rate of 1 that
is multiplied by 0.7 after each of 14 epochs; batches of 64. As there, a CPU reads without workers and does not shuffle.

    python benchmarks/peers/pytorch_mnist.py [--epochs 14] [--until 0.995] [--seed 1] [--items N]
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from common import MNIST, Clock, Report, idx_bytes
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms


class Net(nn.Module):
    """(N, 1, 28, 28) -> log-probabilities (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.head(self.convs(x)), 1)


@torch.no_grad()
def accuracy(net: Net, batches: DataLoader) -> float:
    net.eval()
    right = sum(int((net(x).argmax(1) == y).sum()) for x, y in batches)
    return right / len(batches.dataset)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--until", type=float, default=2.0, help="stop at this accuracy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--items", type=int, help="train on the first N alone, to try the program")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    began = time.perf_counter()
    ready = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for name in MNIST:
            (raw / name).write_bytes(idx_bytes(name))
        train, test = (datasets.MNIST(root, train=part, transform=ready) for part in (True, False))
    part = Subset(train, range(given.items or len(train)))
    batches, test_batches = DataLoader(part, 64), DataLoader(test, 1000)
    report, clock = Report("pytorch", "mnist", given.seed, time.perf_counter() - began), Clock()
    net = Net()
    optimiser = torch.optim.Adadelta(net.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=1, gamma=0.7)
    for epoch in range(given.epochs):
        clock.start()
        net.train()
        for x, y in batches:
            optimiser.zero_grad()
            F.nll_loss(net(x), y).backward()
            optimiser.step()
        schedule.step()
        clock.stop()
        reached = accuracy(net, test_batches)
        report.row(epoch + 1, clock, reached)
        if reached >= given.until:
            break


if __name__ == "__main__":
    main()
