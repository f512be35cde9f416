"""Near-duplicates are looked for once a data set: the next run reads what was found; what is damaged is found anew."""

from pathlib import Path

import numpy as np
import pytest

from gridsight.core.console import Console
from gridsight.data.cache import Cached, cached
from gridsight.data.duplicates import VERSION
from gridsight.data.source import find
from gridsight.data.split import split
from gridsight.verbs import _duplicates
from gridsight.verbs._duplicates import duplicates_across
from gridsight.verbs.train import TrainSettings


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cached:
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (60, 1, 24, 24)).astype(np.uint8)
    x[30:33] = x[:3]
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(60) % 2)
    return cached(find(str(tmp_path / "data.npz")), Console(quiet=True))


def test_what_was_found_is_kept_beside_the_items(data: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, console = TrainSettings("data.npz"), Console(quiet=True)
    parts = [split(data.strata, None, None, seed) for seed in range(5)]
    first = [duplicates_across(data, part, settings, console) for part in parts]
    assert max(found["duplicates_count"] for found in first) > 0
    kept = Path(data.x.filename).with_name(f"near-{VERSION}.npz")  # type: ignore[union-attr, arg-type]
    assert kept.exists()
    looked = []
    whole = _duplicates.near_duplicates
    monkeypatch.setattr(_duplicates, "near_duplicates", lambda *of: looked.append(1) or whole(*of))
    assert [duplicates_across(data, part, settings, console) for part in parts] == first and not looked
    kept.write_bytes(kept.read_bytes()[:50])
    assert duplicates_across(data, parts[0], settings, console) == first[0] and looked
