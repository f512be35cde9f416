"""Snapshots: all that a run needs to go on to the same weights, in one safetensors file, whole or not at all."""

import errno
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gridsight.core.console import dumps
from gridsight.core.errors import TrainingError
from gridsight.core.run import atomic_write

KEY = "gridsight"
"""The one metadata key: several would be written in random order, and equal files would differ in bytes."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write named tensors and JSON metadata to a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def write(temporary: Path) -> None:
        try:
            save_file(flat, str(temporary), text)
        except SafetensorError as error:  # its word for a full disk
            raise OSError(errno.EIO, str(error), str(path)) from None

    flat = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = {KEY: dumps(metadata)}
    atomic_write(path, write)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file that `save_tensors` wrote; anything else is a `TrainingError`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} is not a readable safetensors file ({error})") from None
    if metadata is None:
        raise TrainingError(f"{path} was not written by gridsight (no {KEY!r} metadata); see gridsight import")
    return tensors, json.loads(metadata)


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with `prefix.` before every name."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries named `prefix.*`, without the prefix."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `<parameter number>.<name>` tensors."""
    return {
        f"{number}.{name}": value
        for number, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave; the groups' settings are those of the new optimiser."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        parameter = parameters[int(number)]
        if value.shape == parameter.shape:
            # the fused kernels walk memory: a moment must lie as its parameter does (channels-last)
            value = torch.empty_like(parameter).copy_(value)
        state.setdefault(int(number), {})[key] = value
    whole = optimiser.state_dict()
    whole["state"] = state
    optimiser.load_state_dict(whole)


def first_bad_layer(net: nn.Module, *inputs: Tensor) -> str:
    """The first layer, in order of execution, whose output is not finite on these inputs; hooks are removed again."""
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor) and not found and not bool(output.isfinite().all()):
                bad = [p for p, value in module.named_parameters(recurse=False) if not bool(value.isfinite().all())]
                found.append(name + (f" (its {bad[0]} is not finite)" if bad else ""))

        return hook

    leaves = [(name, m) for name, m in net.named_modules() if not any(m.children())]
    hooks = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        net(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else "the loss"
