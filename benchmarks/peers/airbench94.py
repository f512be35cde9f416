"""airbench94 on CIFAR-10 in float32 on the CPU: K. Jordan, 94% on CIFAR-10 in 3.29 Seconds, arXiv:2404.00498.

Written anew from the paper and the facts of its public code (KellerJordan/cifar10-airbench, airbench94_compiled.py).
Differs: float32 instead of half; the pictures are the JPEGs of cifar10_jpg, decoded once; the course of the rate, the
look-ahead and the epochs in which the first bias learns (3 of 9.9) shrink or grow with the epochs that are given, so
that a short run is the same recipe in less time. `--minutes` times some steps first, uncounted, and takes the epochs
that then fit. The last row has the accuracy with the six views of the paper (`views_accuracy`) and the seconds of
training and views together (`views_seconds`); every row has the floating-point operations of a step, forward and
backward, as PyTorch counts them (convolutions and matrix products).

    python benchmarks/peers/airbench94.py [--epochs 9.9 | --minutes 10] [--seed 0] [--items N] [--no-views]
"""

import argparse
import math
import time

import numpy as np
import torch
from common import Clock, Report, cifar
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

BATCH, EPOCHS, BIAS_EPOCHS = 1024, 9.9, 3
RATE, DECAY, MOMENTUM = 11.5, 0.0153, 0.85  # rate and decay per 1,024 items, free of each other and of the momentum
BIAS_RATE = 64  # times the rate, for the biases of the norms
SMOOTHING, SHIFT = 0.2, 2
WIDTHS = 64, 256, 256
START, PEAK, END = 0.2, 0.23, 0.07  # of the rate: its first share, where it is whole, its last share
LOOK, LOOK_DECAY = 5, 0.95**5  # steps between two looks back, and how much is then kept of the slow weights at the end
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm without a scale, its averages quick."""
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


def conv(a: int, b: int) -> nn.Conv2d:
    """3x3 without a bias; the first `a` of its outputs begin as its inputs."""
    layer = nn.Conv2d(a, b, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:a])
    return layer


class Net(nn.Module):
    """(N, 3, 32, 32) -> logits (N, 10); 1.97 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad = False
        groups: list[nn.Module] = []
        for a, b in zip((24, *WIDTHS), WIDTHS, strict=False):
            groups += [conv(a, b), nn.MaxPool2d(2), norm(b), nn.GELU(), conv(b, b), norm(b), nn.GELU()]
        self.groups = nn.Sequential(*groups)
        self.head = nn.Linear(WIDTHS[-1], 10, bias=False)

    @torch.no_grad()
    def set_whitening(self, pictures: Tensor) -> None:
        """First layer from the pictures (N, 3, 32, 32): their 2x2 patches' eigenvectors, scaled, with both signs."""
        patches = F.unfold(pictures, 2).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))
        self.whiten.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(F.gelu(self.whiten(x)))
        return self.head(F.max_pool2d(x, 3).flatten(1)) / 9


class Pictures:
    """Training pictures as one tensor (N, 36, 36, 3), padded by reflection; shifts a picture, flips a whole epoch."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        flipped = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
        self.x, self.y = F.pad(flipped, (SHIFT,) * 4, "reflect").permute(0, 2, 3, 1).contiguous(), y
        self.steps = len(x) // BATCH

    def epoch(self, number: int):
        """Batches of an epoch; what the first one shows flipped, the second shows unflipped, and so on."""
        cells = torch.arange(32)
        for part in torch.randperm(len(self.x))[: self.steps * BATCH].split(BATCH):
            rows, columns = (cells + torch.randint(0, 2 * SHIFT + 1, (len(part), 1)) for _ in range(2))
            if number % 2:
                columns = columns.flip(1)
            yield self.x[part[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2), self.y[part]


class Training:
    """The network, its optimiser and its slow weights, for so many steps."""

    def __init__(self, steps: int, first: Tensor) -> None:
        self.steps, self.done = steps, 0
        self.net = Net().to(memory_format=torch.channels_last).train()
        self.net.set_whitening(first)
        pace = BATCH * (1 + 1 / (1 - MOMENTUM))  # how far a step goes in the end, for gradients that stay the same
        rate, decay = RATE / pace, DECAY * BATCH / pace
        biases = [m.bias for m in self.net.modules() if isinstance(m, nn.BatchNorm2d)]
        others = [p for p in self.net.parameters() if p.requires_grad and not any(p is bias for bias in biases)]
        groups = [(biases, rate * BIAS_RATE), (others, rate)]
        self.optimiser = torch.optim.SGD(
            [{"params": params, "lr": r, "weight_decay": decay / r} for params, r in groups],
            momentum=MOMENTUM,
            nesterov=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._share)
        self.slow = {name: value.clone() for name, value in self.net.state_dict().items()}

    def _share(self, step: int) -> float:
        top = max(1, int(PEAK * self.steps))
        if step < top:
            return START + (1 - START) * step / top
        return 1 - (1 - END) * (step - top) / (self.steps - top)

    def step(self, x: Tensor, y: Tensor) -> None:
        self.net.whiten.bias.requires_grad = self.done < BIAS_EPOCHS / EPOCHS * self.steps
        loss = F.cross_entropy(self.net(x), y, label_smoothing=SMOOTHING, reduction="sum")
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        self.done += 1
        if self.done == self.steps:
            self._look_back(1.0)
        elif self.done % LOOK == 0:
            self._look_back(LOOK_DECAY * (self.done / self.steps) ** 3)

    @torch.no_grad()
    def _look_back(self, keep: float) -> None:
        """Draw the slow weights towards the network's, and set the network to them."""
        for name, value in self.net.state_dict().items():
            if value.is_floating_point():
                value.copy_(self.slow[name].lerp_(value, 1 - keep))


