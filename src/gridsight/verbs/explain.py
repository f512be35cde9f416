"""explain: which cells of an item moved the answer, judged; and what the network has inside."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gridsight.core.console import Console
from gridsight.core.errors import UsageError, nearest
from gridsight.core.settings import argument, option
from gridsight.verbs import VERBS

if TYPE_CHECKING:
    from pathlib import Path

    from gridsight.attribution import Map

METHOD = "occlusion"
INSIDE = ("filters", "maps", "pooled", "patches", "dream", "concepts", "similarity", "receptive")


@dataclass(frozen=True)
class ExplainSettings:
    """Show which cells of an item moved the answer, with a verdict on each map; or look inside the network.

    PATH is what predict takes, or a named data set; without PATH some of the run's own test items are explained: right
    ones, mistakes and unsure ones. Figures, maps (.npz) and explain.jsonl go to a new folder in the run folder.

    A verdict is green, amber or red: whether the parts add up, whether what a map calls evidence moves the answer more
    than other places do, and whether the map changes when the network is shuffled and stays when the item is the same.

    examples:
      gridsight explain runs/photos-1 holiday/*.jpg
      gridsight explain runs/digits-1
      gridsight explain runs/digits-1 three.png --target 8
      gridsight explain runs/photos-1 dog.jpg --method grad_cam occlusion shapley --set count=36
      gridsight explain runs/photos-1 dog.jpg --compare
      gridsight explain runs/photos-1 --inside filters --layer conv1
    """

    run: str = argument("a run folder or a model file")
    paths: tuple[str, ...] = argument("what to explain (default: some of the run's own test items)", default=())
    method: tuple[str, ...] = option((), f"methods of attribution (default {METHOD})", metavar="NAME")
    target: str | None = option(None, "explain this class, by name or number (default: the answer)", metavar="NAME")
    set: tuple[str, ...] = option((), "settings of the methods, such as steps=64", metavar="NAME=VALUE")
    layer: str | None = option(None, "layer to read (default: the most faithful one); describe RUN lists them")
    baseline: Literal["zero", "mean", "blur"] | None = option(None, "what stands for nothing (default zero)")
    regions: Literal["grid", "slic"] | None = option(None, "regions of lime and shapley (default grid)")
    samples: int | None = option(None, "samples of the methods that draw some")
    compare: bool = option(False, "all methods on these items (or those of --method), as a table of their verdicts")
    inside: str | None = option(None, f"look inside the network instead: {', '.join(INSIDE)}", metavar="WHAT")
    unit: tuple[int, ...] = option((), "with --inside: channels of the layer (default: the first, or the strongest)")
    items: int | None = option(None, "most items to explain (default: all of PATH, 6 of the run's own)")
    verdict: bool = option(True, "judge each map; without it maps come sooner")
    figures: Literal["png", "svg", "pdf", "none"] = option("png", "format of the figures")
    out: str | None = option(None, "folder for what is written (default: a new one in the run folder)", metavar="DIR")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...", metavar="NAME")
    json: bool = option(False, "one JSON object an item")


@dataclass(frozen=True)
class Explanations:
    """`items` are dicts as `--json` prints them, `maps` the maps of the same order (None of one that failed).

    `out` is the folder of everything. A command that prints them as they come keeps neither.
    """

    out: "Path"
    items: list[dict[str, Any]] = field(default_factory=list)
    maps: "list[Map | None]" = field(default_factory=list)
    failed: int = 0

    @property
    def exit_code(self) -> int:
        """1 when an item has no explanation."""
        return int(self.failed > 0)


@VERBS.register("explain", settings=ExplainSettings)
def explain(settings: ExplainSettings, console: Console) -> Explanations:
    """One entry an item and method; with `compare` one a method, with `inside` one a figure."""
    from gridsight.attribution import EXPLAINERS

    for name in settings.method:
        EXPLAINERS.require(name)
    if settings.items is not None and settings.items < 1:
        raise UsageError(f"--items must be at least 1, not {settings.items}")
    _refuse_mixed(settings)
    if settings.inside is not None:
        from gridsight.verbs._inside import look_inside

        return look_inside(settings, console)
    if settings.compare:
        from gridsight.verbs._compare import compare_methods

        return compare_methods(settings, console)
    from gridsight.verbs._explain import explain_items

    return explain_items(settings, console)


def _refuse_mixed(settings: ExplainSettings) -> None:
    if settings.inside is not None and settings.inside not in INSIDE:
        raise UsageError(f"--inside is {settings.inside!r}; {nearest(settings.inside, INSIDE)}")
    if settings.inside is not None and (settings.compare or settings.method):
        raise UsageError("--inside looks into the network; --method and --compare explain items: give one of them")
    if settings.inside is not None and (settings.set or settings.baseline):
        raise UsageError("--set and --baseline are for methods of attribution, and --inside takes none")
    if settings.unit and settings.inside is None:
        raise UsageError("--unit is for --inside, such as --inside dream --layer conv1 --unit 3")
    if settings.compare and not settings.verdict:
        raise UsageError("--compare is a table of verdicts: --no-verdict leaves nothing to show")
