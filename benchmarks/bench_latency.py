"""What an answer costs from the file on: `Predictor.predict` of one file against decoding it and a pass of its network.

Three files: a JPEG of 32x32 pixels with the default network, a photograph of 0.2 megapixels with ResNet-18 at 224x224,
and 0.8 s of sound with the default network on its log-mel. Decoding is the bare decoder's (simplejpeg, soundfile) on
the bytes of the file; the pass is that of the network which `predict` runs. The rest is what is measured: sniffing,
bringing the item to size, the front end, calibration, and how unlike the training data the item is. All take turns;
processor time, so one thread; weights are random. Bar: the whole way takes at most 1.15 times these two.

    OMP_NUM_THREADS=1 python benchmarks/bench_latency.py
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import soundfile
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from small import machine

from gridsight.artifact.model_file import Model
from gridsight.artifact.predictor import Predictor
from gridsight.data.spec import DataSpec
from gridsight.measure.novelty import fit_novelty
from gridsight.models import create
from gridsight.nn.features import Features
from gridsight.nn.frontend import FrontEndSettings, MelSettings

ROUNDS = 101
BAR = 1.15
CLASSES = tuple("abcdefghij")
RATE = 8000


def predictor(name: str, spec: DataSpec, front: FrontEndSettings, **arguments: Any) -> Predictor:
    """A model of random weights that has seen some noise, of which it knows what its stages say."""
    torch.manual_seed(0)
    ndim = 2
    net = create(name, ndim=ndim, in_channels=spec.channels, num_classes=len(CLASSES), **arguments)
    model = Model(name, arguments, ndim, spec.channels, net, front, spec)
    with torch.no_grad():
        seen = [
            model.front_end()(torch.rand(20, spec.channels, *spec.spatial) * spec.full_scale).contiguous()
            for _ in range(6)
        ]
        net.train()(seen[0])
        found = Features(net.eval(), spec.channels, ndim)
        features = [torch.cat(stage).numpy() for stage in zip(*(found(x)[1] for x in seen), strict=True)]
    known = fit_novelty([stage[:80] for stage in features], [stage[80:] for stage in features])
    return Predictor(Model(name, arguments, ndim, spec.channels, net, front, spec, novelty=known), "cpu")


def cases(folder: Path) -> dict[str, tuple[Predictor, Path, Callable[[Path], Any]]]:
    """Name -> predictor, file, bare decoder."""
    photograph = Image.fromarray(load_sample_image("china.jpg")).resize((520, 390))
    photograph.save(folder / "photograph.jpg", quality=90)
    photograph.resize((32, 32)).save(folder / "small.jpg", quality=90)
    seconds = np.arange(int(0.8 * RATE)) / RATE
    sound = 0.3 * np.sin(2 * np.pi * 440 * seconds) + 0.1 * np.random.default_rng(0).standard_normal(len(seconds))
    soundfile.write(folder / "sound.wav", sound.clip(-1, 1), RATE, "PCM_16")
    colour = FrontEndSettings(255.0, (0.48, 0.46, 0.41), (0.23, 0.22, 0.23))
    mel = FrontEndSettings(1.0, (0.0,), (0.1,), MelSettings(RATE, 40, 0.032, 0.0125, 40.0))
    small = DataSpec("small", "image", 2, 3, (32, 32), "uint8", CLASSES)
    large = DataSpec("large", "image", 2, 3, (224, 224), "uint8", CLASSES, fit="crop")
    heard = DataSpec("sound", "sound", 1, 1, (len(seconds),), "float32", CLASSES, fit="pad", rate=RATE)

    def jpeg(path: Path) -> Any:
        return simplejpeg.decode_jpeg(path.read_bytes())

    return {
        "JPEG of 32x32, gridnet": (predictor("gridnet", small, colour), folder / "small.jpg", jpeg),
        "JPEG of 0.2 MP, resnet18 at 224": (predictor("resnet18", large, colour), folder / "photograph.jpg", jpeg),
        "wav of 0.8 s, gridnet": (
            predictor("gridnet", heard, mel),
            folder / "sound.wav",
            lambda path: soundfile.read(path, dtype="float32"),
        ),
    }


def turns(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Milliseconds of processor time of each, `ROUNDS` times, after three that are not counted and one before each."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 3):
        for name, call in calls.items():
            call()
            start = time.process_time()
            call()
            if number >= 3:
                found[name].append(1e3 * (time.process_time() - start))
    return found


def main() -> int:
    """Print a row a case; 1 where one is over the bar."""
    print(machine())
    over = False
    with tempfile.TemporaryDirectory() as name:
        for what, (model, path, decoder) in cases(Path(name)).items():
            spec = model.model.spec
            (answer,) = model.predict(path)
            assert "error" not in answer, answer
            with torch.no_grad():
                x = model.front(torch.zeros(1, spec.channels, *spec.spatial)) + 1
                found = turns(
                    {
                        "decode": lambda decoder=decoder, path=path: decoder(path),
                        "network": lambda model=model, x=x: model.net(x),
                        "whole": lambda model=model, path=path: model.predict(path),
                    }
                )
            ratios = sorted(
                w / (d + n) for d, n, w in zip(found["decode"], found["network"], found["whole"], strict=True)
            )
            low, ratio, high = (ratios[int(share * (len(ratios) - 1))] for share in (0.25, 0.5, 0.75))
            parts = ", ".join(f"{part} {statistics.median(values):.3f}" for part, values in found.items())
            print(f"{what}: {parts} ms; ratio {ratio:.2f} ({low:.2f} to {high:.2f}), bar {BAR}")
            over |= ratio > BAR
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