@torch.no_grad()
def accuracy(net: Net, x: Tensor, y: Tensor, views: bool = False) -> float:
    """On the test data; `views` averages the picture and two shifts by a cell each way, each mirrored too."""
    net.eval()
    right = 0
    for part, labels in zip(x.split(1000), y.split(1000), strict=True):
        logits = net(part)
        if views:
            padded = F.pad(part, (1,) * 4, "reflect")
            shifted = padded[..., :32, :32], padded[..., 2:, 2:]
            logits = 2 * (logits + net(part.flip(-1))) + sum(net(view) + net(view.flip(-1)) for view in shifted)
        right += int((logits.argmax(1) == labels).sum())
    net.train()
    return right / len(x)


def seconds_a_step(pictures: Pictures, first: Tensor) -> float:
    """The middle of some steps of a network that is thrown away."""
    trial, times = Training(100, first), []
    for x, y in pictures.epoch(0):
        began = time.perf_counter()
        trial.step(x, y)
        times.append(time.perf_counter() - began)
        if len(times) == 6:
            break
    return float(np.median(times[1:]))


def operations(x: Tensor, first: Tensor) -> int:
    """Of one step on the pictures: convolutions and matrix products, forward and backward."""
    net = Training(100, first).net
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    return counter.get_total_flops()


def chosen(x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """So many at random: the files come a class after the other."""
    index = torch.randperm(len(x))[:count]
    return x[index], y[index]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int, help="train and test on N alone, to try the program")
    parser.add_argument("--no-views", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    began = time.perf_counter()
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    x, y, test_x, test_y = (torch.from_numpy(part) for part in cifar())
    if given.items:
        (x, y), (test_x, test_y) = chosen(x, y, given.items), chosen(test_x, test_y, given.items)
    x, test_x = ((part.permute(0, 3, 1, 2).float() / 255 - mean) / deviation for part in (x, test_x))
    report = Report("airbench94", "cifar10_jpg", given.seed, time.perf_counter() - began)
    pictures, clock = Pictures(x, y), Clock()
    epochs = given.epochs
    if given.minutes is not None:
        epochs = max(1, int(60 * given.minutes / seconds_a_step(pictures, x[:5000]))) / pictures.steps
    flops = operations(next(pictures.epoch(0))[0], x[:5000])
    torch.manual_seed(given.seed)
    steps = math.ceil(epochs * pictures.steps)
    clock.start()
    training = Training(steps, x[:5000])
    clock.stop()
    for number in range(math.ceil(epochs)):
        clock.start()
        for batch in pictures.epoch(number):
            training.step(*batch)
            if training.done == steps:
                break
        clock.stop()
        figures: dict[str, float] = {"steps": training.done, "flops_a_step": flops}
        if training.done == steps and not given.no_views:
            start = time.perf_counter()
            figures["views_accuracy"] = accuracy(training.net, test_x, test_y, views=True)
            figures["views_seconds"] = clock.seconds + time.perf_counter() - start
        report.row(training.done / pictures.steps, clock, accuracy(training.net, test_x, test_y), **figures)


if __name__ == "__main__":
    main()
