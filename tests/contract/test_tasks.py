"""Every task and every method keeps its contract: the loss falls, a perfect answer scores perfectly, controls fail."""

import numpy as np
import pytest
import torch

from gridsight.core.registry import Entry
from gridsight.data.loader import Batch
from gridsight.models import create
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.tasks import TASKS
from gridsight.training.methods import METHODS
from gridsight.training.optimiser import make_optimiser

SMALL = {"widths": (8, 8), "blocks": 0, "pools": (1, 2), "grid": 2}
CASES = [(entry, ndim) for entry in TASKS.entries() for ndim in entry.tags["ndims"]]


def learn(entry: Entry, method: Entry, ndim: int, labels: torch.Tensor | None = None) -> tuple[float, float, float]:
    """(first loss, last loss, score on fresh items) after 60 steps on the task's example."""
    x, y, names = entry.item.example(ndim)
    task = entry.item(names)
    torch.manual_seed(0)
    net = create("gridnet", ndim=ndim, in_channels=x.shape[1], num_classes=len(names), **SMALL)
    front = FrontEnd(FrontEndSettings(1.0, (0.0,) * x.shape[1], (1.0,) * x.shape[1]), ndim)
    taught = method.item(net, front, task, (), 0)
    optimiser = make_optimiser("adamw", net, lr=5e-3, weight_decay=0.0, momentum=0.9)
    batch = Batch(x, y if labels is None else labels, torch.arange(len(y)))
    losses = []
    net.train()
    for _ in range(60):
        optimiser.zero_grad()
        loss, _ = taught.step(batch, 0)
        optimiser.step()
        losses.append(float(loss))
    fresh, truth, _ = entry.item.example(ndim, seed=1)
    with torch.no_grad():
        score = task.score(net.eval()(fresh), truth)
    return losses[0], losses[-1], score["accuracy"]


@pytest.mark.parametrize("method", METHODS.entries(), ids=lambda entry: entry.name)
@pytest.mark.parametrize(("entry", "ndim"), CASES, ids=lambda value: getattr(value, "name", str(value)))
def test_every_method_learns_every_task_and_not_from_shuffled_labels(entry: Entry, ndim: int, method: Entry) -> None:
    first, last, score = learn(entry, method, ndim)
    assert last < 0.2 * first
    assert score == 1.0
    # the control: the labels of other items teach nothing about fresh ones
    _, y, _ = entry.item.example(ndim)
    shuffled = y[torch.tensor([0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15])]
    assert learn(entry, method, ndim, shuffled)[2] < 0.9


@pytest.mark.parametrize("entry", TASKS.entries(), ids=lambda entry: entry.name)
def test_a_perfect_answer_scores_perfectly_and_decode_inverts_encode(entry: Entry) -> None:
    _, y, names = entry.item.example(2)
    task = entry.item(names)
    logits = torch.nn.functional.one_hot(y, len(names)).double() * 50
    assert task.score(logits, y) == {"accuracy": 1.0, "loss": pytest.approx(0.0, abs=1e-9)}
    assert float(task.loss(logits, y)) == pytest.approx(0.0, abs=1e-9)
    assert float(task.loss(-logits, y)) > 10
    answers = task.decode(np.asarray(logits.softmax(1)), 0.5)
    assert task.encode([answer["label"] for answer in answers]).tolist() == y.tolist()
    assert all(answer["unsure"] is False for answer in answers)
    assert task.decode(np.array([[0.45, 0.55]]), 0.6)[0]["unsure"] is True
    assert task.decode(np.array([[0.45, 0.55]]), None)[0]["unsure"] is None
