"""What every named set keeps: its tags, a source that reads, one registered under lower-case names."""

from pathlib import Path

import pytest

from gridsight.core.errors import DataError, ReadError
from gridsight.data import download
from gridsight.data.decoding import decode
from gridsight.data.sets import SETS

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path))

    def refuse(url, timeout):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(download.urllib.request, "urlopen", refuse)


@pytest.mark.parametrize("name", SETS.names())
def test_a_set_reads_or_says_what_to_put_where(name, offline, monkeypatch):
    entry = SETS.get(name)
    assert name == name.lower() and entry.tags["licence"] and entry.tags["paper"] and entry.tags["items"]
    monkeypatch.delenv("GRIDSIGHT_DATA", raising=False)
    try:
        source = SETS.create(name)
    except DataError as error:
        assert "put" in str(error) and "https://" in str(error)
        if not SHARED.exists():
            pytest.skip("the real data of ../shared/data are not here")
        monkeypatch.setenv("GRIDSIGHT_DATA", str(SHARED))
        source = SETS.create(name)
    assert not source.bad and source.name.lower() == name
    for item in (source.items[0], source.items[-1]):
        sample = next(iter(decode(source, item)))
        assert not isinstance(sample, ReadError) and sample.array.std() > 0 and sample.label is not None
    parts = {item.split for item in source.items}
    assert parts == ({"train", "test"} if source.split else {None})
