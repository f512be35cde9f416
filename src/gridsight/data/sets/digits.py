"""Digits: 1,797 scanned handwritten digits, 8x8, the embedded default that needs no network.

The test part of Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, UCI, 13 writers), as scikit-learn
ships it. Each value counts the black pixels, 0 to 16, of a 4x4 block; it is scaled to 0..255 (round(v * 255 / 16)), so
that a digit saved as a picture is the same array. Who wrote which is not published, so writers are on both sides.
"""

import gzip
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gridsight.core.errors import DataError, ReadError
from gridsight.data.files import File
from gridsight.data.readers import Reader
from gridsight.data.sample import Sample
from gridsight.data.sets import SETS
from gridsight.data.source import Item, Source


class DigitsReader(Reader):
    """scikit-learn's digits.csv.gz: 64 values and the digit, one item a line."""

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        """Every digit (1, 8, 8) uint8 with its label."""
        try:
            table = np.loadtxt(io.BytesIO(gzip.decompress(file.read(1 << 20))), delimiter=",")
        except (OSError, EOFError, ValueError) as error:
            raise ReadError(file, f"is not scikit-learn's table of digits ({error})") from None
        if table.shape != (1797, 65) or table.min() < 0 or table[:, :64].max() > 16:
            raise ReadError(file, f"is not scikit-learn's table of digits (shape {table.shape})")
        pictures = np.rint(table[:, :64] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
        for i, (picture, digit) in enumerate(zip(pictures, table[:, 64], strict=True)):
            yield Sample(picture, f"digits[{i}]", str(int(digit)))


@SETS.register("digits", licence="CC BY 4.0", paper="Alpaydin and Kaynak 1998, doi:10.24432/C50P49", items=1797)
def digits() -> Source:
    """The 1,797 digits of the installed scikit-learn; no published split."""
    spec = importlib.util.find_spec("sklearn")  # found, not imported: importing takes a second
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else None
    if path is None or not path.exists():
        raise DataError(
            "digits lie in the package scikit-learn, which is not installed whole; pip install scikit-learn"
        )
    item = Item(File(path, None, path.parent), "digits")
    return Source("digits", (item,), {"digits": DigitsReader()}, notes=("values 0..16 are scaled to 0..255",))
