"""The report: one HTML file that holds everything, works without a network, on a phone and on paper, light and dark.

Nothing in it runs: the page forbids scripts and loads by its own content policy, so that a hostile class name or path
stays text even where escaping were forgotten.
"""

from pathlib import Path
from string import Template

from gridsight.core.run import RunFolder, atomic_write
from gridsight.reporting import background, classify, explaining, grade, learning, multilabel, regress
from gridsight.reporting.contents import Contents, load
from gridsight.reporting.figures import UNPRINTABLE
from gridsight.reporting.markup import duration, esc, paragraph
from gridsight.reporting.stating import metrics_table, readings, unfinished
from gridsight.reporting.style import CSS
from gridsight.reporting.view import Section, View

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
$headline
</header>
<nav>$links</nav>
<main>
$sections
</main>
<footer>$footer</footer>
</body>
</html>
""")

VIEWS = {"classify": classify.VIEW, "grade": grade.VIEW, "multilabel": multilabel.VIEW, "regress": regress.VIEW}
OTHER = View(lambda of: readings(of) if of.result else unfinished(of), (), lambda of: [], lambda of: "", lambda of: {})
"""Of a task that is not ours: what every page shows."""


def render(of: Contents) -> str:
    """The whole page."""
    view = VIEWS.get(of.task, OTHER)
    written = []
    for key, title, build in _sections(view):
        if body := build(of):
            written.append((key, title, body))
    what = of.spec.name if of.spec is not None else of.name
    title = f"{of.plan.get('model') or of.result.get('model') or 'model'} on {what}"
    html = _PAGE.substitute(
        title=esc(f"{title} · {of.name}" if of.name != what else title),
        style=CSS,
        headline=view.headline(of) + _summary(of, view),
        links="".join(f'<a href="#{key}">{esc(title)}</a>' for key, title, _ in written),
        sections="\n".join(f'<section id="{k}">\n<h2>{esc(t)}</h2>\n{body}\n</section>' for k, t, body in written),
        footer="Written by gridsight report. Nothing in this page is loaded from elsewhere and nothing in it runs.",
    )
    return UNPRINTABLE.sub("\ufffd", html)


def _sections(view: View) -> list[Section]:
    """What the page shows, in order."""
    return [
        ("metrics", "All figures", lambda of: _metrics(of, view)),
        ("data", "The data", background.data),
        ("training", "Training", learning.training),
        *view.sections,
        ("evidence", "What the answers rest on", explaining.evidence),
        ("making", "How it was made", background.making),
        ("limits", "What these figures do not tell", lambda of: background.limits(of, view.limits(of))),
    ]


def _metrics(of: Contents, view: View) -> str:
    """Every metric with its interval."""
    two = len(of.classes) == 2 and of.confusion is not None
    second = f" With two classes, areas are those of “{of.classes[1]}”." if two else ""
    return metrics_table(of, view.metrics(of), view.note + second)


def write(run: RunFolder, out: Path | None = None) -> Path:
    """Write the report of a run, to `report.html` in its folder unless `out` says otherwise; where it is."""
    path = run.report if out is None else out
    atomic_write(path, render(load(run)))
    return path


def _summary(of: Contents, view: View) -> str:
    """One line: what was trained on what, and how long it took."""
    parts = [about] if (about := view.about(of)) else []
    if of.plan.get("parameters") is not None:
        parts.append(f"{of.plan['parameters']:,} parameters")
    if of.result.get("seconds") is not None:
        parts.append(f"trained in {duration(of.result['seconds'])}")
    if of.result.get("split"):
        parts.append(str(of.result["split"]))
    return paragraph(" · ".join(parts), "soft") if parts else ""
