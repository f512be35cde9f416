"""gridsight bench: fair turns, engines that answer alike, a choice that admits noise; and the predictor's network."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import gridsight
from gridsight.__main__ import main
from gridsight.artifact import engines
from gridsight.artifact.engines import ENGINES, Engine, Unavailable, make
from gridsight.artifact.model_file import Model, save_model
from gridsight.artifact.predictor import Predictor
from gridsight.core.errors import UsageError
from gridsight.data.spec import DataSpec
from gridsight.measure import speed
from gridsight.measure.speed import Turns, equal_to_best, take_turns
from gridsight.models import create
from gridsight.nn.fold import NORMS
from gridsight.nn.frontend import FrontEndSettings
from gridsight.nn.whole import WholeItems
from gridsight.training.recipe import Recipe
from gridsight.verbs._training_speed import _products

CPU = torch.device("cpu")
PLAIN = ("eager", "channels_last", "folded", "folded_channels_last")


def model(name: str = "resnet20", ndim: int = 2, **arguments: Any) -> Model:
    """A network on pictures or lines, with norms that have seen something."""
    spatial = (24,) * ndim
    kind = {1: "series", 2: "image"}[ndim]
    spec = DataSpec("made", kind, ndim, 3, spatial, "uint8" if ndim == 2 else "float32", ("a", "b", "c"))
    torch.manual_seed(0)
    net = create(name, ndim=ndim, in_channels=3, num_classes=3, **arguments)
    net.train()(torch.randn(8, 3, *spatial))
    front = FrontEndSettings(255.0 if ndim == 2 else 1.0, (0.5,) * 3, (0.25,) * 3)
    return Model(name, arguments, ndim, 3, net.eval(), front, spec)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save_model(folder / "model.safetensors", model())
    return folder


def test_turns_are_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine has as many turns, and each of them is first in its share of the rounds."""
    clock, called = [0.0], []

    def call(name: str, seconds: float) -> Any:
        def act() -> None:
            called.append(name)
            clock[0] += seconds

        return act

    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    costs = {"a": 0.004, "b": 0.016, "c": 0.008}
    turns = take_turns({name: call(name, cost) for name, cost in costs.items()}, 0.5, CPU)
    rounds = len(turns["a"].seconds)
    assert rounds >= speed.ROUNDS[0] and all(len(each.seconds) == rounds for each in turns.values())
    for name, each in turns.items():
        assert each.median == pytest.approx(costs[name]) and each.quartiles == pytest.approx((costs[name],) * 2)
        repeats = {"a": 3, "b": 1, "c": 2}[name]  # 10 ms or more
        assert called.count(name) == speed.WARM_UP + rounds * (repeats + 1)
    assert turns["b"].ratio(turns["a"]) == pytest.approx(0.25)
    measured = [name for name, before in zip(called[9:], ["", *called[9:]], strict=False) if name != before]
    assert measured[:9] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_what_cannot_be_told_from_the_fastest() -> None:
    rng = np.random.default_rng(0)
    drift = 1 + 0.5 * rng.random(41)  # of the machine, which pairs share

    def turns(seconds: float, noise: float = 0.0) -> Turns:
        return Turns(seconds * drift * np.where(np.arange(41) % 2, 1 - noise, 1 + noise))

    found = {
        "slow": turns(1.5),
        "near": turns(1.01),
        "noisy": turns(1.0, 0.3),
        "best": turns(1.0),
        "apart": turns(1.1),
    }
    assert equal_to_best(found) == ["near", "noisy", "best"]


