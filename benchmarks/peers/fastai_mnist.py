"""fastai on MNIST as its book does it (Howard and Gugger, Deep Learning for Coders, chapter 13).

Five convolutions of stride 2 (8, 16, 32, 64 and 10 channels, the first 5x5), batch norm after each ReLU, Adam, batches
of 512, one cycle. Data as in chapter 4, which is the quicker way: tensors in memory, zipped with their labels. With
`--blocks` as in chapter 13: a DataBlock of pictures, of which each is made anew every time.

    python benchmarks/peers/fastai_mnist.py [--epochs 5] [--lr 0.06] [--blocks] [--seed 0] [--items N]
"""

import argparse
import time

import torch
from common import Clock, Report, mnist
from fastai.callback.core import Callback
from fastai.callback.schedule import Learner  # the import adds fit_one_cycle
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.data.transforms import IndexSplitter
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.core import PILImageBW
from fastai.vision.data import ImageBlock
from torch import Tensor, nn


class Timed(Callback):
    """The clock runs while fastai trains; a row after each evaluation."""

    order = 90  # after fastai's Recorder

    def __init__(self, clock: Clock, report: Report) -> None:
        self.clock, self.report = clock, report

    def before_train(self) -> None:
        self.clock.start()

    def after_train(self) -> None:
        self.clock.stop()

    def after_epoch(self) -> None:
        self.report.row(self.epoch + 1, self.clock, float(self.recorder.values[-1][-1]))


def layer(a: int, b: int, kernel: int = 3, last: bool = False) -> nn.Sequential:
    """A convolution of stride 2; unless it is the last one, ReLU and batch norm."""
    parts: list[nn.Module] = [nn.Conv2d(a, b, kernel, stride=2, padding=kernel // 2)]
    return nn.Sequential(*parts, *([] if last else [nn.ReLU(), nn.BatchNorm2d(b)]))


def tensors(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor) -> DataLoaders:
    """Pairs of a tensor and a label."""
    pairs = [list(zip(a[:, None].float() / 255, b.long(), strict=True)) for a, b in ((x, y), (test_x, test_y))]
    batches = DataLoader(pairs[0], batch_size=512, shuffle=True, num_workers=0), DataLoader(pairs[1], batch_size=512)
    return DataLoaders(*batches, device=torch.device("cpu"))


def pictures(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor) -> DataLoaders:
    """Pictures by fastai's own blocks, with its own number of workers."""
    items, labels = torch.cat([x, test_x]).numpy(), torch.cat([y, test_y]).tolist()
    block = DataBlock(
        (ImageBlock(cls=PILImageBW), CategoryBlock(vocab=list(range(10)))),
        get_x=lambda i: items[i],
        get_y=lambda i: labels[i],
        splitter=IndexSplitter(range(len(x), len(items))),
    )
    return block.dataloaders(range(len(items)), bs=512, device=torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.06)
    parser.add_argument("--blocks", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int, help="train on the first N alone, to try the program")
    given = parser.parse_args()
    set_seed(given.seed)
    began = time.perf_counter()
    x, y, test_x, test_y = (torch.tensor(part) for part in mnist())
    make = pictures if given.blocks else tensors
    batches = make(x[: given.items], y[: given.items], test_x, test_y)
    report = Report("fastai", "mnist", given.seed, time.perf_counter() - began)
    net = nn.Sequential(
        layer(1, 8, 5), layer(8, 16), layer(16, 32), layer(32, 64), layer(64, 10, last=True), nn.Flatten()
    )
    learner = Learner(batches, net, loss_func=nn.CrossEntropyLoss(), metrics=accuracy)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(given.epochs, given.lr, cbs=Timed(Clock(), report))


if __name__ == "__main__":
    main()
