"""The charts of the README, drawn from the figures in charts.json, each with the command that measures it anew.

python benchmarks/charts.py
"""

import json
from pathlib import Path

from gridsight.reporting.bars import draw

HERE = Path(__file__).parent


def main() -> None:
    """docs/speed-NAME.svg for each chart."""
    for name, chart in json.loads((HERE / "charts.json").read_text(encoding="utf-8")).items():
        drawing = draw(chart["title"], chart["names"], chart["columns"])
        (HERE.parent / "docs" / f"speed-{name}.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
