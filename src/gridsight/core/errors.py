"""Errors that a user can act on: each says what was wrong and what is right.

The command line prints the message on one line, without a traceback, and leaves with `exit_code`.
"""

import difflib
from collections.abc import Iterable


class GridsightError(Exception):
    """A failure whose message is meant for the user; anything else that escapes is a defect of Gridsight."""

    exit_code = 1


class UsageError(GridsightError):
    """The request itself is wrong: an unknown name or option, a missing path, values that do not go together."""

    exit_code = 2


class ReadError(GridsightError):
    """One file cannot be read: `path` names it, `reason` says why in words a user can act on."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


class DataError(GridsightError):
    """The data as a whole cannot be trained on or evaluated: too many bad files, one class, no items."""


class TrainingError(GridsightError):
    """Training cannot go on: a loss or an activation is not finite, or the disk is full."""


def nearest(name: str, known: Iterable[str], count: int = 3, otherwise: str | None = None) -> str:
    """A hint that ends an error message: the closest of `known`; when none is close `otherwise`, or all of them."""
    known = sorted(known)
    folded = [each.casefold() for each in known]
    # the same name in other letters is what was meant, whatever else is like it
    close = [each for each, plain in zip(known, folded, strict=True) if plain == name.casefold()]
    if not close:
        found = difflib.get_close_matches(name.casefold(), folded, count, 0.5)
        close = [known[folded.index(each)] for each in found]
    if close:
        return "did you mean " + " or ".join(close) + "?"
    if otherwise is not None:
        return otherwise
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"known: {listed}"
