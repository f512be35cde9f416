"""The report's section about training: loss, the metric that chose the epoch, and learning rate, epoch by epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gridsight.reporting import curves
from gridsight.reporting.contents import Contents
from gridsight.reporting.curves import Line
from gridsight.reporting.figures import Mark, line_figure, svg
from gridsight.reporting.markup import bullets, figure, paragraph

METRICS = {
    "accuracy": ("Accuracy", "share right", True),
    "closeness": ("Closeness", "closeness", False),
    "f1_samples": ("F1 of an item’s classes", "F1, mean over items", True),
    "minus_mae": ("Mean absolute error", "error, standard deviations", False),
}
"""Of the tasks' metrics: title, axis, whether they are shares."""
MEANING = {
    "closeness": "Closeness is 1 for the right grade and falls with the square of the distance to 0 at the far end. ",
    "minus_mae": "Errors are in standard deviations of the training data’s numbers. ",
}
_OTHERS = {"event", "phase", "epoch", "step", "loss", "lr", "items_per_second", "seconds", "text"}


def training(of: Contents) -> str:
    """Every epoch as it was measured, with resumptions marked."""
    if not of.epochs:
        return paragraph("metrics.jsonl has no finished epoch: there are no curves to draw.")
    marks = [
        Mark(curves.epoch_of(e["step"], of.epochs), None, e["event"]) for e in of.events if e.get("step") is not None
    ]
    metric = metric_of(of.epochs)
    title, unit, share = METRICS.get(metric, (metric, metric, False))
    drawn = []
    for lines, name, y, percent_y in (
        (_both(of, "loss"), "Loss", "loss (Huber)" if of.task == "regress" else "loss (nats)", False),
        (_both(of, metric), title, unit, share),
    ):
        if metric == "minus_mae" and name != "Loss":  # errors are read upwards
            lines = [replace(line, y=-line.y) for line in lines]
        if lines:
            drawing = line_figure(lines, "epoch", y, marks=marks, percent_y=percent_y, whole_x=True)
            drawn.append(figure(svg(drawing, f"{name} against epoch"), name, lines=lines))
    if rate := curves.series(of.epochs, "lr", "learning rate"):
        drawing = line_figure([rate], "epoch", "learning rate", marks=marks, whole_x=True)
        drawn.append(figure(svg(drawing, "Learning rate against epoch"), "Learning rate"))
    words = "Values of each epoch as they were measured, not smoothed. " + MEANING.get(metric, "")
    if any(row.get("val_loss") is not None for row in of.epochs):
        smoothing = (of.plan.get("recipe") or {}).get("label_smoothing") if of.task != "regress" else None
        extra = f" and its loss counts labels smoothed by {smoothing:g}" if smoothing else ""
        words += f"Training is of augmented items while the weights move{extra}: validation may well be better."
    else:
        words += (
            "There is no validation set: nothing here shows whether the network learned by heart; the held-back result "
            "does."
        )
    happened = [f"step {e.get('step', '?')}: {e.get('text') or e['event']}" for e in of.events]
    dotted = f"<div><h3>Dotted lines</h3>{bullets(happened, 12)}</div>" if happened else ""
    return paragraph(words) + f'<div class="figures">{"".join(drawn)}{dotted}</div>'


def metric_of(epochs: Sequence[Mapping[str, Any]]) -> str:
    """The name of the task's metric in the rows of metrics.jsonl."""
    names = (name for row in epochs for name in row if name not in _OTHERS and not name.startswith("val_"))
    return next(names, "accuracy")


def _both(of: Contents, key: str) -> list[Line]:
    found = []
    for name, label in ((key, "training"), (f"val_{key}", "validation")):
        measured = [row for row in of.epochs if name in row]  # long runs are not validated after every epoch
        if (line := curves.series(measured, name, label)) is not None:
            found.append(line)
    return found
