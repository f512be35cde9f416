"""A run that is killed with SIGKILL anywhere and resumed ends with the same bytes as one that was left alone.

What a killed process leaves in the cache goes with the next room that is made there; a run that ended before it began
is started again, not resumed.
"""

import fcntl
import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gridsight
from gridsight.core.console import Console
from gridsight.core.errors import TrainingError
from gridsight.data.cache import cached
from gridsight.data.source import find

SETTINGS = ("--epochs", "3", "--save-every", "0.1", "--no-report")


def _environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"GRIDSIGHT_CACHE": str(tmp_path / "cache"), "OMP_WAIT_POLICY": "PASSIVE"}


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "gridsight", *words]


def _train(tmp_path: Path, name: str, *words: str) -> str:
    """sha256 of the model file of an uninterrupted run."""
    out = tmp_path / name
    subprocess.run(
        _command("train", "digits", "--out", str(out), *SETTINGS, *words),
        env=_environment(tmp_path),
        check=True,
        capture_output=True,
        timeout=240,
    )
    return _sha256(out)


def _sha256(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def _killed(tmp_path: Path, name: str, kills: int, seed: int, *words: str) -> tuple[str, int]:
    """sha256 after up to `kills` kills at random moments, and how many hit a living process."""
    out, draw, hit = tmp_path / name, random.Random(seed), 0
    command = _command("train", "digits", "--out", str(out), *SETTINGS, *words)
    for _ in range(kills):
        process = subprocess.Popen(
            command, env=_environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # a run folder must stand before resume can be asked for
        while not (out / "settings.toml").exists() and process.poll() is None:
            time.sleep(0.01)
        try:
            process.wait(draw.uniform(0, 8))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            hit += 1
        command = _command("resume", str(out))
    done = subprocess.run(
        _command("resume", str(out)), env=_environment(tmp_path), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return _sha256(out), hit


def test_killed_resumed_and_repeated_runs_end_with_the_same_bytes(tmp_path: Path) -> None:
    whole = _train(tmp_path, "whole")
    # workers are not part of the model file, and must not change it
    killed, hit = _killed(tmp_path, "killed", 2, 1, "--workers", "2")
    assert hit >= 1
    assert killed == whole
    assert _train(tmp_path, "other", "--seed", "1") != whole


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_twenty_kills(tmp_path: Path, workers: str) -> None:
    options = ("--epochs", "30", "--workers", workers)
    whole, total = _train(tmp_path, "whole", *options), 0
    for number in range(20):
        killed, hit = _killed(tmp_path, f"killed-{number}", 3, number, *options)
        assert killed == whole
        total += hit
        if total >= 20:
            return
    raise AssertionError(f"only {total} kills hit a living process")


def test_what_killed_decoding_left_is_removed_and_what_is_being_decoded_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))
    items = tmp_path / "cache" / "items"
    for name in (".dead.x1", ".dead.gone", ".busy.x2", ".never.x3"):
        (items / name).mkdir(parents=True)
        (items / name / "x.bin").write_bytes(bytes(100))
    (items / "dead.lock").touch()
    np.savez(tmp_path / "few.npz", x=np.zeros((4, 1, 8, 8), np.uint8), y=[0, 0, 1, 1])
    with (items / "busy.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        cached(find(str(tmp_path / "few.npz")), Console(quiet=True))
    assert sorted(path.name for path in items.glob(".*")) == [".busy.x2"]
    assert len(list(items.glob("*/x.bin"))) == 2


def test_a_run_that_ended_before_it_began_is_to_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error", "photos/1.png")

    monkeypatch.setattr("gridsight.verbs._run.decoded", broken)
    with pytest.raises(TrainingError) as error:
        gridsight.train("digits", out=str(tmp_path / "run"))
    assert str(error.value) == "Input/output error (photos/1.png); once that is mended, start again"
    assert not (tmp_path / "run").exists()
