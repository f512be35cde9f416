"""Settings: one frozen dataclass a verb is the only definition of its options.

Flags, `settings.toml`, Python arguments and forms all come from the fields: name, type hint, default and the metadata
that `option` and `argument` attach. No option is parsed anywhere else, and an unknown one is an error that names the
nearest. argparse rather than a library on top of it: errors are one line in our own words, and `--help` starts faster.
"""

import argparse
import dataclasses
import json
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeVar

from gridsight.core.errors import UsageError, nearest

S = TypeVar("S")


def option(default: Any, help: str, *, metavar: str | None = None) -> Any:
    """A dataclass field that becomes `--name VALUE` (a bool becomes `--name` and `--no-name`)."""
    return dataclasses.field(default=default, metadata={"help": help, "metavar": metavar})


def argument(help: str, *, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that is given by position; a tuple takes one value or more."""
    return dataclasses.field(default=default, metadata={"help": help, "positional": True})


def make(kind: type[S], values: Mapping[str, Any], origin: str) -> S:
    """An instance of `kind` from keyword values, types checked; `origin` names where they came from in errors."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for name in values:
        if name not in fields:
            raise UsageError(f"{origin} has no setting {name!r}; {nearest(name, fields)}")
    checked = {name: _checked(value, hints[name], f"{origin}: {name}") for name, value in values.items()}
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    if missing:
        raise UsageError(f"{origin} needs {' and '.join(missing)}")
    return kind(**checked)


def to_toml(settings: Any) -> str:
    """The settings as TOML, None left out (TOML has no null); `from_toml` reads it back to an equal object."""
    lines = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None:
            # a JSON string, number, boolean or list of these is the same text in TOML, but for what is replaced here:
            # a path's bytes that are not UTF-8 are lone surrogates, which TOML cannot hold; no path holds a NUL
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")
            text = re.sub(r"[\udc80-\udcff]", lambda byte: rf"\u0000{ord(byte[0]) & 0xFF:02x}", text)
            lines.append(f"{field.name} = {text}")
    return "\n".join(lines) + "\n"


def from_toml(kind: type[S], text: str, origin: str) -> S:
    """Settings from TOML text; unknown keys and wrong types are a `UsageError`."""
    return make(kind, toml_values(text, origin), origin)


def toml_values(text: str, origin: str) -> dict[str, Any]:
    """The values that `to_toml` wrote, of whatever settings they are."""
    import tomllib

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is not TOML: {error}") from None
    return {key: _restored(value) for key, value in values.items()}


def _restored(value: Any) -> Any:
    """Lists as tuples, and bytes that are not UTF-8 as Python holds them."""
    if isinstance(value, list):
        return tuple(map(_restored, value))
    if isinstance(value, str):
        return re.sub("\0([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), value)
    return value


def parser(kind: type, verb: str) -> argparse.ArgumentParser:
    """The parser of one verb: help from the class docstring (first line, then examples) and from each field."""
    summary, _, rest = (kind.__doc__ or "").partition("\n")
    result = _Parser(
        prog=f"gridsight {verb}",
        description=summary.strip(),
        epilog=_dedent(rest),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        _add(result, field, hints[field.name])
    return result


def parse(kind: type[S], verb: str, words: Sequence[str]) -> S:
    """Settings from command-line words; a wrong option is a `UsageError` that names the nearest."""
    verb_parser = parser(kind, verb)
    words, stored = _stored(kind, list(words))
    for action in verb_parser._actions:
        if action.dest in stored:
            action.default, action.required = stored[action.dest], False
            if not action.option_strings:
                action.nargs = "*" if action.nargs == "+" else "?"
    values, unknown = verb_parser.parse_known_args(words)
    if unknown:
        flags = [flag for action in verb_parser._actions for flag in action.option_strings]
        wrong = unknown[0].split("=")[0]
        what = "option" if wrong.startswith("-") else "argument"
        hint = nearest(wrong, flags) if wrong.startswith("-") else f"see gridsight {verb} --help"
        raise UsageError(f"unknown {what} {unknown[0]!r}; {hint}")
    given = {name: _flat(v) if isinstance(v, list) else v for name, v in vars(values).items()}
    return make(kind, given, f"gridsight {verb}")


def _flat(values: list[Any]) -> tuple[Any, ...]:
    """Words as a tuple; one word may have been several numbers."""
    return tuple(item for value in values for item in (value if isinstance(value, tuple) else (value,)))


def _whole_numbers(word: str) -> tuple[int, ...]:
    """`224` or `224,224`."""
    try:
        return tuple(int(part) for part in word.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is not one whole number, or several as 24,128,128") from None


def _stored(kind: type, words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--settings FILE` out of the words; the values of that file become defaults."""
    if "--settings" not in words:
        return words, {}
    at = words.index("--settings")
    if at + 1 == len(words):
        raise UsageError("--settings needs the path of a settings.toml")
    from pathlib import Path

    path = Path(words[at + 1])
    if not path.is_file():
        raise UsageError(f"there is no settings file {path}")
    settings: Any = from_toml(kind, path.read_text(encoding="utf-8"), str(path))
    return words[:at] + words[at + 2 :], vars(settings)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")

    def print_help(self, file: Any = None) -> None:
        super().print_help(file or sys.stdout)


def _add(result: argparse.ArgumentParser, field: "dataclasses.Field[Any]", hint: Any) -> None:
    base, _, many = _base(hint)
    has_default = field.default is not dataclasses.MISSING
    shown = "" if not has_default or field.default in (None, (), "", False) else f" (default {field.default})"
    options: dict[str, Any] = {"help": field.metadata["help"].replace("%", "%%") + shown}
    if has_default:
        options["default"] = field.default
    choices = typing.get_args(base) if typing.get_origin(base) is Literal else None
    if base is bool:
        flag = "--" + field.name.replace("_", "-")
        result.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        return
    options["type"] = str if choices else _whole_numbers if many and base is int else base
    if choices:
        options["choices"] = choices
    if field.metadata.get("positional"):
        if many:
            options["nargs"] = "+" if not has_default else "*"
        elif has_default:
            options["nargs"] = "?"
        result.add_argument(field.name, metavar=field.name.upper(), **options)
        return
    if many:
        options["nargs"] = "+"
    if not choices:
        options["metavar"] = field.metadata.get("metavar") or {int: "N", float: "X"}.get(base, "TEXT")
    result.add_argument("--" + field.name.replace("_", "-"), **options)


def _base(hint: Any) -> tuple[Any, bool, bool]:
    """(type of one value, may be None, takes many) of a hint such as `int`, `str | None`, `tuple[str, ...]`."""
    optional = many = False
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:  # the second with a Literal
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        optional, hint = True, kinds[0]
    if typing.get_origin(hint) is tuple:
        many, hint = True, typing.get_args(hint)[0]
    return hint, optional, many


def _checked(value: Any, hint: Any, where: str) -> Any:
    base, optional, many = _base(hint)
    if value is None:
        if optional:
            return None
        raise UsageError(f"{where} may not be empty")
    if many:
        values = (value,) if isinstance(value, str | int | float) else tuple(value)
        return tuple(_checked(item, base, where) for item in values)
    if typing.get_origin(base) is Literal:
        known = typing.get_args(base)
        if value not in known:
            raise UsageError(f"{where} is {value!r}; {nearest(str(value), map(str, known))}")
        return value
    if base is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if base is str and hasattr(value, "__fspath__"):
        return str(value)
    if not isinstance(value, base) or (isinstance(value, bool) and base is not bool):
        raise UsageError(f"{where} must be {base.__name__}, not {value!r}")
    return value


def _dedent(text: str) -> str:
    import textwrap

    return textwrap.dedent(text).strip("\n")
