"""Tiny VGG of CNN Explainer (Wang et al., arXiv:2004.15004), as its page loads it, as a model file.

    python examples/tiny_vgg_tfjs.py model.json tiny_vgg.safetensors [PICTURE ...]

model.json and the files of weights beside it are those of https://github.com/poloclub/cnn-explainer (MIT),
public/assets/data: TensorFlow.js writes float32 tensors one after the other in the order of `weightsManifest`, kernels
as (height, width, in, out), and the last linear layer reads cells in the order (height, width, channel). Pictures of
64 x 64 with values from 0 to 1.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import gridsight
from gridsight.core.errors import DataError, GridsightError

# the order of the outputs, from the page's src/config.js
CLASSES = (
    "lifeboat",
    "ladybug",
    "pizza",
    "bell pepper",
    "school bus",
    "koala",
    "espresso",
    "red panda",
    "orange",
    "sport car",
)
LAYERS = {"conv_1_1": "conv1_1", "conv_1_2": "conv1_2", "conv_2_1": "conv2_1", "conv_2_2": "conv2_2", "output": "fc"}


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a TensorFlow.js model, by its name there."""
    try:
        return read(path)
    except (LookupError, TypeError, ValueError):  # JSON of another kind, or none
        raise DataError(f"{path} is no model.json of TensorFlow.js: take the file with weightsManifest") from None


def read(path: Path) -> dict[str, np.ndarray]:
    """The same, with Python's own errors where the JSON is another."""
    found = {}
    for group in json.loads(path.read_text(encoding="utf-8"))["weightsManifest"]:
        content = b"".join((path.parent / name).read_bytes() for name in group["paths"])
        place = 0
        for entry in group["weights"]:
            count = math.prod(entry["shape"])
            if entry["dtype"] != "float32" or place + 4 * count > len(content):
                raise DataError(f"{path}: {entry['name']} is not float32, or its file is cut short")
            found[entry["name"]] = np.frombuffer(content, "<f4", count, place).reshape(entry["shape"])
            place += 4 * count
    return found


def decode(path: Path) -> dict[str, Tensor]:
    """The state dict of `tiny_vgg`."""
    state = {}
    for name, array in tensors(path).items():
        layer, _, kind = name.partition("/")
        if layer not in LAYERS:
            raise DataError(f"{path} is no Tiny VGG: it has a layer {layer}")
        if kind == "kernel" and array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif kind == "kernel":
            side, channels = 13, 10  # what is left of 64 cells an axis
            array = array.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(array.shape[1], -1)
        state[f"{LAYERS[layer]}.{'weight' if kind == 'kernel' else 'bias'}"] = torch.from_numpy(array.copy())
    return state


def convert(source: Path, out: Path) -> Path:
    """Write the model file; returns where it is."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "tiny_vgg.safetensors"
        save_file(decode(source), plain)
        return gridsight.import_checkpoint(str(plain), model="tiny_vgg", classes=CLASSES, size=(64,), out=str(out)).path


def main(words: Sequence[str] | None = None) -> None:
    """Convert, then name each picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="model.json, with the files that it names beside it")
    parser.add_argument("out", type=Path, help="the model file to write")
    parser.add_argument("pictures", nargs="*", type=Path, help="pictures to name")
    given = parser.parse_args(words)
    print(convert(given.source, given.out))
    for answer in gridsight.load(given.out).predict(given.pictures):
        print(answer["path"], answer.get("error") or f"{answer['label']} {answer['probability']:.1%}")


if __name__ == "__main__":
    try:
        main()
    except (GridsightError, OSError) as error:
        raise SystemExit(str(error)) from None
