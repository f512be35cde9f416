"""FCN and ResNet of series in a plain PyTorch loop: Wang, Yan and Oates, arXiv:1611.06455, with their schedule.

FCN: convolutions of 128, 256 and 128 channels with 8, 5 and 3 cells. ResNet: three blocks of three such convolutions,
of 64, 128 and 128 channels. Batch norm and ReLU after each, the mean over time, one linear layer. Adam at 1e-3, halved
after 50 epochs without a smaller training loss, not below 1e-4; batches of a tenth of the items, at most 16; 2,000 and
1,500 epochs (as in Fawaz and others, arXiv:1809.04356). The rows have the accuracy of the weights at hand; what is
published is that of the weights with the smallest training loss.

Spoken digits (fsdd) are given as 40 log-mel channels of a second, 64 frames, each channel of mean 0 and deviation 1;
`resnet18` is torchvision's network on the same as a picture. Recordings 5 to 9 are the test data, as Gridsight has it.

    python benchmarks/peers/plain_series.py GunPoint|ItalyPowerDemand|fsdd [--net fcn|resnet|resnet18]
        [--epochs N] [--until 0.99] [--minutes 10] [--every 5] [--seed 0]
"""

import argparse
import io
import time
import wave
import zipfile

import numpy as np
import torch
from common import Clock, Report, folder, ucr
from torch import Tensor, nn
from torch.nn import functional as F

EPOCHS = {"fcn": 2000, "resnet": 1500, "resnet18": 100}
KERNELS = 8, 5, 3
RATE, FFT, HOP, MELS, FRAMES = 8000, 256, 125, 40, 64


def conv(a: int, b: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(a, b, kernel, padding="same"), nn.BatchNorm1d(b))


class Fcn(nn.Module):
    """(N, C, T) -> logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        widths = channels, 128, 256, 128
        self.convs = nn.ModuleList(conv(a, b, k) for a, b, k in zip(widths, widths[1:], KERNELS, strict=False))
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.convs:
            x = layer(x).relu()
        return self.head(x.mean(2))


class Block(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(a if k == 8 else b, b, k) for k in KERNELS)
        self.shortcut = conv(a, b, 1) if a != b else nn.BatchNorm1d(b)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs[1](self.convs[0](x).relu()).relu()
        return (self.convs[2](y) + self.shortcut(x)).relu()


class ResNet(nn.Module):
    """(N, C, T) -> logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(channels, 64), Block(64, 128), Block(128, 128))
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(2))


class Picture(nn.Module):
    """torchvision's ResNet-18 with the channels of a series as the rows of a picture."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.net = resnet18(num_classes=classes)
        self.net.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x[:, None])


def mel_filters() -> Tensor:
    """Triangles (MELS, FFT / 2 + 1), evenly spaced on the mel scale from 0 to half the rate."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    bins = np.linspace(0, RATE / 2, FFT // 2 + 1)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.from_numpy(np.clip(np.minimum(rise, fall), 0, None).astype(np.float32))


def spoken_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-mel (N, 40, 64) and labels to train on, then those of recordings 5 to 9."""
    waves: list[np.ndarray] = []
    names: list[list[str]] = []
    for path in sorted(folder("fsdd").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if n.endswith(".wav")):
                with wave.open(io.BytesIO(archive.read(name))) as file:
                    sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
                waves.append(np.pad(sound[:RATE], (0, max(0, RATE - len(sound)))))
                names.append(name.rsplit("/", 1)[-1].removesuffix(".wav").split("_"))
    window = torch.hann_window(FFT)
    power = torch.stft(torch.from_numpy(np.stack(waves)), FFT, HOP, window=window, return_complex=True).abs() ** 2
    x = (mel_filters() @ power[..., :FRAMES] + 1e-6).log()
    y, index = torch.tensor([int(n[0]) for n in names]), torch.tensor([int(n[2]) for n in names])
    test = index < 10
    mean, deviation = x[~test].mean((0, 2), keepdim=True), x[~test].std((0, 2), keepdim=True)
    x = (x - mean) / deviation
    return x[~test], y[~test], x[test], y[test]


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    net.eval()
    right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(256), y.split(256), strict=True))
    net.train()
    return right / len(x)


def make(name: str, channels: int, classes: int) -> nn.Module:
    if name == "resnet18":
        return Picture(classes)
    return (Fcn if name == "fcn" else ResNet)(channels, classes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", choices=("GunPoint", "ItalyPowerDemand", "fsdd"))
    parser.add_argument("--net", choices=tuple(EPOCHS), default="resnet")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--until", type=float, default=2.0, help="stop at this accuracy")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so much training")
    parser.add_argument("--every", type=int, default=5, help="epochs between two looks at the test data")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    began = time.perf_counter()
    x, y, test_x, test_y = (
        spoken_digits() if given.data == "fsdd" else (torch.from_numpy(part) for part in ucr(given.data))
    )
    loading = time.perf_counter() - began
    report, clock = Report(f"plain {given.net}", given.data.lower(), given.seed, loading), Clock()
    net = make(given.net, x.shape[1], int(y.max()) + 1)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=50, min_lr=1e-4)
    batch, epochs = max(2, min(len(x) // 10, 16)), given.epochs or EPOCHS[given.net]
    for epoch in range(1, epochs + 1):
        clock.start()
        total = 0.0
        for part in torch.randperm(len(x)).split(batch):
            loss = F.cross_entropy(net(x[part]), y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += len(part) * float(loss.detach())
        schedule.step(total)
        clock.stop()
        late = clock.seconds > 60 * given.minutes
        if epoch % given.every == 0 or epoch == epochs or late:
            reached = accuracy(net, test_x, test_y)
            report.row(epoch, clock, reached, loss=total / len(x))
            if reached >= given.until or late:
                break


if __name__ == "__main__":
    main()
