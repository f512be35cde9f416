"""Which device trains, and what the record of a run says about the machine."""

import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from gridsight.core.errors import UsageError

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> "torch.device":
    """The device called `name`; "auto" is the first CUDA device, else the CPU."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        known = "auto, cpu or cuda" if torch.cuda.is_available() else "auto or cpu"
        raise UsageError(f"device {name!r} cannot be used here; {known} can") from None
    return device


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
        "device": str(device),
        "command": " ".join(sys.argv),
    }


EXACT = ("torch", "threads", "cpu_capability", "device")
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
