"""The order of array axes: guessed from shape and type, or given as text such as "NHWC"; arrays become (C, *spatial).

Letters: N items, C channels, D depth (or frames), H height, W width, L length. Spatial axes come out in the order
D, H, W, L whatever their order in the file.
"""

import numpy as np

from gridsight.core.errors import UsageError

SPATIAL = "DHWL"
COLOURS = 4  # an axis of at most this length, first or last of three or more, is taken for channels
LEADS = 16  # at most this many channels of a series are recognised when it is only twice as long


def guess_axes(shape: tuple[int, ...], dtype: np.dtype | str) -> str:
    """Axes of one item of this shape (without N), such as "HWC".

    - One axis: "L".
    - Two axes, one of length 1: that one is the channel ("CL" or "LC").
    - Two axes of 8-bit or boolean values: a gray picture, "HW".
    - Two axes of other types: a series with its channels on the short axis ("CL", "LC") when the long axis is at least
      8 times the short one, or twice it where that is at most 16 (12-lead ECG, accelerometer); else "HW".
    - Three axes: "HWC" when the last has at most 4, else "CHW" when the first has; a volume "DHW" otherwise, and when
      none is longer than 4.
    - Four axes: "DHWC" when the last has at most 4 or is shorter than the first, else "CDHW".

    Anything else, and whatever is guessed wrong, is told with text: `--axes NCL`.
    """
    if len(shape) == 1:
        return "L"
    if len(shape) == 2:
        return _guess_two(shape[0], shape[1], np.dtype(dtype))
    if len(shape) == 3:
        if max(shape) > COLOURS and min(shape[0], shape[-1]) <= COLOURS:
            return "HWC" if shape[-1] <= COLOURS else "CHW"
        return "DHW"
    if len(shape) == 4:
        return "DHWC" if shape[-1] <= COLOURS or shape[-1] < shape[0] else "CDHW"
    if not shape:
        raise UsageError("each item is a single number: there is no grid to learn from")
    raise UsageError(f"items have {len(shape)} axes {shape}; at most 4 are understood (channels and 3 of space)")


def _guess_two(first: int, second: int, dtype: np.dtype) -> str:
    if 1 in (first, second):
        return "CL" if first == 1 else "LC"
    if dtype.kind == "b" or dtype.itemsize == 1:
        return "HW"
    short, long = sorted((first, second))
    if long >= 8 * short or (short <= LEADS and long >= 2 * short):
        return "CL" if first == short else "LC"
    return "HW"


def check_axes(axes: str, ndim: int) -> str:
    """`axes` in capitals if it names each of `ndim` axes once, with N first if at all; else a `UsageError`."""
    text = axes.upper()
    wrong = [letter for letter in text if letter not in "NC" + SPATIAL]
    if wrong:
        raise UsageError(f"axes {axes!r}: {wrong[0]!r} is no axis; use N, C, D, H, W, L, such as NHWC or NCL")
    if len(set(text)) != len(text):
        raise UsageError(f"axes {axes!r} name an axis twice")
    if "N" in text[1:]:
        raise UsageError(f"axes {axes!r}: N must come first (save the array with items along its first axis)")
    if not set(text) & set(SPATIAL):
        raise UsageError(f"axes {axes!r} name no axis of space; use D, H, W or L")
    if "L" in text and set(text) & set("DHW"):
        raise UsageError(f"axes {axes!r} mix L with D, H or W; L is the only axis of a series")
    if len(text) != ndim:
        raise UsageError(f"axes {axes!r} name {len(text)} axes, but the array has {ndim}")
    return text


def stack_axes(axes: str | None, shape: tuple[int, ...], dtype: np.dtype | str) -> tuple[bool, str]:
    """Whether an array of this shape holds many items, and the axes of one of them.

    With N in `axes` it does; without N it does when the array has one axis more than `axes`. None: it does, and the
    rest is guessed.
    """
    if axes is None:
        return True, guess_axes(shape[1:], dtype)
    text = axes.upper()
    if "N" not in text and len(text) == len(shape) - 1:
        text = "N" + text
    text = check_axes(text, len(shape))
    return (True, text[1:]) if text.startswith("N") else (False, text)


def match_axes(
    shape: tuple[int, ...], dtype: np.dtype | str, ndim: int, channels: int, told: str | None = None
) -> str | None:
    """Axes, with N for a stack, of an array that must hold items of `ndim` axes and `channels` channels; None: cannot.

    For prediction: the model says what one item is, so a (28, 28) array is one picture and (10, 28, 28) ten of them.
    A single item is preferred where both fit, as in (3, 32, 32) for three channels. `told` are the axes that its
    training data were told to have; they hold, without their N where the array is one item.
    """
    if told:
        return told[1:] if told[:1] in "nN" and len(told) == len(shape) + 1 else told
    spatial = {1: "L", 2: "HW", 3: "DHW"}[ndim]
    for lead in ("", "N"):
        item = shape[len(lead) :]
        if len(lead) > len(shape):
            continue
        if len(item) == ndim and channels == 1:
            return lead + spatial
        if len(item) == ndim + 1:
            fits = [axes for axes, size in ((f"C{spatial}", item[0]), (f"{spatial}C", item[-1])) if size == channels]
            if len(fits) == 2:  # both ends have that many: decide as in training
                return lead + (guess if (guess := guess_axes(item, dtype)) in fits else fits[0])
            if fits:
                return lead + fits[0]
    return None


def channels_first(array: np.ndarray, axes: str, *, stacked: bool = False) -> np.ndarray:
    """A view (C, *spatial), spatial axes in the order D, H, W, L; a channel axis is added where none is.

    `axes` are those of one item; `stacked`: the array has N before them, and so has the result.
    """
    lead = int(stacked)
    order = [lead + axes.index(letter) for letter in "C" + SPATIAL if letter in axes]
    array = array.transpose([0, *order] if stacked else order)
    return array if "C" in axes else np.expand_dims(array, lead)
