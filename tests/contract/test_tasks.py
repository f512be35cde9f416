"""Every task and every method keeps its contract: the loss falls, a perfect answer scores perfectly, controls fail."""

from typing import Any

import numpy as np
import pytest
import torch

from gridsight.core.registry import Entry
from gridsight.data.loader import Batch
from gridsight.measure.calibration import Calibration
from gridsight.models import create
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.tasks import TASKS, Task, make_task
from gridsight.training.methods import METHODS
from gridsight.training.optimiser import make_optimiser

SMALL = {"widths": (8, 8), "blocks": 0, "pools": (1, 2), "grid": 2}
CASES = [(entry, ndim) for entry in TASKS.entries() for ndim in entry.tags["ndims"]]


def learn(entry: Entry, method: Entry, ndim: int, shuffle: bool = False) -> tuple[float, float, dict[str, float]]:
    """(first loss, last loss, score on fresh items) after 100 steps on the task's example."""
    x, y, names = entry.item.example(ndim)
    task = make_task(entry.name, names)
    torch.manual_seed(0)
    net = create("gridnet", ndim=ndim, in_channels=x.shape[1], num_classes=task.num_outputs, **SMALL)
    front = FrontEnd(FrontEndSettings(1.0, (0.0,) * x.shape[1], (1.0,) * x.shape[1]), ndim)
    taught = method.item(net, front, task, (), 0)
    optimiser = make_optimiser("adamw", net, lr=5e-3, weight_decay=0.0, momentum=0.9)
    order = torch.arange(len(y))
    if shuffle and entry.name == "classify":  # exactly half of the items keep their label
        order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15])
    elif shuffle:
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(3))
    batch = Batch(x, y[order], torch.arange(len(y)))
    losses = []
    net.train()
    for _ in range(100):
        optimiser.zero_grad()
        loss, _ = taught.step(batch, 0)
        optimiser.step()
        losses.append(float(loss))
    fresh, truth, _ = entry.item.example(ndim, seed=1)
    with torch.no_grad():
        score = task.score(net.eval()(fresh), truth)
    return losses[0], losses[-1], score


@pytest.mark.parametrize("method", METHODS.entries(), ids=lambda entry: entry.name)
@pytest.mark.parametrize(("entry", "ndim"), CASES, ids=lambda value: getattr(value, "name", str(value)))
def test_every_method_learns_every_task_and_not_from_shuffled_labels(entry: Entry, ndim: int, method: Entry) -> None:
    first, last, score = learn(entry, method, ndim)
    assert last < 0.2 * first
    metric = entry.item.metric
    perfect = 0.0 if entry.name == "regress" else 1.0
    assert score[metric] == pytest.approx(perfect, abs=0.12 if entry.name == "regress" else 1e-9)
    # the control: the labels of other items teach nothing about fresh ones
    shuffled = learn(entry, method, ndim, shuffle=True)[2]
    assert shuffled[metric] < perfect - 0.1
    assert shuffled["loss"] > 3 * score["loss"]


def perfect_outputs(task: Task, name: str, y: torch.Tensor) -> torch.Tensor:
    """Outputs that are as right and as certain as can be."""
    if name == "regress":
        return ((y - task.center) / task.scale)[:, None]
    if name == "multilabel":
        return (2 * y.double() - 1) * 50
    if name == "grade":
        return ((y[:, None] > torch.arange(task.num_outputs)).double() * 2 - 1) * 50
    return torch.nn.functional.one_hot(y, task.num_outputs).double() * 50


def answer_of(name: str, answer: dict[str, Any]) -> Any:
    return answer[{"regress": "value", "multilabel": "labels"}.get(name, "label")]


@pytest.mark.parametrize("entry", TASKS.entries(), ids=lambda entry: entry.name)
def test_a_perfect_answer_scores_perfectly_and_decode_inverts_encode(entry: Entry) -> None:
    from gridsight.data.target import Target, encode

    _, y, names = entry.item.example(2)
    options = {"center": 2.0, "scale": 3.0, "unit": "mm"} if entry.name == "regress" else {}
    task = make_task(entry.name, names, **options)
    outputs = perfect_outputs(task, entry.name, y)
    score = task.score(outputs, y)
    assert score[task.metric] == pytest.approx(0.0 if entry.name == "regress" else 1.0)
    assert score["loss"] == pytest.approx(0.0, abs=1e-9)
    assert float(task.loss(-outputs if entry.name != "regress" else outputs + 10, y)) > 5
    predicted = task.predict(outputs.numpy(), Calibration())
    answers = [answer_of(entry.name, answer) for answer in task.decode(predicted, 0.5)]
    labels = [";".join(a) + ";" if isinstance(a, list) else str(a) for a in answers]
    again = encode(Target(entry.name, tuple(names)), labels)
    assert np.allclose(again, y.numpy())
    assert not len(task.worst(predicted, y.numpy())) or entry.name == "regress"
    # the whole path: calibrate, measure, put into words
    fitted = task.calibrate(outputs.numpy(), y.numpy(), 0.8)
    predicted = task.predict(outputs.numpy(), fitted)
    result = task.measure(predicted, predicted, y.numpy(), None)
    for name in task.headline(result):
        assert name in result["metrics"]
        assert "interval" in task.words(name, result["metrics"][name])
    # the interval of perfect answers excludes chance, that of answers that are all the same does not
    name, rate = task.chance()
    assert result["metrics"][name]["low"] > rate
    same = task.predict(np.tile(outputs.numpy().mean(0), (len(y), 1)), Calibration())
    assert task.measure(same, same, y.numpy(), None)["metrics"][name]["low"] <= rate + 1e-9


def test_classify_is_unsure_below_its_threshold() -> None:
    task = make_task("classify", ("left", "right"))
    assert task.decode({"probabilities": np.array([[0.45, 0.55]])}, 0.6)[0]["unsure"] is True
    assert task.decode({"probabilities": np.array([[0.45, 0.55]])}, None)[0]["unsure"] is None
