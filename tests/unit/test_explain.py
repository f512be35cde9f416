"""gridsight explain: maps, verdicts and figures of any task and kind, what is refused, and what is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gridsight
from gridsight.__main__ import main
from gridsight.artifact.model_file import Model, save_model
from gridsight.core.errors import UsageError
from gridsight.data.spec import DataSpec
from gridsight.models import create
from gridsight.nn.frontend import FrontEndSettings, MelSettings
from gridsight.nn.logmel import LogMel, band_edges
from gridsight.reporting import evidence
from gridsight.reporting.evidence import Evidence, evidence_figure
from gridsight.verbs._explain import slug

Make = Callable[..., Path]
SMALL: dict[str, Any] = {"widths": (8, 12), "blocks": 0, "kernels": 3, "strides": 1, "pools": (2, 1), "grid": 2}


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """A model file, or a folder with one, of a small network with random weights."""

    def make(
        kind: str = "image",
        spatial: tuple[int, ...] = (16, 16),
        channels: int = 3,
        classes: tuple[str, ...] = ("a", "b", "c"),
        mel: MelSettings | None = None,
        **more: Any,
    ) -> Path:
        ndim = len(spatial)
        dtype = "uint8" if kind in ("image", "sequence") else "float32"
        spec = DataSpec("made", kind, ndim, channels, spatial, dtype, classes, **more)  # type: ignore[arg-type]
        outputs = {"regress": 1, "grade": len(classes) - 1}.get(spec.task, len(classes))
        torch.manual_seed(1)
        seen = 2 if mel is not None else ndim
        net = create("gridnet", ndim=seen, in_channels=channels, num_classes=outputs, **SMALL)
        front = FrontEndSettings(spec.full_scale, (0.0,) * channels, (1.0,) * channels, mel)
        folder = tmp_path / (f"run-{spec.task}" if spec.task != "classify" else "run")
        folder.mkdir()
        options = {"center": 0.0, "scale": 1.0} if spec.task == "regress" else {}
        model = Model("gridnet", SMALL, seen, channels, net.eval(), front, spec, options)
        save_model(folder / "model.safetensors", model)
        return folder

    return make


def pictures(folder: Path, count: int = 2) -> Path:
    """Pictures in a folder called `a`."""
    inner = folder / "a"
    inner.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(inner / f"{i} one.png")
    return folder / "a"


def entries(folder: Path) -> list[dict[str, Any]]:
    """The lines of explain.jsonl."""
    return [json.loads(line) for line in (folder / "explain.jsonl").read_text().splitlines()]


def test_maps_verdicts_and_figures(made: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every item and method has a map that equals the library's, a verdict, a figure and a line."""
    run, paths = made(), pictures(tmp_path)
    code = main(["explain", str(run), str(paths), "--method", "occlusion", "input_x_gradient", "--json"])
    out = capsys.readouterr()
    rows = [json.loads(line) for line in out.out.splitlines()]
    assert code == 0
    assert [row["method"] for row in rows] == ["occlusion", "input_x_gradient"] * 2
    assert rows == entries(run / "explain-1")
    first = rows[0]
    assert first["true"] == "a" and first["mistake"] == (first["answer"]["label"] != "a")
    assert first["target"] == first["answer"]["label"] and first["baseline"] == "zero"
    assert first["verdict"]["colour"] in ("green", "amber", "red") and first["verdict"]["sentence"]
    assert set(first["verdict"]["checks"]) == {"completeness", "evidence", "randomised", "stability"}
    with Image.open(first["figure"]) as figure:
        assert min(figure.size) > 300
    predictor = gridsight.load(run, folded=False)
    x = predictor.seen([np.moveaxis(np.asarray(Image.open(first["path"])), -1, 0)])[0]
    from gridsight.attribution import attribute

    expected = attribute(predictor.net, x, "occlusion", first["output"]).values[0].numpy()
    with np.load(first["map"]) as file:
        np.testing.assert_allclose(file["values"], expected, atol=1e-6)
    assert "baseline: zero, which is the mean of the training data" in out.err
    again = gridsight.explain(str(run), (str(paths),), verdict=False, figures="none", items=1)
    assert again.out.name == "explain-2" and len(again.maps) == 1  # what was there stays
    np.testing.assert_allclose(again.maps[0].values[0].numpy(), expected, atol=1e-6)