@pytest.mark.parametrize("name", PLAIN)
def test_engines_answer_alike_and_leave_the_network(name: str) -> None:
    net, x = model().net, torch.randn(3, 3, 24, 24)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with torch.inference_mode():
        expected, answer = net(x), make(name, net, x)
        torch.testing.assert_close(answer(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(value.is_contiguous() for value in net.state_dict().values())


def test_engines_say_why_they_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = model("fcn", 1).net, torch.randn(2, 3, 24)
    with pytest.raises(Unavailable, match="no channels-last memory"):
        make("channels_last", net, x)
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="C\\+\\+ compiler"):
        make("compiled", net, x)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(Unavailable, match=rf'{name} and onnx and onnxscript not installed.*"gridsight\[export\]"'):
            make(name, net, x)
    monkeypatch.setitem(ENGINES, "broken", Engine(lambda net, x: lambda: 1 / 0, ""))  # type: ignore[arg-type,return-value]
    with pytest.raises(Unavailable, match="failed: ZeroDivisionError: division by zero"):
        make("broken", net, x)


def test_bench_of_a_run(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(picture)
    words = ["bench", str(run), str(picture), "--seconds", "0.1", "--batch", "4", "--engines", *PLAIN[1:]]
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    (result,) = map(json.loads, out.splitlines())
    assert result == json.loads((run / "bench.json").read_text())
    assert [row["engine"] for row in result["engines"]] == list(PLAIN)  # eager is always there to compare with
    for row in result["engines"]:
        assert row["error"] is None and row["difference"] < 1e-5
        for key, items in (("one", 1), ("many", 4)):
            figures = row[key]
            assert figures["items_per_second"] == pytest.approx(1e3 * items / figures["ms"])
            done = 2e-9 * result["macs"] * figures["items_per_second"]
            assert figures["of_peak"] == pytest.approx(done / result["matmul_gflops"])
            assert 0 < figures["low_ms"] <= figures["ms"] <= figures["high_ms"] and figures["turns"] >= 7
    assert result["engines"][0]["one"]["ratio"] == 1 and result["batch"] == 4 and result["input"] == [3, 24, 24]
    for choice in result["use"].values():
        assert choice["engine"] in PLAIN and choice["how"] == ENGINES[choice["engine"]].use
        assert choice["fastest"] in (choice["engine"], *choice["as_fast"])
    whole = result["whole"]
    assert min(whole["decode_ms"], whole["network_ms"], whole["ratio"]) > 0 and whole["p99_ms"] >= whole["whole_ms"] > 0
    assert "for one item: " in err and "for 4 items: " in err and "not counted" in err
    texts = [node.text for node in ElementTree.parse(run / "bench.svg").iter() if node.tag.endswith("text")]
    assert set(PLAIN) <= set(texts)


def test_bench_of_a_model_file_writes_where_it_is_told(run: Path, tmp_path: Path) -> None:
    file = run / "model.safetensors"
    gridsight.bench(file, engines=("eager",), seconds=0.05, batch=2)
    assert [path.name for path in run.iterdir()] == ["model.safetensors"]
    gridsight.bench(file, engines=("eager",), seconds=0.05, batch=2, out=tmp_path / "speed")
    assert {path.name for path in (tmp_path / "speed").iterdir()} == {"bench.json", "bench.svg"}


def test_a_step_of_training_is_timed_by_the_runs_own_recipe(run: Path, tmp_path: Path) -> None:
    recipe = Recipe(2, {}, 1.0, 4, 0.1, 0.0, model="resnet20", optimizer="adamw", augment=(("flip", 1.0),))
    with pytest.raises(UsageError, match=r"no plan\.json"):
        gridsight.bench(str(run), train=True, engines=("eager",), seconds=0.1)
    (run / "plan.json").write_text(json.dumps({"recipe": asdict(recipe), "accumulate": 2}))
    before = (run / "model.safetensors").read_bytes()
    found = gridsight.bench(str(run), train=True, engines=("eager",), seconds=0.5)["training"]
    assert (found["batch"], found["optimizer"]) == (4, "adamw")
    parts = found["ms"]["input"] + found["ms"]["network"] + found["ms"]["update"]
    assert 0 < parts < 5 * found["ms"]["step"] and min(found["ms"]["step"], found["ms"]["update"]) > 0
    assert found["items_per_second"] == pytest.approx(4e3 / found["ms"]["step"])
    assert 0 < found["of_peak"] < 1
    assert (run / "model.safetensors").read_bytes() == before


def test_products_of_a_step_are_counted_where_gradients_are_needed() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 2))
    assert _products(net, (4,)) == 2 * 32 + 3 * 48 + 3 * 12
    net[0].requires_grad_(False)
    assert _products(net, (4,)) == 32 + 2 * 48 + 3 * 12


