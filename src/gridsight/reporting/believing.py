"""Whether 90 % means 90 %, and what is gained by answering fewer items; the same for every task with probabilities."""

from dataclasses import dataclass

import numpy as np

from gridsight.measure.calibration import expected_calibration_error, reliability, risk_coverage
from gridsight.reporting import curves
from gridsight.reporting.contents import Contents
from gridsight.reporting.curves import Line
from gridsight.reporting.figures import Mark, line_figure, reliability_figure, svg
from gridsight.reporting.markup import figure, paragraph, percent


@dataclass(frozen=True, eq=False)
class Stated:
    """What was stated and what came true: probabilities (m, K) of the questions answered and their answers (m,).

    `confidence` (n,) of items decides which are answered at all, `right` (n,) says whether their answers are. `counted`
    and `axis` name the questions and their probabilities, `share` and `share_axis` the share of right answers; `note`
    ends that figure's caption.
    """

    probabilities: np.ndarray
    target: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    counted: str = "items"
    axis: str = "probability of the predicted class"
    share: str = "accuracy"
    share_axis: str = "accuracy of the answers"
    note: str = ""


def calibration(of: Contents, what: Stated) -> str:
    """The reliability diagram with its error, and accuracy against the share answered."""
    stated, none = of.calibration, np.empty(0)
    temperature = stated.get("temperature")
    after, before = reliability(what.probabilities, what.target), None
    ece, ece_before = stated.get("ece"), stated.get("ece_before")
    if ece is None:
        ece = expected_calibration_error(what.probabilities, what.target)
    if stated.get("calibrated") and temperature:
        earlier = curves.before_temperature(what.probabilities, temperature)
        before = reliability(earlier, what.target)
        if ece_before is None:
            ece_before = expected_calibration_error(earlier, what.target)
        # with folds there is nothing left over: the pooled answers serve for both
        where = "these same answers, a little flattering" if of.settings.get("folds") else "data other than these"
        words = f"Probabilities are calibrated by a temperature of {temperature:.3g}, fitted on {where}."
        change = f", before the temperature {percent(ece_before)}"
    else:
        words, change = "The probabilities are not calibrated: read them as scores, not as chances.", ""
    words += f" Expected calibration error (ECE), the mean gap between stated and true: {percent(ece)}{change}."
    keys = [Line("after the temperature", none, none), Line("before", none, none)] if before else []
    caption = (
        "On the dotted line a stated 90 % is right nine times in ten. Bars are 95 % intervals; below: "
        f"{what.counted} a bin."
    )
    drawing = svg(reliability_figure(after, before, what.axis, what.counted), "Reliability diagram")
    one = figure(drawing, "Reliability", caption, keys)
    return paragraph(words) + f'<div class="figures">{one}{_coverage(what, stated.get("threshold"))}</div>'


def _coverage(what: Stated, threshold: float | None) -> str:
    sure, right = what.confidence, what.right
    # as a question with two answers, of which the first is the model's; an exact half goes to the first
    share, risk, _ = risk_coverage(np.stack([sure, np.minimum(sure, 1 - sure)], 1), (~right).astype(np.int64))
    curve, marks = Line(what.share, share, 1 - risk), []
    if threshold is None:
        caption = "No threshold for “unsure” was chosen: the model answers every item."
    else:
        answered, accuracy = curves.at_threshold(sure, right, threshold)
        caption = (
            f"Below a probability of {threshold:.3g} the model says “unsure”: it answers "
            f"{percent(answered)} of these items, and {percent(accuracy)} of its answers are right."
        )
        if accuracy is not None:
            marks = [Mark(answered, accuracy, f"unsure below {threshold:.3g}")]
    words = f"{what.share.capitalize()} when only the most certain items are answered. At the right end all are."
    drawing = line_figure([curve], "share answered", what.share_axis, marks=marks, percent_x=True, percent_y=True)
    label, title = f"{what.share.capitalize()} against share answered", "Answering less, erring less"
    return figure(svg(drawing, label), title, f"{words} {caption} {what.note}".strip())
