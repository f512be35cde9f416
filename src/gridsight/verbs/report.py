"""`gridsight report RUN`: the run as one HTML page; needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from gridsight.core.console import Console
from gridsight.core.errors import UsageError
from gridsight.core.settings import argument, option
from gridsight.verbs import VERBS


@dataclass(frozen=True)
class ReportSettings:
    """Write one HTML page about a run: result, data, curves, confusion, calibration, worst mistakes, how it was made.

    examples:
      gridsight report runs/digits-1
      gridsight report runs/digits-1 --out digits.html
    """

    run: str = argument("a run folder")
    out: str | None = option(None, "where to write the page (default: report.html in the run folder)", metavar="FILE")
    json: bool = option(False, "print one JSON object instead of prose")


@VERBS.register("report", settings=ReportSettings)
def report(settings: ReportSettings, console: Console) -> Path:
    """Write the page and return where it is."""
    from gridsight.core.run import RunFolder
    from gridsight.reporting.page import write

    run = RunFolder.open(settings.run)
    out = Path(settings.out) if settings.out is not None else None
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write {out.name} to")
    if out is not None and out.is_dir():
        out = out / "report.html"
    try:
        path = write(run, out)
    except OSError as error:
        raise UsageError(f"cannot write {out or run.report}: {error.strerror}") from None
    console.say(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB, one file, needs no network)")
    console.emit({"report": str(path), "run": str(run.path)})
    return path
