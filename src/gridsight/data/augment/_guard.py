"""The label guard: which operations of a recipe would turn one class into another, judged by the classes' names.

A mirrored 3 is no 3, a mirrored "left" is a "right", a 6 upside down is a 9. Names are all there is to judge by, so the
guard is careful: names that are numbers or single characters of any alphabet count as characters, whatever they mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_HANDED = frozenset(
    """left right lefthand righthand lefthanded righthanded leftward rightward leftwards rightwards lhs rhs
    clockwise counterclockwise anticlockwise cw ccw port starboard east west eastbound westbound
    links rechts gauche droite izquierda derecha sinistra destra esquerda direita""".split()  # noqa: SIM905
)
_STRANDED = frozenset({"sense", "antisense", "forward", "reverse", "strand", "watson", "crick"})
_DIGITS = frozenset({"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"})
_CHARACTER = frozenset(
    {"digit", "number", "numeral", "letter", "character", "char", "glyph", "symbol", "upper", "lower"}
)
_TURNED = [("6", "9"), ("six", "nine"), ("b", "q"), ("d", "p"), ("n", "u"), ("m", "w"), ("n", "z"), ("up", "down")]
_MOST_AFFINE = 3.0  # strength 1 turns by up to 15 degrees


def guard(operations: Sequence[tuple[str, float]], classes: Sequence[str], kind: str) -> list[str]:
    """One message for each operation that could change a label, with the class names that made it so.

    `kind` is the DataSpec's: "image", "sound", "series", "sequence", "volume" or "video".
    """
    return guarded(operations, classes, kind)[1]


def guarded(
    operations: Sequence[tuple[str, float]], classes: Sequence[str], kind: str
) -> tuple[tuple[tuple[str, float], ...], list[str]]:
    """The recipe without what could change a label (flips dropped, rotations held to 45 degrees), and the messages."""
    kept: list[tuple[str, float]] = []
    messages: list[str] = []
    for name, strength in operations:
        keep: float | None = strength
        if name == "flip" and strength > 0:
            if why := _flip_risk(classes, kind):
                keep = None
                messages.append(f"flip is left out: {why}")
        elif name == "reverse_complement" and strength > 0:
            if stranded := [one for one in classes if _STRANDED & set(_tokens(one))]:
                keep = None
                messages.append(f"reverse_complement is left out: {_list(stranded)} name a strand")
        elif name == "affine" and strength > _MOST_AFFINE and kind in ("image", "volume", "video"):
            pairs = ", ".join(f"{a} and {b}" for a, b in _swapped(classes, _TURNED))
            if pairs:
                keep = _MOST_AFFINE
                messages.append(
                    f"affine is held to strength {keep:g} (45 degrees): turned far enough, {pairs} become each other"
                )
        if keep is not None:
            kept.append((name, keep))
    return tuple(kept), messages


def _flip_risk(classes: Sequence[str], kind: str) -> str:
    """Why a mirror could change a label, or ""."""
    if kind == "sequence":
        return "it would read letters backwards, which is another molecule"
    if kind in ("series", "sound"):
        return f"it would run time backwards, and {_list(classes)} may differ by its direction"
    characters = [name for name in classes if _is_character(name)]
    if characters:
        return f"{_list(characters)} look like characters, and a mirrored character is another one or none"
    handed = [name for name in classes if _HANDED & set(_tokens(name))]
    if not handed:  # hand_L beside hand_R: a lone L could be anything
        sides = [("l", "r"), ("lt", "rt")]
        handed = [name for pair in _swapped(classes, sides) for name in pair]
    if handed:
        return f"{_list(handed)} name a side, and a mirror changes it"
    return ""


def _swapped(classes: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs of classes whose names are equal but for one token, which is one of `pairs`."""
    by_tokens = {tuple(_tokens(name)): name for name in classes}
    found = []
    for tokens, name in by_tokens.items():
        for i, token in enumerate(tokens):
            for one, other in pairs:
                partner = by_tokens.get((*tokens[:i], other, *tokens[i + 1 :])) if token == one else None
                if partner is not None:
                    found.append((name, partner))
    return found


def _is_character(name: str) -> bool:
    """Whether a class is named by one character, a number, or a digit's word, alone or beside words such as `digit`."""
    rest = [token for token in _tokens(name) if token not in _CHARACTER]
    if len(rest) != 1:
        return False
    return len(rest[0]) == 1 or rest[0].isnumeric() or rest[0] in _DIGITS


def _tokens(name: str) -> list[str]:
    """The words of a class name in lower case: turnLeft, turn-left and "Turn left" are turn, left."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)", " ", name)
    return [token.lower() for token in re.findall(r"[^\W\d_]+|\d+", spaced)]


def _list(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
