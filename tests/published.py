"""Networks with a publisher: the same weights must give the same logits as torchvision's network of that name.

Weights are a function of their key in our network and their shape, so that nothing large has to be stored. Where
torchvision imports, its networks get them under its own keys. What they then answer is recorded in published.json, for
every machine without torchvision; `python tests/published.py NAME ...` adds a record. All is in float64: with random
weights, machines that round float32 in other orders differ by a thousandth of a logit.
"""

import contextlib
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gridsight.core.registry import Entry
from gridsight.models import MODELS, create, published_input
from gridsight.nn.weights import matched

RECORD = Path(__file__).with_name("published.json")


def entries() -> list[Entry]:
    """Every network that loads torchvision's weights."""
    return [entry for entry in MODELS.entries() if entry.tags.get("publisher") == "torchvision"]


def torchvision_models() -> Any:
    """The module `torchvision.models`; ImportError where it is not there.

    Beside a CPU build of torch its operators are missing; declaring two of them is enough for its networks.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou) -> Tensor",
        "qnms(Tensor a, Tensor b, float c) -> Tensor",
    ):
        with contextlib.suppress(RuntimeError):  # they are there
            library.define(schema)
    try:
        from torchvision import models
    except RuntimeError as error:
        raise ImportError(str(error)) from None
    return models


def value(key: str, shape: torch.Size) -> Tensor:
    """The tensor called `key`: what is random follows from the name."""
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(shape), np.float32)
    if key.endswith("running_var"):
        x = 0.5 + x**2
    elif len(shape) < 2:
        x = 0.1 * x + (1.0 if key.endswith("weight") else 0.0)
    elif "bias" in key or "token" in key or "pos" in key:
        x = 0.1 * x
    elif max(shape) > 1 and np.prod(shape[1:]) > 1:
        x = x * np.sqrt(1.5 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(x))


def fill(net: nn.Module) -> dict[str, Tensor]:
    """Give the network its weights; returns those of floating point."""
    state = net.state_dict()
    found = {key: value(key, now.shape) for key, now in state.items() if now.is_floating_point()}
    net.load_state_dict(state | found)
    return found


def picture(entry: Entry) -> Tensor:
    """(2, 3, 96, 96), or a clip, or the one size that a network is built for (tag `fingerprint_spatial`)."""
    spatial = entry.tags.get("fingerprint_spatial", (96, 96))
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, *spatial)))


@torch.no_grad()
def ours(entry: Entry) -> tuple[Tensor, dict[str, Tensor]]:
    """Our logits (2, num_classes), and the weights."""
    net = create(entry.name, ndim=published_input(entry.name)[0]).eval().double()
    weights = fill(net)
    return net(picture(entry)), weights


@torch.no_grad()
def theirs(entry: Entry, weights: dict[str, Tensor]) -> Tensor:
    """torchvision's logits with the same weights; every one of its floating-point tensors must be ours."""
    options = {"init_weights": False} if entry.name in ("googlenet", "inception_v3") else {}
    models, name = torchvision_models(), entry.tags.get("published_name", entry.name)
    net = getattr(models if hasattr(models, name) else models.video, name)(**options).eval().double()
    state = net.state_dict()
    places = {key: torch.tensor(i) for i, key in enumerate(state)}
    names = dict(enumerate(state))
    given = dict(state)
    used = set()
    for key, place in matched(places, entry.item.renames).items():
        if state[names[int(place)]].is_floating_point():
            given[names[int(place)]] = weights[key].reshape(state[names[int(place)]].shape)
            used.add(key)
    assert used == weights.keys(), f"not of torchvision's: {sorted(weights.keys() - used)[:5]}"
    net.load_state_dict(given)
    return net(picture(entry))


def recorded() -> dict[str, list[float]]:
    """The first eight of torchvision's logits of the first picture, by name."""
    return json.loads(RECORD.read_text())


def main(names: list[str]) -> None:
    """Record what torchvision's networks of those names answer."""
    record = recorded() if RECORD.exists() else {}
    for name in names:
        entry = MODELS.get(name)
        logits, weights = ours(entry)
        answer = theirs(entry, weights)
        print(name, "largest difference", float((logits - answer).abs().max() / answer.abs().max()))
        record[name] = [round(float(x), 6) for x in answer[0, :8]]
    RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
