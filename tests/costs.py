"""What `gridsight models` shows of each network, recorded in the package because to build them all takes long.

`python tests/costs.py` measures the networks that are not recorded yet, `python tests/costs.py NAME ...` these again.
"""

import json
import sys
from pathlib import Path

import gridsight.models
from gridsight.models import MODELS
from gridsight.verbs.models import measured, recorded

RECORD = Path(gridsight.models.__file__).with_name("costs.json")


def main(names: list[str]) -> None:
    """Measure what has to be measured and write a line a network."""
    known = recorded() if RECORD.exists() else {}
    found = {name: measured(name) if name in names or name not in known else known[name] for name in MODELS.names()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(figures)}" for name, figures in found.items())
    RECORD.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
