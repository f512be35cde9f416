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

from gridsight.core.console import counted
from gridsight.core.errors import UsageError

NESTS = ("state_dict", "model_state_dict", "model", "net", "model_state")
"""Names under which training programs keep the state dict within a checkpoint."""

WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What DataParallel, Lightning and torch.compile put before the keys of the network that they hold."""

MAGIC = (b"PK", b"\x80")
"""How torch's files start: as archives now, as pickles once."""

BROKEN = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError)
"""What torch raises about a file that is none of its own, or no longer."""


def load_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors`, `.pth`, `.pt` or `.th` file; anything but tensors is a `UsageError`."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise UsageError(f"{path} is an empty file, not a checkpoint")
    # safetensors: eight bytes of header length, then a JSON object
    state = _safetensors(path) if head[8:9] == b"{" else _pickled(path, head)
    refuse_impossible(state, path)
    return state


def _pickled(path: Path, head: bytes) -> dict[str, Tensor]:
    if path.name.endswith(".safetensors"):  # by this name torch takes it for one, whatever it holds
        more = "; is it a PyTorch file? rename it to .pth" if head.startswith(MAGIC) else ""
        raise UsageError(f"{path} is no safetensors file{more}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is refused below in our own words
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        raise UsageError(f"{path} {_why(error, head)}") from None
    for nest in NESTS:
        if isinstance(found, Mapping) and isinstance(found.get(nest), Mapping):
            found = found[nest]
    if not isinstance(found, Mapping) or not found:
        raise UsageError(f"{path} holds no state dict but a {type(found).__name__}; save net.state_dict()")
    wrong = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    if wrong:
        raise UsageError(f"{path} holds no plain state dict: {wrong[0]} is no tensor; save net.state_dict()")
    return {str(key): value for key, value in found.items()}


def _why(error: Exception, head: bytes) -> str:
    """What is wrong with a file that starts with `head` and that torch refused; torch's own words fill a screen."""
    if not head.startswith(MAGIC):
        return "is no checkpoint: it starts neither as torch's files nor as safetensors"
    if isinstance(error, pickle.UnpicklingError) and "truncated" not in str(error):
        return "holds more than tensors, which could run code when loaded; save net.state_dict() alone"
    return "is cut short or damaged: copy or download it again"


def refuse_impossible(state: Mapping[str, Tensor], path: Path) -> None:
    """A `UsageError` that names the tensors that are not dense, hold a NaN or an infinity, or a variance below 0."""
    sparse = [key for key, value in state.items() if value.layout != torch.strided or value.is_meta]
    if sparse:
        raise UsageError(
            f"{path} has {counted(len(sparse), 'tensor')} without an entry for every cell (sparse or meta; first: "
            f"{', '.join(sparse[:3])}): save dense ones (tensor.to_dense())"
        )
    wrong = [
        key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value.float()).all()
    ]
    if wrong:
        raise UsageError(
            f"{path} has NaN or infinite values in {counted(len(wrong), 'tensor')} (first: {', '.join(wrong[:3])}): "
            "take a checkpoint from before its training diverged"
        )
    wrong = [key for key, value in state.items() if key.endswith("running_var") and _below_zero(value)]
    if wrong:
        raise UsageError(
            f"{path} has negative variances in {counted(len(wrong), 'tensor')} (first: {', '.join(wrong[:3])}): "
            "it was not trained so; take another checkpoint"
        )


def _below_zero(value: Tensor) -> bool:
    return not value.is_complex() and bool((value.double() < 0).any())


def refuse_others(net: nn.Module, state: Mapping[str, Tensor], name: str, path: Path) -> None:
    """A `UsageError` that says which keys, shapes and types of `state` are not those of `net`, called `name`."""
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
        problems.append(f"{_are(len(missing), 'key')} missing (first: {', '.join(missing[:3])})")
    if extra:
        problems.append(f"{_are(len(extra), 'key')} not of {name} (first: {', '.join(extra[:3])})")
    elif missing:
        problems.append(f"its first keys are {', '.join(list(state)[:3])}")
    if shapes:
        problems.append(f"{counted(len(shapes), 'shape')} {'differs' if len(shapes) == 1 else 'differ'} ({shapes[0]})")
    if problems:
        raise UsageError(f"{path} is not a checkpoint of {name}: {'; '.join(problems)}")
    for key, value in own.items():
        if value.is_floating_point() and key in state and not state[key].is_floating_point():
            kind = str(state[key].dtype).removeprefix("torch.")
            raise UsageError(f"{path} holds {key} as {kind}; weights are real numbers, of a floating-point type")


def _are(count: int, thing: str) -> str:
    return f"{counted(count, thing)} {'is' if count == 1 else 'are'}"


def matched(state: Mapping[str, Tensor], renames: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """The state under our keys: what wrappers put before every key taken off, then each (pattern, replacement)."""
    skip = 0
    while wrapper := next((w for w in WRAPPERS if state and all(key.startswith(w, skip) for key in state)), ""):
        skip += len(wrapper)
    result = {}
    for key, value in state.items():
        key = key[skip:]
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
        raise UsageError(f"{path} is a safetensors file that is cut short or damaged ({error})") from None
