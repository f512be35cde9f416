"""DNA, RNA and protein as one-hot arrays: text to (C, L) uint8 and back.

Alphabets: "dna" has the channels A C G T, RNA too (its U is T); "protein" the twenty amino acids in the order of their
one-letter codes. A certain letter is `LEVEL` in its channel; an ambiguous one shares LEVEL equally among what it can
be (IUPAC-IUB: Cornish-Bowden, Nucleic Acids Research 13:3021, 1985; IUPAC-IUBMB for B, J, X and Z). 60 is divisible by
2, 3, 4 and 20, so every share is a whole number and each column sums to 60; a gap is a column of zeros.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

LEVEL = 60
GAPS = "-.*"  # an alignment's gap, and a protein's end
ALPHABETS = {"dna": "ACGT", "protein": "ACDEFGHIKLMNPQRSTVWY"}
_AMBIGUOUS = {
    "dna": {
        "U": "T",
        "R": "AG",
        "Y": "CT",
        "S": "CG",
        "W": "AT",
        "K": "GT",
        "M": "AC",
        "B": "CGT",
        "D": "AGT",
        "H": "ACT",
        "V": "ACG",
        "N": "ACGT",
        "X": "ACGT",
    },
    # U and O, the 21st and 22nd amino acids, are read as those that they are made of: selenocysteine as cysteine,
    # pyrrolysine as lysine; they are too rare to have a channel each
    "protein": {"B": "DN", "J": "IL", "Z": "EQ", "X": ALPHABETS["protein"], "U": "C", "O": "K"},
}
_GUESS = 100_000  # letters that decide what a text is
_BAD = 255  # no share of 60 is 255


def _table(alphabet: str) -> np.ndarray:
    """(256, C): the column of each byte; `_BAD` where it is no letter of the alphabet."""
    letters = ALPHABETS[alphabet]
    table = np.full((256, len(letters)), _BAD, np.uint8)
    for letter, means in [*((letter, letter) for letter in letters), *_AMBIGUOUS[alphabet].items()]:
        column = np.zeros(len(letters), np.uint8)
        column[[letters.index(one) for one in means]] = LEVEL // len(means)
        table[[ord(letter), ord(letter.lower())]] = column
    table[[ord(gap) for gap in GAPS]] = 0
    return table


_TABLES = {name: _table(name) for name in ALPHABETS}


def channels(alphabet: str) -> int:
    """How many letters, and so channels, an alphabet has."""
    return len(ALPHABETS[alphabet])


def one_hot(text: str, alphabet: str) -> np.ndarray:
    """(C, L) uint8; lower case counts as upper case, white space not at all; any other character is a `ValueError`."""
    text = "".join(text.split())
    if not text:
        raise ValueError("has no letters")
    table = _TABLES[alphabet]
    columns = table[np.frombuffer(text.encode("latin-1", "replace").replace(b"?", b"\0"), np.uint8)]
    bad = np.flatnonzero(columns[:, 0] == _BAD)
    if len(bad):
        kind = "DNA or RNA" if alphabet == "dna" else "protein"
        raise ValueError(f"{text[bad[0]]!r} at position {bad[0] + 1:,} is no letter of {kind}")
    return np.ascontiguousarray(columns.T)


def guess(texts: Iterable[str]) -> str:
    """ "dna" or "protein", by the letters of the first texts.

    Nearly all of a nucleic acid is A, C, G, T, U and N; a quarter of a usual protein is. Letters of other alphabets
    do not change the answer: they are an error of the text that has them.
    """
    total = plain = 0
    for text in texts:
        start = text[:_GUESS]
        total += sum(map(str.isalpha, start))
        plain += sum(map(start.count, "ACGTUNacgtun"))
        if total >= _GUESS:
            break
    return "dna" if plain >= 0.85 * total else "protein"


def conserved(x: Any, rows: np.ndarray, least: float = 0.05) -> bool:
    """Whether windows x (n, C, L) are aligned: some place prefers letters that others do not, by `least` bits or more.

    Judged by the items `rows` and by their letters alone, not by labels. Information as in sequence logos (Schneider
    and Stephens, Nucleic Acids Research 18:6097, 1990), against the letters of all places; chance must be excluded as
    well, by the G-test with a probability of 0.001 for all places together. Splice junctions have 0.31 bits, promoters
    0.27, 2,000 windows with a motif planted anywhere at most 0.007.
    """
    from scipy.stats import chi2

    total = np.zeros(x.shape[1:])
    for start in range(0, len(rows), 4096):
        total += np.asarray(x[rows[start : start + 4096]]).sum(0, dtype=np.float64) / LEVEL
    count = np.maximum(total.sum(0), 1e-12)
    share, usual = total / count, total.sum(1, keepdims=True) / max(total.sum(), 1e-12)
    bits = (share * np.log2(np.where(share > 0, share, 1) / np.where(usual > 0, usual, 1))).sum(0)
    chance = chi2.sf(2 * np.log(2) * count * bits, max(1, int((usual > 0).sum()) - 1)) * x.shape[2]
    return bool(np.any((bits >= least) & (chance < 1e-3)))


def to_text(array: np.ndarray, alphabet: str) -> str:
    """The letters of an array (C, L): the one that a column is certain of, N or X where several share it, "-" for 0."""
    letters = np.array([*ALPHABETS[alphabet], "N" if alphabet == "dna" else "X", "-"])
    top = array.max(0)
    which = np.where((array == top).sum(0) > 1, len(letters) - 2, array.argmax(0))
    return "".join(letters[np.where(top == 0, len(letters) - 1, which)])