def test_an_engine_that_answers_otherwise_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(net: nn.Module, x: Tensor) -> Any:
        answer = net(x) * (1 + 1e-3)
        return lambda: answer  # far faster than any other

    monkeypatch.setitem(ENGINES, "wrong", Engine(wrong, "not at all"))
    result = gridsight.bench(run, engines=("wrong",), seconds=0.05, batch=2)
    row = result["engines"][1]
    assert row["one"]["ratio"] > 5 and row["difference"] == pytest.approx(1e-3, rel=1e-3)
    assert row["error"] == "answers differ by 0.001 of the largest logit, more than 1e-05"
    assert all(choice["engine"] == "eager" and not choice["as_fast"] for choice in result["use"].values())


def test_wrong_use_is_said(run: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"engines": ("foldet",)}, "no engine 'foldet'.*folded"),
        ({"batch": 1}, "--batch is at least 2"),
        ({"seconds": 0.0}, "--seconds must be above 0"),
        ({"path": str(tmp_path / "none.png"), "engines": ("eager",), "seconds": 0.01, "batch": 2}, "no such file"),
    ):
        with pytest.raises(UsageError, match=message):
            gridsight.bench(run, **options)


@pytest.mark.parametrize(("name", "ndim"), [("resnet20", 2), ("fcn", 1)])
def test_the_predictor_answers_with_folded_norms(name: str, ndim: int) -> None:
    predictor = Predictor(model(name, ndim), "cpu")
    net = predictor.model.net
    items = list(np.random.default_rng(0).integers(0, 255, (5, 3, *[24] * ndim)).astype(predictor.model.spec.dtype))
    with torch.no_grad():
        expected = net(predictor.seen(items)[0]).numpy()
    np.testing.assert_allclose(predictor.outputs(items), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert any(isinstance(module, NORMS) for module in net.modules())  # what was trained is still there
    assert not any(isinstance(module, NORMS) for module in predictor.net.modules())
    x = torch.randn(1, 3, *[24] * ndim, requires_grad=True)
    (gradient,) = torch.autograd.grad(predictor.net(x).sum(), x)  # although it was first asked for without gradients
    (expected_gradient,) = torch.autograd.grad(net(x).sum(), x)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-4 * float(expected_gradient.abs().max()))


def test_patches_of_a_network_are_answered_about_as_before() -> None:
    patched = replace(model(), spec=replace(model().spec, fit="patch"))
    predictor = Predictor(patched, "cpu")
    item = np.random.default_rng(0).integers(0, 255, (3, 40, 50), dtype=np.uint8)
    with torch.no_grad():
        expected = WholeItems(patched.net, predictor.front, 3, patched.spec.spatial).logits(item).numpy()
    np.testing.assert_allclose(predictor.outputs([item]), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled", "onnxruntime", "openvino"])
def test_compilers_answer_alike(name: str) -> None:
    net, x = model("gridnet", widths=(8, 16), pools=(1, 2), blocks=1).net, torch.randn(2, 3, 24, 24)
    with torch.inference_mode():
        try:
            answer = make(name, net, x)
        except Unavailable as reason:
            if str(reason).startswith("failed"):
                raise
            pytest.skip(str(reason))
        expected = net(x)
        torch.testing.assert_close(answer(), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.slow
def test_openvino_tells_nobody_that_it_is_used() -> None:
    import subprocess
    import sys

    pytest.importorskip("openvino")
    code = (
        "import sys, torch; from gridsight.artifact.engines import make; "
        "net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten()).eval(); "
        "make('openvino', net, torch.zeros(1, 1, 4, 4)); "
        "assert sys.modules['openvino_telemetry'] is None; assert 'openvino' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
