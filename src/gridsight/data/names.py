"""What names say: the words for train, val and test, patterns with fields in braces, and the order people sort in."""

import re
from collections.abc import Iterable, Mapping, Sequence

from gridsight.core.errors import ReadError, UsageError, nearest

SPLITS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "t10k": "test",  # MNIST's own word
}
_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
_LABEL_WORD = re.compile(r"(?<![a-z])(labels?|y|targets?)(?![a-z])", re.IGNORECASE)
_FIELD = re.compile(r"\{([^{}]*)\}")


def split_of(folder: str) -> str | None:
    """The split that a folder of this name holds, or None: "Training" is "train"."""
    return SPLITS.get(folder.lower())


def split_said(text: str) -> str | None:
    """The split that a cell or a field says, None where it is empty; another word is a `ValueError`."""
    if text and split_of(text) is None:
        raise ValueError(f"its split {text[:30]!r} is none of {', '.join(SPLITS)}")
    return split_of(text)


def split_in(name: str) -> tuple[str | None, str]:
    """The split named in a file's name, and the name without it: "X_train.npy" gives ("train", "x_*.npy")."""
    found = _SPLIT_WORD.search(name)
    if found is None:
        return None, name.lower()
    return SPLITS[found[1].lower()], (name[: found.start()] + "*" + name[found.end() :]).lower()


def holds_labels(name: str) -> bool:
    """Whether a file of arrays is named as the labels of another: "train-labels-idx1-ubyte", "y_test.npy"."""
    return _LABEL_WORD.search(name.partition(".")[0]) is not None


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorted as people sort: numbers by value, so that "10" comes after "9".

    >>> natural_order(["b", "a10", "a9"])
    ['a9', 'a10', 'b']
    """

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        pieces = re.split(r"([0-9]+)", name)
        return [(0, int(p), "") if p.isdecimal() else (1, 0, p.casefold()) for p in pieces if p], name

    return sorted(names, key=key)


class Pattern:
    """`"{label}_{speaker}_{index}.wav"`: fields in braces, the rest literal in any case.

    With a "/" it is matched on the path below the data's folder, else on the file's own name; without a suffix, on the
    name without its suffix. A field never crosses a "/". Fields that start with "_" are matched and not kept.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        names = _FIELD.findall(text)
        literal = _FIELD.sub("", text)
        if not names or "{" in literal or "}" in literal:
            raise UsageError(
                f'--pattern {text!r} needs fields in braces, such as "{{label}}_{{speaker}}_{{index}}.wav"'
            )
        for name in names:
            if not name.isidentifier():
                raise UsageError(f"--pattern {text!r}: {name!r} is not a field name (letters, digits and _)")
            if names.count(name) > 1 and not name.startswith("_"):
                raise UsageError(f"--pattern {text!r} names the field {name!r} twice")
        if re.search(r"\}\{", text):
            raise UsageError(f"--pattern {text!r}: two fields need something between them")
        self.fields = tuple(name for name in names if not name.startswith("_"))
        self._stem = "." not in text.rpartition("}")[2]
        self._lazy, self._greedy = self._compile("+?"), self._compile("+")

    def match(self, path: str, whole: bool = False) -> dict[str, str]:
        """The fields of one file from its path below the data's folder ("/" between names), or a `ValueError`.

        A folder that is one item has no suffix: "1.2.840" is its `whole` name.
        """
        text = path if "/" in self.text else path.rpartition("/")[2]
        if self._stem and not whole:
            folder, slash, name = text.rpartition("/")
            text = folder + slash + (name.rpartition(".")[0] or name)
        lazy, greedy = self._lazy.fullmatch(text), self._greedy.fullmatch(text)
        if lazy is None or greedy is None:
            raise ValueError(f"its name does not fit the pattern {self.text!r}")
        if lazy.groups() != greedy.groups():
            raise ValueError(f"its name fits the pattern {self.text!r} in more than one way")
        return lazy.groupdict()

    def _compile(self, repeat: str) -> re.Pattern[str]:
        out, end = "", 0
        for field in _FIELD.finditer(self.text):
            kept = "" if field[1].startswith("_") else f"?P<{field[1]}>"
            out += re.escape(self.text[end : field.start()]) + f"({kept}[^/]{repeat})"
            end = field.end()
        return re.compile(out + re.escape(self.text[end:]), re.IGNORECASE)


def propose(names: Sequence[str]) -> str | None:
    """A pattern that would fit files of these names, or None when they share no separator.

    >>> propose(["0_george_1.wav", "0_theo_1.wav", "1_george_2.wav", "1_theo_2.wav"])
    '{label}_{field2}_{index}.wav'
    """
    suffixes = {name.rpartition(".")[2].lower() for name in names}
    stems = [name.rpartition(".")[0] or name for name in names]
    for separator in "_-. ":
        rows = [stem.split(separator) for stem in stems]
        if len(rows[0]) < 2 or len({len(row) for row in rows}) > 1 or not all(all(row) for row in rows):
            continue
        columns = list(zip(*rows, strict=True))
        labels = [i for i, column in enumerate(columns) if 2 <= len(set(column)) <= len(rows) / 2]
        if not labels:
            continue
        fields = [f"field{i + 1}" for i in range(len(columns))]
        if labels[0] != len(columns) - 1 and all(value.isdigit() for value in columns[-1]):
            fields[-1] = "index"
        fields[labels[0]] = "label"
        pattern = separator.join(f"{{{field}}}" for field in fields)
        return pattern + (f".{suffixes.pop()}" if len(suffixes) == 1 else "")
    return None


def check_column(group: str, fields: Sequence[str], name: str) -> None:
    """Refuse a `--group` that is not a column of the data."""
    if group not in fields:
        has = (
            f"it has {', '.join(fields)}; {nearest(group, fields, 1)}"
            if fields
            else ('it has no columns; --pattern names them: "{label}_{speaker}_{index}.wav"')
        )
        raise UsageError(f"{name} has no column {group!r} for --group: {has}")


def outside(parts: Sequence[str], file: object) -> ReadError | None:
    """The error of an archive member whose name points outside of the archive, else None."""
    if ".." in parts or "" in parts[:1] or (parts and parts[0].endswith(":")):
        return ReadError(file, "its name points outside the archive (path traversal)")
    return None
