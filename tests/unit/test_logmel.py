"""The log-mel layer against an independent float64 reference, its scales, its windows and its gradient."""

import math

import numpy as np
import pytest
import torch
from scipy import signal

from gridsight.core.errors import UsageError
from gridsight.nn.logmel import LogMel, mel_filters


def sound(samples: int, rate: float) -> np.ndarray:
    """Two channels: a chirp and a fading tone, each with noise, deviation about 1."""
    t = np.arange(samples) / rate
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, samples))
    return noise + np.stack([signal.chirp(t, 50, t[-1], 0.45 * rate), np.exp(-3 * t) * np.sin(2 * np.pi * 440 * t)])


def reference(
    x: np.ndarray, rate: float, win: int, hop: int, n_fft: int, n_mels: int, htk: bool, floor: float
) -> np.ndarray:
    """Slow and plain: scipy's STFT, then every triangle one frequency at a time."""
    rescale = signal.get_window("hann", win).sum()  # scipy divides by it
    *_, z = signal.stft(
        x, window="hann", nperseg=win, noverlap=win - hop, nfft=n_fft, boundary="zeros", padded=True, axis=-1
    )
    power = np.abs(z * rescale) ** 2
    power = power[..., : 1 + x.shape[-1] // hop]

    def hz(m: float) -> float:
        if htk:
            return 700 * (math.exp(m / 1127.01048) - 1)
        return 200 * m / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)

    if htk:
        top = 1127.01048 * math.log(1 + rate / 2 / 700)
    else:
        top = 15 + 27 * math.log(rate / 2000) / math.log(6.4) if rate > 2000 else 3 * rate / 400
    corners = [hz(top * i / (n_mels + 1)) for i in range(n_mels + 2)]
    out = np.zeros((*x.shape[:-1], n_mels, power.shape[-1]))
    for m in range(n_mels):
        a, b, c = corners[m : m + 3]
        for k in range(n_fft // 2 + 1):
            f = k * rate / n_fft
            weight = (f - a) / (b - a) if a < f <= b else (c - f) / (c - b) if b < f < c else 0.0
            out[..., m, :] += weight * (1.0 if htk else 2 / (c - a)) * power[..., k, :]
    return np.log(np.maximum(out, floor))


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize(
    ("rate", "window", "hop", "n_mels", "samples"),
    [
        (8000, 0.032, 0.016, 40, 8000),
        (8000, 0.025, 0.01, 40, 4321),
        (16000, 0.025, 0.0125, 64, 9000),
        (500, 0.2, 0.05, 12, 700),
    ],
)
def test_equals_the_reference(scale: str, rate: int, window: float, hop: float, n_mels: int, samples: int) -> None:
    x = sound(samples, rate)
    layer = LogMel(rate, window=window, hop=hop, n_mels=n_mels, scale=scale)  # type: ignore[arg-type]
    assert layer.n_fft >= layer.length and layer.n_fft & (layer.n_fft - 1) == 0
    ours = layer(torch.from_numpy(x).float()[None])[0].numpy()
    theirs = reference(x, rate, layer.length, layer.step, layer.n_fft, n_mels, scale == "htk", layer.floor)
    assert ours.shape == theirs.shape == (2, n_mels, layer.frames(samples))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    assert theirs.min() < theirs.max() - 5, "the case has something to hear"


def test_mel_scales_by_their_published_points() -> None:
    # Slaney: 1 kHz is mel 15 and 6.4 kHz mel 42; the middle of three triangles from 0 to 6.4 kHz tops at mel 21
    slaney = mel_filters(16000, 1 << 14, 1, 0.0, 6400.0, "slaney")[:, 0]
    assert abs(slaney.argmax() * 16000 / 2**14 - 1000 * 6.4 ** (6 / 27)) < 1
    assert abs(slaney.sum() * 16000 / 2**14 - 1) < 1e-3, "area one"
    # HTK: 1000 mel is 1000 Hz (to 0.1); one triangle from 0 to 2000 mel tops there
    high = 700 * (10 ** (2000 / 2595) - 1)
    htk = mel_filters(16000, 1 << 14, 1, 0.0, high, "htk")[:, 0]
    assert abs(htk.argmax() * 16000 / 2**14 - 1000) < 1 and abs(htk.max() - 1) < 1e-3
    # neighbouring triangles of height one add up to one between the first and the last top
    rows = mel_filters(8000, 1024, 20, 0.0, 4000.0, "htk")
    tops = rows.argmax(0)
    np.testing.assert_allclose(rows.sum(1)[tops[0] + 1 : tops[-1]], 1, atol=1e-12)


@pytest.mark.parametrize(("window", "hop"), [(0.032, 0.016), (0.032, 0.008), (0.025, 0.0125), (0.025, 0.01)])
def test_the_transform_can_be_inverted(window: float, hop: float) -> None:
    layer = LogMel(8000, window=window, hop=hop)
    x = torch.from_numpy(sound(5000, 8000)).float()[None]
    parts = torch.fft.irfft(layer.spectrum(x), layer.n_fft)[0, :, :, : layer.length]
    total = torch.zeros(2, 5000 + layer.length)
    weight = torch.zeros(5000 + layer.length)
    for k in range(parts.shape[1]):
        here = slice(k * layer.step, k * layer.step + layer.length)
        total[:, here] += parts[:, k]
        weight[here] += layer.taper
    inner = slice(layer.length // 2, layer.length // 2 + 5000 - layer.length)
    torch.testing.assert_close((total / weight)[:, inner], x[0, :, : 5000 - layer.length], rtol=0, atol=2e-6)
    full = weight[layer.length : 5000 - layer.length]  # where no frame is missing
    constant = bool((full - full.mean()).abs().max() < 1e-5)
    assert constant == signal.check_COLA("hann", layer.length, layer.length - layer.step)


def test_gradient_state_and_silence() -> None:
    layer = LogMel(200, window=0.16, hop=0.08, n_mels=4).double()
    layer.taper, layer.filters = layer.taper.double(), layer.filters.double()
    x = torch.randn(1, 1, 60, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert layer.state_dict() == {}
    silent = LogMel(8000, floor=1e-3)(torch.zeros(2, 1, 100))
    torch.testing.assert_close(silent, torch.full((2, 1, 40, 2), math.log(1e-3)))
    assert LogMel(8000)(torch.zeros(1, 1, 0)).shape == (1, 1, 40, 1)


def test_a_large_batch_is_transformed_in_parts_to_the_same_numbers() -> None:
    layer, x = LogMel(8000), torch.randn(90, 2, 4000)
    torch.testing.assert_close(layer(x), torch.cat([layer(each[None]) for each in x]), rtol=0, atol=1e-5)


def test_a_louder_sound_adds_a_constant() -> None:
    layer, x = LogMel(8000), torch.randn(1, 1, 4000)
    torch.testing.assert_close(layer(10 * x) - layer(x), torch.full((1, 1, 40, 51), math.log(100)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_fft": 128}, "power of two, at least 256"),
        ({"n_fft": 300}, "power of two"),
        ({"fmax": 5000}, "fmax <= 4000"),
        ({"hop": 0.05}, "hop of 1 sample up to the window"),
        ({"floor": 0.0}, "floor > 0"),
        ({"scale": "bark"}, "slaney or htk"),
        ({"n_mels": 200, "n_fft": 256}, "too narrow"),
    ],
)
def test_wrong_arguments_say_what_is_right(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LogMel(8000, **arguments)
