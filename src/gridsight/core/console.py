"""What a verb prints: prose and tables on standard output, or with `--json` one object a line there and prose aside.

A closed pipe ends the printing, never the work: `gridsight train digits | head -1` still trains to the end.
Progress goes to standard error, a bar on a terminal and one line a step elsewhere.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


class Console:
    """Printer of one command: `json` sends prose to standard error; `quiet` drops prose and progress."""

    def __init__(self, *, json: bool = False, quiet: bool = False, log: Path | None = None) -> None:
        self.json, self.quiet, self.log = json, quiet, log

    def say(self, text: str = "") -> None:
        """A line of prose; also appended to the run's log once it has one."""
        self._record(text)
        if not self.quiet:
            _write(sys.stderr if self.json else sys.stdout, text + "\n")

    def warn(self, text: str) -> None:
        """A line that must be seen, on standard error."""
        self._record(f"warning: {text}")
        if not self.quiet:
            _write(sys.stderr, f"warning: {text}\n")

    def note(self, text: str) -> None:
        """A line of progress: always in the log, on standard error where no bar is drawn."""
        self._record(text)
        if not self.quiet and not sys.stderr.isatty():
            _write(sys.stderr, text + "\n")

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Rows as aligned columns; numbers to the right, thousands grouped."""
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        right = [any(isinstance(row.get(column), int | float) for row in rows) for column in columns]
        widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
        for line in [list(columns), *cells]:
            parts = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)]
            self.say("  ".join(parts).rstrip())

    def emit(self, value: Mapping[str, Any]) -> None:
        """One object a line on standard output, with `--json` only; NaN and infinities become null."""
        if self.json:
            _write(sys.stdout, dumps(value) + "\n")

    def _record(self, text: str) -> None:
        if self.log is not None:
            # a full disk must not end a run for a line of its log
            with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text + "\n")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator["Progress"]:
        """A progress bar over `total` steps on standard error; nothing when quiet or not on a terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield Progress()
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=RichConsole(file=sys.stderr), transient=True) as bar:
            task = bar.add_task(what, total=total, note="")
            drawn = 0.0

            def move(done: int, note: str) -> None:
                nonlocal drawn
                # a training step can take a millisecond: draw ten times a second
                if done == total or time.monotonic() - drawn > 0.1:
                    drawn = time.monotonic()
                    bar.update(task, completed=done, note=note)

            yield Progress(move)


class Progress:
    """A bar that `update` moves; without a terminal it does nothing."""

    def __init__(self, move: Any = None) -> None:
        self._move = move

    def update(self, done: int, note: str = "") -> None:
        if self._move is not None:
            self._move(done, note)


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON with sorted keys, non-finite numbers as null, non-ASCII kept.

    Names that are not UTF-8 on disk, of which Python makes lone surrogates, are escaped: the text can be written as
    UTF-8 anywhere, and `json.loads` gives the same names back.
    """
    text = json.dumps(_finite(value), sort_keys=True, ensure_ascii=False, indent=indent, default=_plain)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(count: float, thing: str) -> str:
    """
    >>> counted(1, "epoch"), counted(2000, "epoch"), counted(0.7, "epoch")
    ('1 epoch', '2,000 epochs', '0.7 epochs')
    """
    number = f"{int(count):,}" if count == int(count) else f"{count:g}"
    return f"{number} {thing}{'' if count == 1 else 's'}"


def tuples(value: Any) -> Any:
    """What JSON gave back with its lists as tuples, at any depth: constructors and dataclasses take these.

    >>> tuples({"widths": [16, [3, 5]], "name": "x"})
    {'widths': (16, (3, 5)), 'name': 'x'}
    """
    if isinstance(value, list | tuple):
        return tuple(map(tuples, value))
    if isinstance(value, Mapping):
        return {key: tuples(item) for key, item in value.items()}
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays, paths: whatever else would end `json.dumps`."""
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return str(value)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # the reader has gone: send what follows nowhere, so that neither this work nor the exit fails
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
