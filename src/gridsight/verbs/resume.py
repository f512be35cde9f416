"""resume: go on with a run that was stopped or killed, to the weights that it would have had (but for --minutes)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsight.core.console import Console
from gridsight.core.ranks import join
from gridsight.core.run import RunFolder
from gridsight.core.settings import argument, from_toml, option
from gridsight.verbs import VERBS

if TYPE_CHECKING:
    from gridsight.verbs._run import Run


@dataclass(frozen=True)
class ResumeSettings:
    """Go on with a run that was stopped or killed; the weights end the same, bit for bit, except under --minutes.

    examples:
      gridsight resume runs/photos-1
    """

    run: str = argument("the run folder")
    json: bool = option(False, "print the result as one JSON object")


@VERBS.register("resume", settings=ResumeSettings, processes=True)
def resume(settings: ResumeSettings, console: Console) -> "Run":
    """Finish a run; of a finished one, say so."""
    from gridsight.verbs._run import Run, execute, summary, write_report
    from gridsight.verbs.train import TrainSettings

    ranks = join()
    if not ranks.first:
        console = Console(quiet=True)
    folder = RunFolder.open(settings.run)
    if ranks.from_first(lambda: folder.result.exists() and folder.model.exists()):
        result = folder.read_json(folder.result)
        if ranks.first and not folder.report.exists():
            write_report(folder)
        console.say(f"{folder.path} is finished; nothing to do. Its report: {folder.report}")
        console.emit(summary(result))
        return Run(folder.path, result)
    trained = from_toml(TrainSettings, folder.settings.read_text(encoding="utf-8"), str(folder.settings))
    from gridsight.data.source import asked, find

    source = ranks.first_then_all(lambda: find(trained.data, **asked(trained)))
    return execute(folder, trained, source, console, ranks)
