"""The run folder: every file of a run, each written to a temporary name, fsynced and renamed.

settings.toml  plan.json  metrics.jsonl  model.safetensors  resume.safetensors  result.json  predictions.npz
explained.npz  report.html  environment.json  log.txt
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gridsight.core.console import dumps
from gridsight.core.errors import UsageError


def atomic_write(path: Path, write: bytes | str | Callable[[Path], None]) -> None:
    """Write `path` whole or not at all: bytes, text, or a function that fills the temporary file it is given."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if callable(write):
            write(temporary)
        else:
            temporary.write_bytes(write.encode("utf-8", "backslashreplace") if isinstance(write, str) else write)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())  # some writers make files that only their owner reads
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """What the user withholds from new files; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


class RunFolder:
    """Paths and small files of one run; `model`, `resume`, ... are where those files are or will be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "settings.toml"
        self.plan = path / "plan.json"
        self.metrics = path / "metrics.jsonl"
        self.model = path / "model.safetensors"
        self.resume = path / "resume.safetensors"
        self.result = path / "result.json"
        self.predictions = path / "predictions.npz"
        self.explained = path / "explained.npz"
        self.report = path / "report.html"
        self.environment = path / "environment.json"
        self.log = path / "log.txt"

    @classmethod
    def create(cls, out: str | None, stem: str) -> "RunFolder":
        """A new folder: `out`, or `runs/<stem>-<n>` with the first free n; an `out` that holds a run is refused."""
        if out is not None:
            path = Path(out)
            if out.encode(errors="ignore").decode() != out:
                raise UsageError(f"{out!r} is not UTF-8, as the paths of model files must be; give another --out")
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UsageError(f"{path} exists and is not empty; give another --out, or gridsight resume {path}")
            _make(path)
            return cls(path)
        _make(Path("runs"))
        for n in range(1, 1_000_000):
            path = Path("runs") / f"{stem}-{n}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            except OSError as error:
                raise UsageError(f"cannot make {path}: {error.strerror}; give --out DIR") from None
            return cls(path)
        raise UsageError("runs/ is full; give --out DIR")

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """An existing run: its folder, or a file inside it."""
        path = Path(path)
        folder = path.parent if path.is_file() else path
        if not folder.exists():
            raise UsageError(f"there is no run at {path}; gridsight train DATA makes one")
        if not (folder / "settings.toml").exists():
            raise UsageError(f"{path} is not a run folder (it has no settings.toml)")
        return cls(folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for one process; a second one gets a `UsageError`. The lock dies with its process."""
        import fcntl

        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"{self.path} is being trained by another process") from None
            yield

    @property
    def remedy(self) -> str:
        """What to do about a run that ended early; one without a plan never began, and `train` discards it."""
        return f"gridsight resume {self.path} goes on from its last snapshot" if self.plan.exists() else "start again"

    def discard(self) -> None:
        """Remove the folder of a run that never began."""
        shutil.rmtree(self.path, ignore_errors=True)

    def sweep(self) -> None:
        """Remove the temporary files that killed processes left; the caller holds the lock."""
        for path in self.path.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def write_json(self, path: Path, value: Any) -> None:
        """A small JSON file of the run, readable by people."""
        atomic_write(path, dumps(value, indent=1) + "\n")

    def read_json(self, path: Path) -> Any:
        """A JSON file of the run, or None when it is not there yet."""
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a last line cut by a kill is left out."""
        rows = []
        if self.metrics.exists():
            for line in self.metrics.read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return rows


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {path}: {error.strerror}; give --out DIR") from None
