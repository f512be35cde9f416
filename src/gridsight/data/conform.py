"""Bring one decoded item to the form that a model was trained on: channels, type, rate, spacing and size.

The only such path: the cache, evaluation and prediction all call `conform`, so what goes in is what was trained on.
Integers stay integers of the data's type (a resize rounds back), so a cached item equals a predicted one bit for bit.
"""

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data.ragged import channels_last, middle, stack
from gridsight.data.sample import Sample
from gridsight.data.spacing import MOST_CELLS, centred, resample
from gridsight.data.spec import DataSpec

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's "L"
BYTES = 4
"""Most channels of a picture of bytes that is resized as bytes."""
_FULL = {"uint8": 255.0, "uint16": 65535.0, "int16": 32768.0}


def conform(sample: Sample, spec: DataSpec) -> np.ndarray:
    """(channels, *spatial) of `spec.dtype` from a sample of any size, depth and, where it makes sense, channels.

    Without gaps in memory, channels first or last.
    """
    x, path = sample.array, sample.path
    if x.ndim != spec.ndim + 1:
        size = "x".join(map(str, x.shape[1:]))
        raise ReadError(path, f"is {x.ndim - 1}-D ({size}) where {spec.ndim}-D is wanted ({spec.kind})")
    if 0 in x.shape:
        raise ReadError(path, f"is empty (shape {x.shape})")
    if sample.alphabet != spec.alphabet:
        raise ReadError(path, f"is {_what(sample.alphabet)} where the data are {_what(spec.alphabet)}")
    x = _channels(x, spec, path)
    x = _depth(x, spec, path)
    if spec.rate and sample.rate and sample.rate != spec.rate:
        x = _resample(x, sample.rate, spec, path)
    if spec.spacing is not None:
        x = resample(x, sample.spacing, spec.spacing, spec.spatial, path)
    if x.shape[1:] != spec.spatial and spec.fit != "patch":
        x = _size(x, spec, path)
    # a picture stays as decoders give it and networks take it: a cell's channels side by side
    dense = x.flags.c_contiguous or (x.ndim == 3 and channels_last(x).flags.c_contiguous)
    return x if dense else np.ascontiguousarray(x)


def is_resized(spec: DataSpec) -> bool:
    """Whether pictures of another size are brought to the one of the data by a resize."""
    return spec.kind == "image" and spec.fit in ("exact", "crop")


def _what(alphabet: str | None) -> str:
    return {"dna": "DNA or RNA", "protein": "protein"}.get(alphabet or "", "no sequence of letters (FASTA)")


def _channels(x: np.ndarray, spec: DataSpec, path: str) -> np.ndarray:
    have, want = x.shape[0], spec.channels
    if have == want:
        return x
    if spec.kind == "sound" and want == 1:
        return x.mean(0, keepdims=True, dtype=np.float32)
    if spec.kind in ("image", "video") and (have, want) == (1, 3):
        return np.repeat(x, 3, 0)
    if spec.kind in ("image", "video") and (have, want) == (3, 1):
        gray = np.tensordot(_LUMA, x.astype(np.float32), 1)[None]
        return gray if x.dtype.kind == "f" else np.rint(gray).astype(x.dtype)
    raise ReadError(path, f"has {have} channels where the data have {want}")


def _depth(x: np.ndarray, spec: DataSpec, path: str) -> np.ndarray:
    have, want = x.dtype.name, spec.dtype
    if have == want:
        return x
    if want == "float32":
        # unscaled: an array's integers may be stored in more or fewer bits from one file to the next
        return x.astype(np.float32)
    if (have, want) == ("uint8", "uint16"):
        return x.astype(np.uint16) * np.uint16(257)
    if (have, want) == ("uint16", "uint8"):
        return np.rint(x / 257.0).astype(np.uint8)
    raise ReadError(path, f"holds {have} values where the data are {want}")


def _resample(x: np.ndarray, have: float, spec: DataSpec, path: str) -> np.ndarray:
    from fractions import Fraction

    from scipy.signal import resample_poly

    assert spec.rate is not None
    ratio = Fraction(spec.rate / have).limit_denominator(1000)
    if not ratio or x.shape[-1] * ratio > MOST_CELLS * max(spec.spatial[-1], x.shape[-1]):
        raise ReadError(
            path, f"its sampling rate of {have:,.10g} Hz makes no sense where the data have {spec.rate:,.10g} Hz"
        )
    return resample_poly(x, ratio.numerator, ratio.denominator, axis=-1).astype(x.dtype)


def _size(x: np.ndarray, spec: DataSpec, path: str) -> np.ndarray:
    if spec.fit == "mask":
        return x[(slice(None), *middle(x.shape[1:], spec.spatial))]
    if spec.spacing is not None:
        return centred(x, spec.spatial)
    if spec.fit == "pad":
        return stack([x], spec.spatial)[0][0]
    if spec.kind in ("series", "sequence"):
        what = "letters" if spec.alphabet else "steps"
        raise ReadError(path, f"has {x.shape[-1]} {what} where the model takes exactly {spec.spatial[-1]}")
    return _crop_and_resize(x, spec.spatial, spec.kind == "video")


def _crop_and_resize(x: np.ndarray, spatial: tuple[int, ...], all_of_first: bool) -> np.ndarray:
    """Cut the largest centred box of the target's aspect, then resize it with an antialiasing filter.

    `all_of_first`: nothing is cut from the first axis, as time has no aspect with space.
    """
    import torch

    from gridsight.nn.resample import resize

    first = 1 + all_of_first
    have, want = x.shape[first:], spatial[all_of_first:]
    scale = min(h / w for h, w in zip(have, want, strict=True))
    box = middle(have, [max(1, round(w * scale)) for w in want])
    part = x[(*[slice(None)] * first, *box)]
    if x.dtype == np.uint8 and x.ndim == 3 and len(x) <= BYTES:
        # PyTorch has a kernel for bytes (whole numbers between its two passes): three times as fast, and 1 off at most
        pixels = np.array(channels_last(part), order="C")
        return resize(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2), spatial)[0].numpy()
    values = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))[None]
    resized = resize(values, spatial)[0].numpy()
    return resized if x.dtype.kind == "f" else np.rint(resized).clip(0, _FULL[x.dtype.name]).astype(x.dtype)
