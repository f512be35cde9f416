"""A step of a run's training, part by part, on random items: where its time goes, how near it is to the limit.

Parts take turns: front end and augmentation; with these forward and backward; the optimiser's update; the whole step.
The limit is the rate of a 2048-cubed matrix product. What counts: a layer's forward pass, the gradient of its weights
where these learn, and of its input where a layer before it learns.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch

from gridsight.artifact.predictor import Predictor
from gridsight.core.console import Console
from gridsight.data.loader import Batch
from gridsight.measure.cost import cost
from gridsight.measure.speed import WARM_UP, matmul_rate, take_turns
from gridsight.nn.nd import channels_last
from gridsight.training.methods.supervised import Supervised
from gridsight.training.optimiser import make_optimiser
from gridsight.training.recipe import Recipe

PARTS = {
    "input": "front end and augmentation",
    "network": "forward and backward",
    "update": "the optimiser's update",
    "step": "the whole step",
}


def training_speed(
    predictor: Predictor, recipe: Recipe, raw: torch.Tensor, parts: int, seconds: float, console: Console
) -> dict[str, Any]:
    """Milliseconds of the parts of a step on the items `raw` (N, C, *spatial) as cached, and items a second.

    A batch is computed in `parts`; the model stays as it is.
    """
    count, device = len(raw), predictor.device
    net: Any = channels_last(copy.deepcopy(predictor.model.net)).train()
    front, task = predictor.front, predictor.model.make_task()
    if recipe.whiten:
        net.whiten(front(raw))
    chosen = predictor.model.spec.task in ("classify", "grade")
    y = torch.zeros(count, dtype=torch.int64) if chosen else torch.zeros(count, net(front(raw[:2])).shape[1])
    batch = Batch(raw, y.to(device), torch.arange(count, device=device))
    optimiser = make_optimiser(recipe.optimizer, net, lr=0.0, weight_decay=0.0, momentum=recipe.momentum)
    method = Supervised(net, front, task, recipe.augment, 0, precision=recipe.precision)

    def network() -> None:
        optimiser.zero_grad()
        method.step(batch, 0, parts)

    def step() -> None:
        network()
        optimiser.step()

    console.note("a step of training ...")
    step()  # gives the parameters the gradients that the update alone needs
    calls: dict[str, Callable[[], Any]]
    calls = {"input": lambda: method.inputs(batch, 0), "network": network, "update": optimiser.step, "step": step}
    turns = take_turns(calls, seconds, device)
    peak = matmul_rate(device)
    ms = {name: 1e3 * each.median for name, each in turns.items()}
    ms["network"] -= ms["input"]
    low, high = turns["step"].quartiles
    rate = count / turns["step"].median
    result = {
        "batch": count,
        "optimizer": recipe.optimizer,
        "ms": ms,
        "step_low_ms": 1e3 * low,
        "step_high_ms": 1e3 * high,
        "items_per_second": rate,
        "of_peak": 2 * _products(net, tuple(predictor.example().shape[1:])) * rate / (1e9 * peak),
        "matmul_gflops": peak,
        "turns": len(turns["step"].seconds),
    }
    console.table([{"part": PARTS[name], "ms": round(ms[name], 2)} for name in PARTS], ["part", "ms"])
    console.say(
        f"training: {rate:,.0f} items/s in batches of {count} by {recipe.optimizer}, a step {1e3 * low:.4g} to "
        f"{1e3 * high:.4g} ms in half of {result['turns']} turns, {result['of_peak']:.0%} of the speed of a product of "
        f"matrices ({peak:.0f} GFLOP/s); the first {WARM_UP} are not counted, reading data and evaluating neither"
    )
    return result


def _products(net: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of forward and backward, an item; exact where layers follow one another."""
    learns = {name for name, m in net.named_modules() if any(p.requires_grad for p in m.parameters(recurse=False))}
    total, begun = 0, False
    for layer in cost(net, shape).layers:
        total += layer.macs * (1 + (layer.name in learns) + begun)
        begun = begun or layer.name in learns
    return total
