"""Cross-validated numbers: what a fold says is read in the scale of its own items, not of those it is tested on."""

from pathlib import Path

import numpy as np
import pytest

import gridsight


def test_a_network_that_can_only_say_the_mean_is_judged_by_the_other_groups_mean(tmp_path: Path) -> None:
    """Two groups around 0 and 10, pictures of noise: said of each is about the other's mean, so it is wrong by 10."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 1, 8, 8)).astype(np.float32)
    y = np.repeat([0.0, 10.0], 30) + rng.uniform(-0.5, 0.5, 60)
    folder = tmp_path / "items"
    folder.mkdir()
    rows = ["path,value,group"]
    for i in range(60):
        np.save(folder / f"{i}.npy", x[i])
        rows.append(f"items/{i}.npy,{y[i]:.4f},{'ab'[i // 30]}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    run = gridsight.train(
        str(tmp_path / "table.csv"), out=str(tmp_path / "run"), folds=2, group="group", epochs=1, lr=1e-6, report=False
    )
    assert run.result["task"] == "regress"
    assert run.metrics["mae"]["value"] == pytest.approx(10, abs=1.0)
