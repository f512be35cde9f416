"""Downloads from a real server on this machine: whole or not at all, checked, taken up again, bounded."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridsight.core.errors import DataError
from gridsight.data.download import Remote, fetch
from server import Server, serving

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    with serving(**{"net.pth": CONTENT}) as (own, address):
        monkeypatch.setenv("GRIDSIGHT_MIRROR", address)
        yield own


def remote(name: str = "net.pth", content: bytes = CONTENT, digits: int = 64) -> Remote:
    return Remote(f"https://example.org/a/{name}", len(content), hashlib.sha256(content).hexdigest()[:digits])


@pytest.mark.parametrize("digits", (8, 64))
def test_a_download_is_kept_and_not_asked_for_again(server: type[Server], tmp_path: Path, digits: int) -> None:
    folder = tmp_path / "cache" / "weights"
    assert fetch(remote(digits=digits), folder).read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["net.pth"]
    assert fetch(remote(), folder, offline=True) == folder / "net.pth"
    assert server.asked == [None]


def test_a_broken_connection_is_taken_up_again(server: type[Server], tmp_path: Path) -> None:
    server.breaks += [100_000, 50_000]
    assert fetch(remote(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_what_came_is_kept_for_the_next_call(server: type[Server], tmp_path: Path) -> None:
    server.breaks += [1000, 0]
    with pytest.raises(DataError, match=r"broke after 1,000 bytes\); 1,000 bytes are kept, and the next call goes on"):
        fetch(remote(), tmp_path)
    assert not (tmp_path / "net.pth").exists()
    assert fetch(remote(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=1000-"]


def test_a_server_without_ranges_sends_all_of_it_again(server: type[Server], tmp_path: Path) -> None:
    server.ranges = False
    server.breaks += [1000]
    assert fetch(remote(), tmp_path).read_bytes() == CONTENT


def test_a_whole_part_only_needs_its_hash(server: type[Server], tmp_path: Path) -> None:
    (tmp_path / ".net.pth.part").write_bytes(CONTENT)
    assert fetch(remote(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", (CONTENT[:-1] + b"x", CONTENT[:-1]))
def test_another_file_is_refused(server: type[Server], tmp_path: Path, wrong: bytes) -> None:
    server.files["net.pth"] = wrong
    with pytest.raises(DataError, match="are not the published file") as caught:
        fetch(remote(), tmp_path)
    assert f"put net.pth from https://example.org/a/net.pth into {tmp_path} by hand" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_more_is_read_than_was_published(server: type[Server], tmp_path: Path) -> None:
    for longer in (CONTENT + b"m", CONTENT * 20):
        server.files["net.pth"] = longer
        with pytest.raises(
            DataError, match="gave more than the 512,000 bytes of the published file, and was not read f"
        ):
            fetch(remote(), tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_missing_file_and_offline(server: type[Server], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot download http://127.*/weights/other.pth \(Not Found\); put other"):
        fetch(remote("other.pth"), tmp_path)
    with pytest.raises(DataError, match=r"net.pth is not in .*--offline downloads nothing; put net.pth from https"):
        fetch(remote(), tmp_path, offline=True)


def test_a_cache_that_cannot_be_written(server: type[Server], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="Not a directory"):
        fetch(remote(), tmp_path / "file" / "weights")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.geteuid() != 0:  # root may write anywhere
        with pytest.raises(DataError, match="Permission denied"):
            fetch(remote(), folder)


def test_another_file_put_there_by_hand_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    for offline, what in (
        (False, "delete it, and it is downloaded$"),
        (True, "delete it; put net.pth from .* by hand$"),
    ):
        with pytest.raises(DataError, match=rf"net.pth is not https://example.org/a/net.pth \(SHA-256 .*; {what}"):
            fetch(remote(), tmp_path, offline=offline)


def test_only_https_leaves_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIDSIGHT_MIRROR", raising=False)
    for url in ("file:///etc/passwd", "http://example.org/net.pth", "ftp://127.0.0.1/net.pth"):
        with pytest.raises(DataError, match="only https is used"):
            fetch(Remote(url, 1, ""), tmp_path)
