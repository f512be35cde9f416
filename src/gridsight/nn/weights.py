"""Weights of other programs: a state dict from a publisher's file, tensors only, and its keys in our names.

`torch.load` appears here alone in the project, with `weights_only=True`: a file that holds code is refused.
"""

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError

NESTS = ("state_dict", "model_state_dict", "model", "net", "model_state")
"""Names under which training programs keep the state dict within a checkpoint."""


def load_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors`, `.pth`, `.pt` or `.th` file; anything but tensors is a `UsageError`."""
    with path.open("rb") as file:
        head = file.read(16)
    # safetensors: eight bytes of header length, then a JSON object
    if head[8:9] == b"{":
        return _safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is refused below in our own words
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path} holds more than tensors, which could run code when loaded; save net.state_dict() alone"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is not a readable checkpoint ({first})") from None
    for nest in NESTS:
        if isinstance(found, Mapping) and isinstance(found.get(nest), Mapping):
            found = found[nest]
    if not isinstance(found, Mapping) or not found:
        raise UsageError(f"{path} holds no state dict but a {type(found).__name__}; save net.state_dict()")
    wrong = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    if wrong:
        raise UsageError(f"{path} holds no plain state dict: {wrong[0]} is no tensor; save net.state_dict()")
    return {str(key): value for key, value in found.items()}


def refuse_others(net: nn.Module, state: Mapping[str, Tensor], name: str, path: Path) -> None:
    """A `UsageError` that says which keys and shapes of `state` are not those of `net`, the network called `name`."""
    own = net.state_dict()
    # counters of norms are younger than many checkpoints and do not matter for inference
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, {name} has {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} keys are missing (first: {', '.join(missing[:3])})")
    if extra:
        problems.append(f"{len(extra)} keys are not of {name} (first: {', '.join(extra[:3])})")
    if shapes:
        problems.append(f"{len(shapes)} shapes differ (first: {shapes[0]})")
    if problems:
        raise UsageError(f"{path} is not a checkpoint of {name}: {'; '.join(problems)}")


def matched(state: Mapping[str, Tensor], renames: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """The state under our keys: the wrapper's `module.` taken off, then each (pattern, replacement) in order."""
    result = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    return result


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path} is not a readable safetensors file ({error})") from None
