"""`--arguments NAME=VALUE ...`: what a network is built with, in words."""

import ast
from collections.abc import Sequence
from typing import Any

from gridsight.core.errors import UsageError


def given_arguments(words: Sequence[str], option: str = "--arguments", example: str = "width=32") -> dict[str, Any]:
    """The arguments of a network, or what else `option` gives; a value that is no Python literal is text.

    >>> given_arguments(["width=32", "depths=(1,2)", "shortcut=pad"])
    {'width': 32, 'depths': (1, 2), 'shortcut': 'pad'}
    """
    for word in words:
        if "=" not in word:
            raise UsageError(f"{option} {word}: write NAME=VALUE, such as {example}")
    return dict(map(_pair, words))


def _pair(word: str) -> tuple[str, Any]:
    name, _, value = word.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
