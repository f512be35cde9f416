"""SqueezeNet v1.0 of "Deep compression" (Han, Mao and Dally, arXiv:1510.00149), 0.66 MB for ImageNet, as a model file.

    python examples/squeezenet_deep_compression.py compressed_SqueezeNet.net squeezenet.safetensors [PICTURE ...]

The file is that of https://github.com/songhan/SqueezeNet-Deep-Compression (BSD-2). Little-endian: first how many
weights each of the 26 convolutions keeps (uint32), then for each convolution a codebook (256 float32, entry 0 is 0),
its biases (float32), for each kept weight a code (a byte) and then a gap (4 bits, the low half first): how many weights
before it are zero. A longer gap is bridged by kept zeros. Weights lie in the order (out, in, height, width).

Caffe's picture is BGR from 0 to 255 less (104, 117, 123). The model file takes RGB: the first convolution's input
channels are turned round, and the mean becomes the front end's. The authors resize the shorter side to 256 and take
the middle 227 x 227, which is done here for each PICTURE; `gridsight predict` takes the largest middle square instead.
`--classes` is a text file with one name a line; the 1,000 names of ImageNet are in the package.
"""

import argparse
import tempfile
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import gridsight
from gridsight.artifact.inputs import read_path
from gridsight.core.errors import DataError, GridsightError, ReadError
from gridsight.nn.resample import resize

MODEL, RESIZE, CROP = "squeezenet1_0_caffe", 256, 227
MEAN = (123 / 255, 117 / 255, 104 / 255)  # RGB, of values from 0 to 1
STD = (1 / 255,) * 3
CODES = 256


def decode(content: bytes, path: Path) -> dict[str, Tensor]:
    """The state dict of `squeezenet1_0_caffe` in a compressed file, for RGB input."""
    with torch.device("meta"):
        net = gridsight.create(MODEL)
    convs = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    place = 0

    def take(dtype: str, count: int) -> np.ndarray:
        nonlocal place
        length = count * np.dtype(dtype).itemsize
        if place + length > len(content):
            raise DataError(
                f"{path} is cut short: {len(content):,} bytes, and at least {place + length:,} are declared"
            )
        place += length
        return np.frombuffer(content, dtype, count, place - length)

    state = {}
    for (name, conv), kept in zip(convs.items(), take("<u4", len(convs)).tolist(), strict=True):
        weight = np.zeros(conv.weight.numel(), np.float32)
        codebook, bias = take("<f4", CODES), take("<f4", conv.out_channels)
        codes, halves = take("u1", kept), take("u1", (kept + 1) // 2)
        gaps = np.stack([halves & 15, halves >> 4], 1).reshape(-1)[:kept]
        places = np.cumsum(gaps.astype(np.int64) + 1) - 1
        if kept and places[-1] >= len(weight):
            raise DataError(f"{path} is no SqueezeNet v1.0: {name} has {len(weight):,} weights, not {places[-1] + 1:,}")
        weight[places] = codebook[codes]
        state[f"{name}.weight"] = torch.from_numpy(weight).view(conv.weight.shape)
        state[f"{name}.bias"] = torch.from_numpy(bias.copy())
    if place != len(content):
        raise DataError(f"{path} is no SqueezeNet v1.0: {len(content) - place:,} bytes are left over")
    first = next(iter(state))
    state[first] = state[first].flip(1).contiguous()
    return state


def convert(source: Path, out: Path, classes: Path) -> Path:
    """Write the model file; returns where it is."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "squeezenet1_0.safetensors"
        save_file(decode(source.read_bytes(), source), plain)
        return gridsight.import_checkpoint(
            str(plain), model=MODEL, classes=(str(classes),), size=(CROP,), channels=3, mean=MEAN, std=STD, out=str(out)
        ).path


def prepare(picture: np.ndarray) -> np.ndarray:
    """(3, height, width) uint8 -> its middle (3, 227, 227), after the shorter side was brought to 256."""
    height, width = picture.shape[1:]
    scale = RESIZE / min(height, width)
    x = resize(torch.from_numpy(picture).float()[None], (round(height * scale), round(width * scale)))[0]
    top, left = ((cells - CROP) // 2 for cells in x.shape[1:])
    return x[:, top : top + CROP, left : left + CROP].round().clamp(0, 255).byte().numpy()


def main(words: Sequence[str] | None = None) -> None:
    """Convert, then say the five likeliest classes of each picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="compressed_SqueezeNet.net")
    parser.add_argument("out", type=Path, help="the model file to write")
    parser.add_argument("pictures", nargs="*", type=Path, help="pictures to name")
    parser.add_argument("--classes", type=Path, help="class names, one a line (default: those of ImageNet)")
    given = parser.parse_args(words)
    with as_file(files("gridsight.data") / "imagenet_classes.txt") as names:
        print(convert(given.source, given.out, given.classes or names))
    predictor = gridsight.load(given.out)
    failed = 0
    for path in given.pictures:
        for sample in read_path(path, predictor.model.spec):
            if isinstance(sample, ReadError):
                print(sample)
                failed += 1
                continue
            x = sample.array
            colour = x[:3] if len(x) > 2 else np.repeat(x[:1], 3, 0)  # gray as three equal channels
            (answer,) = predictor.predict(prepare(colour))
            best = sorted(answer["probabilities"].items(), key=lambda pair: -pair[1])[:5]
            print(sample.path, *(f"{share:.1%} {name}" for name, share in best), sep="\n  ")
    if failed:
        raise SystemExit(f"{failed} of the pictures could not be read")


if __name__ == "__main__":
    try:
        main()
    except (GridsightError, OSError) as error:
        raise SystemExit(str(error)) from None
