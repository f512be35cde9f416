"""One item as a picture for the report: photograph, trace, spectrogram, letters or slices; raw values in, HTML out."""

import base64
import io
from html import escape

import numpy as np
from PIL import Image

from gridsight.data.alphabet import to_text
from gridsight.data.spec import DataSpec
from gridsight.reporting.curves import Line
from gridsight.reporting.figures import image_figure, line_figure, svg

LARGEST = 320  # pixels: a page of two dozen photographs stays small
SMALL = (260, 170)
MOST_TENS = 40


def show(x: np.ndarray, spec: DataSpec | None, label: str) -> str:
    """HTML for one raw item (C, *spatial), by the number of its axes and whether it is a sound."""
    rate = spec.rate if spec is not None else None
    if spec is not None and spec.alphabet is not None:
        return _letters(to_text(x, spec.alphabet))
    if x.ndim == 2 and spec is not None and spec.kind == "sound":
        return _framed(spectrogram_svg(x, rate, label))
    if x.ndim == 2:
        return _framed(svg(line_figure(trace(x, rate), _time(rate), "value", size=SMALL), label))
    if x.ndim == 3:
        return _image(pixels(x), label)
    names = slice_names(x.ndim - 1, spec)
    images = [_image(pixels(part), f"{label}, {name}") for part, name in zip(middle_slices(x), names, strict=True)]
    return "".join(
        f'<figure class="slice">{i}<figcaption>{n}</figcaption></figure>' for i, n in zip(images, names, strict=True)
    )


def pixels(x: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 of (C, H, W): 8-bit values as they are, others stretched over their own range.

    Three channels or more show the first three as red, green and blue; two show the first.
    """
    x = x[:3] if len(x) >= 3 else x[:1]
    if x.dtype != np.uint8:
        values = np.nan_to_num(x.astype(np.float64), posinf=0.0, neginf=0.0)
        low, high = values.min(), values.max()
        x = np.round((values - low) / max(high - low, 1e-30) * 255).astype(np.uint8)
    return x[0] if len(x) == 1 else np.moveaxis(x, 0, -1)


def middle_slices(x: np.ndarray) -> list[np.ndarray]:
    """The middle (C, ., .) slice across each axis of (C, D, H, W); further leading axes at their middle."""
    while x.ndim > 4:
        x = x.take(x.shape[1] // 2, axis=1)
    return [x.take(x.shape[axis] // 2, axis=axis) for axis in (1, 2, 3)]


def slice_names(ndim: int, spec: DataSpec | None) -> list[str]:
    """What each middle slice cuts, by the axis' name where the data have one."""
    axes = spec.axes if spec is not None and spec.axes is not None and len(spec.axes) == ndim else None
    return [f"middle of axis {axes[-3 + i] if axes else i + 1}" for i in range(3)]


def trace(x: np.ndarray, rate: float | None) -> list[Line]:
    """One line a channel of (C, samples) against seconds, or sample numbers without a rate."""
    time = np.arange(x.shape[1]) / (rate or 1.0)
    return [Line(f"channel {c + 1}", time, channel.astype(np.float64)) for c, channel in enumerate(x)]


def spectrogram(x: np.ndarray, rate: float, window: float = 0.032, frames: int = 260) -> np.ndarray:
    """Power in dB under its maximum, (frequencies, frames), of the mean of the channels: Hann windows of 32 ms."""
    wave = x.astype(np.float64).mean(0)
    size = max(16, min(round(window * rate), len(wave)))
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    starts = np.linspace(0, len(wave) - size, min(frames, len(wave) - size + 1)).astype(int)
    pieces = wave[starts[:, None] + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(pieces, axis=1)).T ** 2
    return np.maximum(10 * np.log10(power / max(power.max(), 1e-30) + 1e-30), -80.0)


def spectrogram_svg(x: np.ndarray, rate: float | None, label: str) -> str:
    """The spectrogram against seconds and kHz; without a known rate against samples and cycles a sample."""
    values = spectrogram(x, rate or 1000.0)
    end = x.shape[1] / (rate or 1.0)
    top = rate / 2000 if rate else 0.5
    units = ("time (s)", "frequency (kHz)") if rate else ("sample", "cycles a sample")
    return svg(image_figure(values, (0, end, 0, top), *units, size=SMALL), label)


def _time(rate: float | None) -> str:
    return "time (s)" if rate else "sample"


def _image(values: np.ndarray, label: str) -> str:
    image = Image.fromarray(values)
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    crisp = ' class="crisp"' if max(values.shape[:2]) <= 96 else ""  # few pixels are shown as what they are
    return f'<img{crisp} src="data:image/png;base64,{data}" alt="{escape(label)}">'


def _letters(text: str) -> str:
    """Letters in tens; of long ones both ends."""
    text = text.rstrip("-")  # padding
    tens = [text[i : i + 10] for i in range(0, len(text), 10)]
    if len(tens) > MOST_TENS:
        half = MOST_TENS // 2
        tens = [*tens[:half], f"… {len(text) - 20 * half:,} more …", *tens[-half:]]
    return f'<p class="letters">{escape(" ".join(tens))}</p>'


def _framed(drawing: str) -> str:
    return f'<div class="drawing">{drawing}</div>'
