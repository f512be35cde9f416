"""The front end: from an item as decoded to what the network sees; part of the model file, so raw items go in anywhere.

scale(x) is (x / full_scale - mean) / std a channel, float32. A sound then goes through a log-mel layer (`nn.logmel`):
(N, C, samples) -> (N, C, n_mels, frames), so its network is 2-D. What lies more than `top_db` below the loudest cell of
its own item is raised to that level, and each item is brought to mean 0 and deviation 1: how loud a recording is and
how quiet its silences are say nothing about its label. On spoken digits of speakers never heard this was worth 6 to 29
points a speaker against statistics of the training data (`docs/defaults.md`).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.nn.logmel import LogMel
from gridsight.nn.room import at_once, room

FLOOR = 1e-10
"""Least power of the log-mel layer, far below what `top_db` leaves."""
QUIET = 1e-3
"""Added to deviations, in units of the log-mel, so that silence stays 0 and is not blown up to noise."""


@dataclass(frozen=True)
class MelSettings:
    """Log-mel of a sound of `rate` samples a second; `window` and `hop` in seconds, `top_db` in decibels."""

    rate: float
    n_mels: int
    window: float
    hop: float
    top_db: float


@dataclass(frozen=True)
class FrontEndSettings:
    """What the front end needs, as plain values for the model file."""

    full_scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mel: MelSettings | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FrontEndSettings":
        """The settings that `to_dict` wrote."""
        mel = values.get("mel")
        return cls(
            float(values["full_scale"]),
            tuple(values["mean"]),
            tuple(values["std"]),
            MelSettings(**mel) if mel is not None else None,
        )


class FrontEnd(nn.Module):
    """(N, C, *spatial) of any type -> float32, normalised; log-mel of it where the settings have one."""

    gain: Tensor
    offset: Tensor

    def __init__(self, settings: FrontEndSettings, ndim: int) -> None:
        super().__init__()
        self.settings = settings
        shape = (1, -1, *[1] * ndim)
        mean = torch.tensor(settings.mean, dtype=torch.float64)
        std = torch.tensor(settings.std, dtype=torch.float64)
        # one multiplication and one addition an element: x * gain + offset
        self.register_buffer("gain", (1 / (std * settings.full_scale)).float().view(shape), persistent=False)
        self.register_buffer("offset", (-mean / std).float().view(shape), persistent=False)
        self.plain = settings.full_scale == 1 and not any(settings.mean) and set(settings.std) == {1.0}
        mel = settings.mel
        self.mel = LogMel(mel.rate, window=mel.window, hop=mel.hop, n_mels=mel.n_mels, floor=FLOOR) if mel else None

    def scale(self, x: Tensor) -> Tensor:
        """x as float32 with mean 0 and deviation 1 a channel; 2-D and 3-D in channels-last memory."""
        if x.ndim == 4 and self.mel is None and not x.is_floating_point() and x.device.type == "cpu":
            return self._scale_rows(x)
        fresh = not x.is_floating_point()  # then what `float` makes is ours to write into
        x = x.float()
        if x.ndim == 4 and self.mel is None:
            x = x.contiguous(memory_format=torch.channels_last)
        elif x.ndim == 5:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        if not fresh:
            return x * self.gain + self.offset
        return x if self.plain else x.mul_(self.gain).add_(self.offset)

    def _scale_rows(self, x: Tensor) -> Tensor:
        """`scale` of pictures of whole numbers on the CPU: some at once, and a row at a time, not a cell's channels."""
        count, channels, height, width = x.shape
        gain, offset = (v.flatten().repeat(width) for v in (self.gain, self.offset))
        rows = room((count, height, width * channels))
        for source, target in zip(x.split(at_once(x)), rows.split(at_once(x)), strict=True):
            target.copy_(source.permute(0, 2, 3, 1).reshape(target.shape)).mul_(gain).add_(offset)
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)

    def transform(self, x: Tensor) -> Tensor:
        """What follows the signal's own augmentation: the log-mel layer, or nothing."""
        if self.mel is None:
            return x
        assert self.settings.mel is not None
        axes = (1, 2, 3)
        bands = self.mel(x)
        lowest = bands.amax(axes, keepdim=True) - self.settings.mel.top_db * math.log(10) / 10
        bands = bands.maximum(lowest)
        return (bands - bands.mean(axes, keepdim=True)) / (bands.std(axes, keepdim=True) + QUIET)

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(self.scale(x))
