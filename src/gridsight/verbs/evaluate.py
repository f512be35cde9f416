"""eval: how good a model is on data that it was not trained on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsight.core.console import Console
from gridsight.core.settings import argument, option
from gridsight.verbs import VERBS

if TYPE_CHECKING:
    from gridsight.verbs._evaluate import Evaluation


@dataclass(frozen=True)
class EvaluateSettings:
    """Measure a model on the test data of its run, or on other data.

    Of DATA with a test part only that part is used; of DATA without one, everything. Each reading of the run's own test
    data is counted.

    examples:
      gridsight eval runs/digits-1
      gridsight eval runs/photos-1 new_photos/
      gridsight eval resnet20.safetensors cifar10/ --json
    """

    run: str = argument("a run folder or a model file")
    data: str | None = argument("a path or the name of a data set (default: the run's own test data)", default=None)
    split: str = option("auto", "part to measure: test, train, val, all; auto is test where there is one")
    pattern: str | None = option(None, 'fields of a file name, such as "{label}_{speaker}_{index}.wav"')
    group: str | None = option(None, "column over which intervals are drawn (speaker, patient, ...)", metavar="NAME")
    target: str | None = option(
        None, "column of a table that holds the labels (default: the one trained on)", metavar="NAME"
    )
    frames: bool = option(False, "each folder of pictures is one clip, its pictures the frames in natural order")
    axes: str | None = option(None, "order of array axes, such as NHWC or NCL, where the guess is wrong")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...", metavar="NAME")
    out: str | None = option(None, "folder for result.json", metavar="DIR")
    accept_bad: bool = option(False, "go on although more than 1 % of the files cannot be read")
    json: bool = option(False, "print the result as one JSON object")


@VERBS.register("eval", settings=EvaluateSettings)
def evaluate(settings: EvaluateSettings, console: Console) -> "Evaluation":
    """Metrics with intervals of a model on a part of some data."""
    from gridsight.verbs._evaluate import run_evaluation

    return run_evaluation(settings, console)