def test_target_settings_and_layer(made: Make, tmp_path: Path) -> None:
    """A target by name or number, settings that reach the methods that have them, one layer for all items."""
    run, paths = made(), str(pictures(tmp_path))
    common = {"figures": "none", "verdict": False}
    by_name = gridsight.explain(str(run), (paths,), target="c", **common).items
    by_number = gridsight.explain(str(run), (paths,), target="2", **common).items
    assert [item["output"] for item in by_name + by_number] == [2] * 4
    found = gridsight.explain(
        str(run), (paths,), method=("lime", "grad_cam"), samples=64, baseline="mean", set=("count=4",), **common
    ).items
    assert found[0]["settings"]["samples"] == 64 and found[0]["settings"]["count"] == 4
    assert found[0]["baseline"] == "mean" and found[1]["baseline"] is None
    layers = {item["layer"] for item in found if item["method"] == "grad_cam"}
    assert len(layers) == 1 and found[1]["layer_reason"].startswith(next(iter(layers)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "d"], "there is no class 'd' (numbers go from 0 to 2)"),
        (["--target", "3"], "there is no class '3' (numbers go from 0 to 2)"),
        (["--method", "grad_cma"], "did you mean grad_cam"),
        (["--method", "grad_cam", "--layer", "stages.9"], "there is no layer 'stages.9'"),
        (["--set", "steps=3"], "occlusion has no setting 'steps' (--set steps)"),
        (["--samples", "3"], "occlusion has no setting 'samples' (--samples)"),
        (["--set", "steps"], "write NAME=VALUE"),
        (["--items", "0"], "--items must be at least 1"),
        (["--inside", "filter"], "did you mean filters"),
        (["--inside", "maps", "--compare"], "give one of them"),
        (["--unit", "3"], "--unit is for --inside"),
        (["--inside", "maps", "--unit", "9999"], "the layer has channels 0 to"),
        (["--inside", "filters", "--layer", "nothing"], "there is no layer 'nothing'"),
        (["--method", "cam"], "CAM is for networks that end in a global mean"),
        (["--compare", "--no-verdict"], "--compare is a table of verdicts"),
    ],
)
def test_wrong_use(made: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    """One line that says what is wrong and what is right, and nothing written."""
    run, paths = made(), pictures(tmp_path, 1)
    assert main(["explain", str(run), str(paths), *words]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["model.safetensors"]


def test_bad_items(made: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be read is an entry, the others are explained; no item at all is wrong use."""
    run, paths = made(), pictures(tmp_path, 1)
    (paths / "b.png").write_bytes(b"no picture")
    common = ["--no-verdict", "--figures", "none"]
    assert main(["explain", str(run), str(paths), *common]) == 1
    out = capsys.readouterr().out
    assert "b.png  no answer: " in out and "1 map in " in out
    (tmp_path / "empty").mkdir()
    assert main(["explain", str(run), str(tmp_path / "empty"), *common]) == 1
    assert "is a folder without files" in capsys.readouterr().out
    assert main(["explain", str(run), *common]) == 2  # a folder without settings.toml is no run
    assert main(["explain", str(run / "model.safetensors"), *common]) == 2
    assert "is a model file without data; give PATH to explain" in capsys.readouterr().err
    assert main(["explain", str(run / "model.safetensors"), str(paths / "0 one.png"), *common]) == 0
    assert main(["explain", str(run), str(tmp_path / "nowhere.png"), *common]) == 2


def test_tasks(made: Make, tmp_path: Path) -> None:
    """Numbers, sets of classes and grades: what is explained, in words."""
    common = {"figures": "none", "verdict": False}
    x = np.random.default_rng(0).normal(size=(2, 1, 40)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    path = (str(tmp_path / "x.npy"),)
    number = made("series", (40,), 1, (), task="regress", unit="mm")
    found = gridsight.explain(str(number), path, **common).items
    assert [(item["output"], item["target"]) for item in found] == [(0, "a higher number")] * 2
    with pytest.raises(UsageError, match="this model says one number"):
        gridsight.explain(str(number), path, target="0", **common)
    grades = made("series", (40,), 1, ("1", "2", "3"), task="grade")
    (item, _) = gridsight.explain(str(grades), path, target="3", **common).items
    assert (item["output"], item["target"]) == (1, "3 or higher")
    with pytest.raises(UsageError, match="lowest grade"):
        gridsight.explain(str(grades), path, target="1", **common)
    several = made("series", (40,), 1, ("a", "b", "c"), task="multilabel")
    for item in gridsight.explain(str(several), path, **common).items:
        shares = item["answer"]["probabilities"]
        assert item["target"] == max(shares, key=shares.get)


def test_items_of_unequal_size(made: Make, tmp_path: Path) -> None:
    """Each is explained by itself, at its own size."""
    run = made("series", (40,), 1, fit="mask", sizes=((24,), (40,)))
    for n in (24, 40):
        np.save(tmp_path / f"{n}.npy", np.random.default_rng(n).normal(size=(1, n)).astype(np.float32))
    paths = tuple(str(tmp_path / f"{n}.npy") for n in (24, 40))
    found = gridsight.explain(str(run), paths, verdict=False)
    assert [len(found.maps[i].values[0]) for i in range(2)] in ([24, 40], [40, 40])
    assert all(Path(item["figure"]).exists() for item in found.items)


def test_compare(made: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row a method, the worst colours last; one that cannot explain this network says why."""
    run, paths = made(), pictures(tmp_path, 2)
    words = ["explain", str(run), str(paths), "--compare", "--method", "input_x_gradient", "occlusion", "cam"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    table = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert len(table["items"]) == 2 and {row["method"] for row in table["methods"]} == {*words[5:]}
    assert table["methods"][-1]["method"] == "cam" and table["methods"][-1]["colour"] is None
    assert "not for this network: CAM is for networks" in out and "efficiency" in out
    colours = [("green", "amber", "red", None).index(row["colour"]) for row in table["methods"]]
    assert colours == sorted(colours)


@pytest.mark.parametrize("look", ["filters", "maps", "patches", "similarity", "receptive"])
def test_inside(made: Make, tmp_path: Path, look: str) -> None:
    """Each look writes a figure and its numbers."""
    run, paths = made(), pictures(tmp_path, 6)
    found = gridsight.explain(str(run), (str(paths),), inside=look).items
    assert found and all(Path(item["figure"]).stat().st_size > 5000 for item in found)
    assert all(item["inside"] == look for item in found) and Path(found[0]["arrays"]).exists()
    if look == "filters":
        with np.load(found[0]["arrays"]) as file:
            assert np.abs(file["weights"]).max() == pytest.approx(found[0]["scale"])
            assert len(file["weights"]) == found[0]["filters"]


KINDS = {
    "gray": ((1, 12, 10), {}),
    "colour": ((3, 8, 30), {}),
    "trace": ((1, 60), {}),
    "traces": ((3, 60), {}),
    "volume": ((1, 6, 10, 12), {"spacing": (5.0, 1.0, 1.0)}),
    "one slice": ((1, 1, 10, 12), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_every_kind(kind: str) -> None:
    """The scale has zero in its middle and its numbers on it; the verdict is a word."""
    shape, more = KINDS[kind]
    rng = np.random.default_rng(0)
    values = rng.normal(size=shape[1:]).astype(np.float32)
    item = rng.integers(0, 256, shape).astype(np.uint8)
    of = Evidence(item=item, values=values, name="x.png", said="7", about="by", verdict=("red", "why"), **more)
    figure = evidence_figure(of)
    texts = [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))]
    limit = evidence.limit_of(values)
    assert "RED" in texts and "why" in texts
    assert evidence.signed(limit, limit) in texts and evidence.signed(-limit, limit) in texts and "0" in texts


def test_volume_has_its_aspect() -> None:
    """Cells of 5 x 1 x 1 mm are drawn five times as tall as wide where the first axis is upright."""
    values = np.zeros((4, 10, 10), np.float32)
    values[2, 5, 5] = 1
    item = np.zeros((1, 4, 10, 10), np.uint8)
    figure = evidence_figure(Evidence(item=item, values=values, name="v", said="", about="", spacing=(5.0, 1.0, 1.0)))
    ratios = [axes.get_aspect() for axes in figure.axes if axes.images]
    assert ratios.count(5.0) == 4  # row and column cuts, of the item and of its map
    titles = {axes.get_title(loc="left") for axes in figure.axes}
    assert {"slice 3 of 4", "row 6 of 10", "column 6 of 10"} <= titles


def test_sequence_letters_and_mutations(made: Make, tmp_path: Path) -> None:
    """Letters stand over their bars, and below them what every other letter would do."""
    spec = DataSpec("s", "sequence", 1, 4, (8,), "uint8", ("a", "b"), alphabet="dna")
    item = np.zeros((4, 8), np.uint8)
    item[[0, 1, 2, 3, 0, 1, 2, 3], range(8)] = 60
    changes = np.random.default_rng(0).normal(size=(4, 8))
    figure = evidence_figure(
        Evidence(item=item, values=np.arange(8.0), name="s", said="", about="", spec=spec, changes=changes)
    )
    letters = "".join(text.get_text() for text in figure.axes[0].texts)
    assert letters == "ACGTACGT"
    assert figure.axes[1].images[0].get_array().shape[:2] == (4, 8)


def test_sound_is_explained_on_its_bands(made: Make, tmp_path: Path) -> None:
    """The map has the bands' shape, and the axis of Hz stands where the bands are."""
    mel = MelSettings(4000.0, 20, 0.032, 0.016, 80.0)
    run = made("sound", (4000,), 1, mel=mel, rate=4000.0)
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=(1, 4000)).astype(np.float32))
    found = gridsight.explain(str(run), (str(tmp_path / "s.npy"),), verdict=False)
    frames = LogMel(4000.0, window=0.032, hop=0.016, n_mels=20).frames(4000)
    assert found.maps[0].values[0].shape == (20, frames)
    edges = band_edges(4000.0, 20)
    tops = LogMel(4000.0, window=0.032, hop=0.016, n_mels=20).filters[:, 0::2].argmax(1).numpy()
    size = LogMel(4000.0, window=0.032, hop=0.016, n_mels=20).n_fft
    inside = (tops * 4000 / size > edges[:-1] - 4000 / size) & (tops * 4000 / size < edges[1:] + 4000 / size)
    assert inside.all() and edges[0] > 0 and edges[-1] < 2000


def test_own_test_data_and_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without PATH mistakes, unsure and right test items come in turn; the report shows one of each."""
    run = tmp_path / "run"
    gridsight.train("digits", out=str(run), epochs=1)
    found = gridsight.explain(str(run), items=6, verdict=False, figures="none").items
    with np.load(run / "predictions.npz") as file:
        paths, target, probabilities = file["paths"], file["target"], file["probabilities"]
    place = {path: i for i, path in enumerate(paths)}
    for item in found:
        i = place[item["path"]]
        assert item["true"] == str(target[i]) and item["output"] == probabilities[i].argmax()
        assert item["answer"]["probability"] == pytest.approx(probabilities[i].max(), abs=1e-4)
    sure = probabilities.max(1)
    wrong = probabilities.argmax(1) != target
    assert wrong.any() and found[0]["mistake"] and sure[place[found[0]["path"]]] == sure[wrong].max()
    assert sure[place[found[1]["path"]]] == sure.min()
    assert not found[2]["mistake"] and sure[place[found[2]["path"]]] == sure[~wrong].max()
    page = (run / "report.html").read_text()
    section = page[page.index('<section id="evidence">') :]
    assert section.count("data:image/png") >= 3 and found[0]["path"] in section and "Method: occlusion" in section
    before = (run / "explained.npz").read_bytes()
    (run / "explained.npz").write_bytes(before[:100])
    gridsight.report(str(run))  # a damaged file costs its section alone
    page = (run / "report.html").read_text()
    assert "explained.npz cannot be read" in page and '<section id="evidence">' not in page


def test_names_of_files() -> None:
    assert [slug(path) for path in ("photos/My cat.jpg", "x.npy[12]", "a.zip!b/c.png", "日本.png")] == [
        "My_cat",
        "x_12",
        "c",
        "item",
    ]
