"""The worst items as pictures, traces, spectrograms, letters or slices, each with a caption."""

from collections.abc import Callable

import numpy as np

from gridsight.reporting.contents import Contents, Predictions
from gridsight.reporting.markup import esc, paragraph
from gridsight.reporting.pictures import show

MOST_PICTURES = 24

Caption = Callable[[int], tuple[str, str]]
"""Of an item's number: its caption as HTML, and the same in plain words for those who do not see the picture."""


def gallery(of: Contents, found: Predictions, words: Callable[[int], str], caption: Caption) -> str:
    """The worst items that were kept; `words` (of how many are shown) say what to look for."""
    shown = found.worst(MOST_PICTURES)
    cards = []
    for index, x in shown:
        said, plain = caption(index)
        drawing = show(x, of.spec, plain)
        content = f'<div class="slices">{drawing}</div>' if x.ndim > 3 else drawing
        path = f'<span class="soft">{esc(found.paths[index])}</span>'
        cards.append(f"<figure>{content}<figcaption>{said}{path}</figcaption></figure>")
    worst = found.worst_x
    size, least = ("small", 140) if worst.ndim == 4 else ("large", 280)
    about = paragraph(f"{words(len(shown))} {_how(worst, of)}".strip())
    return about + f'<div class="mistakes {size}" style="--least:{least}px">{"".join(cards)}</div>'


def _how(worst: np.ndarray, of: Contents) -> str:
    kind = of.spec.kind if of.spec is not None else ""
    if kind == "sequence":
        return "Letters in tens; the middle of long sequences is left out."
    if worst.ndim == 3:
        if kind == "sound":
            return "Spectrograms: brighter is louder, over 80 dB down from the loudest; windows of 32 ms."
        lines = "one line a channel" if worst.shape[1] > 1 else "values as they are in the data"
        return f"Traces: {lines}."
    stretched = "" if worst.dtype == np.uint8 else "Brightness is stretched over each one’s own range of values."
    channels = worst.shape[1]
    some_of = f" Shown: {'three' if channels > 3 else 'one'} of {channels} channels." if channels not in (1, 3) else ""
    return f"{stretched}{some_of}".strip()
