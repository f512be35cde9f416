"""The report's section on evidence: a few test items with their maps and what each map is worth."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gridsight.reporting.contents import Contents
from gridsight.reporting.evidence import VERDICTS, Bands, Evidence, evidence_figure
from gridsight.reporting.markup import esc, paragraph

DPI, INCHES = 110, 5.4
WHY = (
    "Blue cells speak for the named class, orange ones against it, in units of the network's output. The verdict says "
    "whether that can be believed: whether what the map calls evidence moves the answer more than other places do, and "
    "whether the map changes when the network is shuffled and stays when the item is the same."
)


def evidence(of: Contents) -> str:
    """Cards of the kept items, mistakes first; nothing where none were kept."""
    if of.explained is None:
        return ""
    about: Mapping[str, Any] = of.explained["about"]
    entries: Sequence[Mapping[str, Any]] = about["entries"]
    if not entries:
        return ""
    heard = about["bands"]
    bands = Bands(np.array(heard["edges"]), heard["hop"]) if heard else None
    cards = []
    for i, entry in enumerate(entries):
        item, values = of.explained[f"item_{i}"], of.explained[f"values_{i}"]
        shown = Evidence(item=item, values=values, spec=of.spec, bands=bands, width=INCHES,
                         spacing=of.spec.spacing if of.spec is not None else None)  # fmt: skip
        verdict = entry["verdict"]
        label = f"{entry['path']}: evidence for {entry['target']}, {verdict['colour']}"
        badge = f'<b class="verdict" style="background:{VERDICTS[verdict["colour"]]}">{verdict["colour"].upper()}</b>'
        said = f"<b>{esc(entry['said'])}</b>; evidence for <b>{esc(entry['target'])}</b>"
        path = f'<span class="soft">{esc(entry["path"])}</span>'
        cards.append(
            f"<figure>{_picture(shown, label)}<figcaption>{said}{path}{badge} {esc(verdict['sentence'])}</figcaption>"
            "</figure>"
        )
    method = entries[0]["method"].replace("_", " ")
    how = f"Method: {method}; {'; '.join(about['told'])}. gridsight explain shows other items and methods."
    return paragraph(WHY) + paragraph(how, "soft") + f'<div class="evidence">{"".join(cards)}</div>'


def _picture(shown: Evidence, label: str) -> str:
    figure = evidence_figure(shown)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{esc(label)}">'
