"""Which device trains, and what the record of a run says about the machine."""

import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from gridsight.core.errors import UsageError
from gridsight.core.ranks import local_rank, world_size

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> "torch.device":
    """The device called `name`; "auto" is the first CUDA device, else the CPU.

    Of several processes (`core.ranks`) each takes the GPU of its own number; nothing else can be meant by "cuda".
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and world_size() > 1:
        if local_rank() >= torch.cuda.device_count():
            raise UsageError(
                f"this machine has {torch.cuda.device_count()} GPUs, too few for one a process: "
                "give torchrun a smaller --nproc-per-node, or gridsight --device cpu"
            )
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        known = "auto, cpu or cuda" if torch.cuda.is_available() else "auto or cpu"
        raise UsageError(f"device {name!r} cannot be used here; {known} can") from None
    return device


def computes_bfloat16(device: "torch.device") -> bool:
    """Whether the device has units for bfloat16; elsewhere it is computed by way of float32, and slower than that."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a user's path
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def environment(device: "torch.device") -> dict[str, Any]:
    """Versions, threads and processor: what exact resume depends on, and what a figure in seconds means."""
    import numpy as np
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type if world_size() > 1 else str(device),
        "processes": world_size(),
        "command": " ".join(sys.argv),
    }


EXACT = ("torch", "threads", "cpu_capability", "device", "processes")
"""Entries of `environment` that must be equal for two runs to end with the same bits."""


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a user's path
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
