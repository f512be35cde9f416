"""`--arguments NAME=VALUE ...`: what a network is built with, in words."""

import ast
from collections.abc import Sequence
from typing import Any

from gridsight.core.errors import UsageError


def given_arguments(words: Sequence[str]) -> dict[str, Any]:
    """The arguments of a network; a value that is no Python literal is text.

    >>> given_arguments(["width=32", "depths=(1,2)", "shortcut=pad"])
    {'width': 32, 'depths': (1, 2), 'shortcut': 'pad'}
    """
    return dict(map(_pair, words))


def _pair(word: str) -> tuple[str, Any]:
    name, equals, value = word.partition("=")
    if not equals:
        raise UsageError(f"--arguments {word}: write NAME=VALUE, such as width=32")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
