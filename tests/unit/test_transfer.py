"""A start from trained weights: what is carried over, what stays frozen, and the way from a publisher's server."""

import hashlib
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gridsight import import_checkpoint, train
from gridsight.__main__ import main
from gridsight.artifact.model_file import load_model
from gridsight.core.errors import GridsightError, UsageError
from gridsight.data.loader import Loader
from gridsight.models import MODELS, create, published_input
from gridsight.models._catalogue import Published, all_published
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.nn.inflate import inflate, sum_axis
from gridsight.nn.transfer import Trained, changing, to_channels, transfer
from gridsight.nn.weights import matched
from gridsight.tasks import make_task
from gridsight.training.loop import Trainer
from gridsight.training.recipe import Recipe, Tuning
from gridsight.training.tuning import Tuned, stage_of_layers
from gridsight.verbs import _start
from server import serving

SMALL = {"depths": (1, 1), "width": 8, "strides": (1, 2)}


def build(ndim: int, in_channels: int, num_classes: int) -> Any:
    return create("resnet20", ndim=ndim, in_channels=in_channels, num_classes=num_classes, **SMALL)


def seeded(seed: int, ndim: int = 2, in_channels: int = 3, num_classes: int = 10) -> Any:
    torch.manual_seed(seed)
    net = build(ndim, in_channels, num_classes)
    for name, value in net.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_()
    return net.eval()


def trained(net: nn.Module, num_classes: int = 10) -> Trained:
    return Trained(net.state_dict(), 2, 3, num_classes)


# ---- what is carried over


@pytest.mark.parametrize("count", (1, 2, 3, 4, 5, 6, 7))
def test_equal_channels_give_the_same_answer(count: int) -> None:
    kernel, x = torch.randn(4, 3, 3, 3), torch.randn(2, 1, 9, 9)
    expected = torch.conv2d(x.expand(-1, 3, -1, -1), kernel)
    torch.testing.assert_close(torch.conv2d(x.expand(-1, count, -1, -1), to_channels(kernel, count)), expected)
    if count == 6:
        torch.testing.assert_close(to_channels(kernel, 6)[:, 3:], kernel / 2)


def test_head_and_stem_are_found_by_their_shapes() -> None:
    source = trained(seeded(0))
    assert changing(build, source, (0, 1), (1, 0)) == [{"linear.weight", "linear.bias"}, {"conv1.weight"}]


@pytest.mark.parametrize("channels", (3, 1))
def test_all_but_the_head_is_carried(channels: int) -> None:
    source, target = seeded(0), seeded(1, in_channels=channels, num_classes=4)
    head = target.linear.weight.clone()
    transfer(build, trained(source), target, 2, channels, 4)
    assert torch.equal(target.linear.weight, head) and target.linear.weight.shape == (4, 16)
    x = torch.randn(2, channels, 16, 16)
    for ours, theirs in zip(target.forward_stages(x), source.forward_stages(x.expand(-1, 3, -1, -1)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_axes_are_carried_as_by_inflation_and_sums() -> None:
    source = seeded(0)
    same = seeded(0, num_classes=4)
    same.load_state_dict(source.state_dict() | {k: v for k, v in same.state_dict().items() if "linear" in k})
    for ndim, carry in ((3, inflate), (1, sum_axis)):
        target = transfer(build, trained(source), seeded(1, ndim, num_classes=4), ndim, 3, 4)
        expected = carry(same, seeded(2, ndim, num_classes=4)).state_dict()
        found = target.state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in found if "linear" not in key)
    with pytest.raises(UsageError, match="weights of 1 axes do not become those of 3"):
        transfer(build, Trained({}, 1, 3, 10), seeded(1, 3), 3, 3, 10)


@pytest.mark.parametrize(
    ("name", "channels", "now", "arguments", "given"),
    (
        ("inception_time", 1, 3, {"depth": 1, "width": 4}, {}),  # a single channel is not narrowed
        ("tcn", 3, 4, {"widths": (4,)}, {}),  # as many channels as the first layer has: no projection
        ("simple_cnn", 3, 3, {"spatial": 16}, {"spatial": 12}),
    ),
)
def test_other_layers_are_refused(
    name: str, channels: int, now: int, arguments: dict[str, Any], given: dict[str, Any]
) -> None:
    ndim = published_input(name)[0]
    source = create(name, ndim=ndim, in_channels=channels, num_classes=5, **arguments)
    build = partial(_start._build, name, arguments | given)
    with pytest.raises(UsageError, match=f"for {channels} channels do not fit the network for {now} channels"):
        transfer(build, Trained(source.state_dict(), ndim, channels, 5), build(ndim, now, 4), ndim, now, 4)


def test_a_projection_reads_other_channels() -> None:
    """TCN has none where the channels are as many as its first layer's, one more than here."""
    build = partial(_start._build, "tcn", {"widths": (4,)})
    source, target = build(1, 3, 5), build(1, 6, 2)
    transfer(build, Trained(source.state_dict(), 1, 3, 5), target, 1, 6, 2)
    own, other = (net.state_dict()["stages.0.downsample.weight"] for net in (source, target))
    torch.testing.assert_close(other, own.repeat(1, 2, 1) / 2)


@pytest.mark.parametrize(
    ("name", "ndim", "other", "reason"),
    (
        ("r3d_18", 3, 2, "which is time"),
        ("inception_v3", 2, 3, "one convolution an axis"),
        ("tcn", 2, 1, "changes its length"),
        ("simple_cnn", 2, 3, "fit one size"),
    ),
)
def test_axes_that_weights_cannot_go_to(name: str, ndim: int, other: int, reason: str) -> None:
    start = _start.Start("x", "", "", name, ndim, 3, 10)
    start.refuse_axes(ndim)
    with pytest.raises(
        UsageError, match=f"weights of {name} for {ndim} axes do not become those for {other}: .*{reason}"
    ):
        start.refuse_axes(other)
    _start.Start("x", "", "", "resnet18", 2, 3, 10).refuse_axes(3)


@pytest.mark.parametrize("name", ("inception_time", "tcn", "resnet20", "inception_v3", "vit_b_16"))
@pytest.mark.parametrize("sizes", ((1, 7), (2, 5), (12, 6)))
def test_channels_and_classes_of_a_checkpoint(name: str, sizes: tuple[int, int]) -> None:
    ndim = published_input(name)[0]
    with torch.device("meta"):
        state = create(name, ndim=ndim, in_channels=sizes[0], num_classes=sizes[1]).state_dict()
    assert _start.sizes_of(name, ndim, state, Path("x")) == sizes


@pytest.mark.parametrize("family", [pytest.param(f[0], id=f[0].name) for f in MODELS.families()])
def test_renames_leave_our_own_keys(family: Any) -> None:
    with torch.device("meta"):
        own = create(family.name, ndim=published_input(family.name)[0]).state_dict()
    assert matched(own, family.item.renames).keys() == own.keys()


# ---- what learns, and how fast


@pytest.mark.parametrize("family", [pytest.param(f[0], id=f[0].name) for f in MODELS.families()])
def test_every_layer_of_every_family_has_its_stage(family: Any) -> None:
    ndim = family.tags["ndims"][0] if 2 not in family.tags["ndims"] else 2
    arguments = {**family.arguments, **family.item.small}
    for name in ("in_channels", "num_classes"):
        arguments.pop(name, None)

    def small(ndim: int, in_channels: int, num_classes: int) -> Any:
        return family.item(ndim=ndim, in_channels=in_channels, num_classes=num_classes, **arguments)

    net = small(ndim, 3, 5)
    spatial = (net.spatial[0] if net.spatial else 32,) * ndim
    stages, count = stage_of_layers(net, 3, spatial)
    assert set(stages) == {name for name, _ in net.named_modules()}
    changed = changing(small, Trained({}, ndim, 3, 5), (0, 1), (1, 0))
    heads, stems = ({key.rpartition(".")[0] for key in keys} for keys in changed)
    assert all(stages[name] == count for name in heads)
    assert 0 in {stages[name] for name in stems}  # shortcuts may read the input later
    owners = {name.rpartition(".")[0] for name, _ in net.named_parameters()}
    assert {stages[name] for name in owners} >= {0, count}


def trainer(tuning: Tuning | None, seed: int = 0, snapshot: Path | None = None, epochs: int = 4) -> Trainer:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (24, 3, 12, 12), dtype=np.uint8), np.arange(24) % 3
    net = seeded(seed, num_classes=3)
    recipe = Recipe(2, SMALL, epochs, 8, 1e-2, 0.1, "resnet20", "adamw", tuning=tuning, average=0.9)
    front = FrontEnd(FrontEndSettings(255.0, (0.5,) * 3, (0.3,) * 3), 2)
    task = make_task("classify", ("a", "b", "c"))
    tuned = Tuned(net, tuning, 3, (12, 12)) if tuning else None
    data = Loader(x, y, np.arange(24), 8)
    return Trainer(net, front, task, recipe, data, None, seed=0, device=torch.device("cpu"), snapshot=snapshot,
                   save_every=0.0, tuned=tuned)  # fmt: skip


def body(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("linear")}


def test_frozen_layers_and_their_norms_are_frozen_to_the_bit() -> None:
    before = seeded(0, num_classes=3).state_dict()
    after = trainer(Tuning(4, 0.1)).fit()
    assert all(torch.equal(after[key], value) for key, value in body(before).items())
    assert not torch.equal(after["linear.weight"], before["linear.weight"])
    # the control: without it every weight and every running statistic moves
    free = trainer(None).fit()
    assert not any(torch.equal(free[key], value) for key, value in before.items())


def test_after_the_frozen_epochs_all_learn() -> None:
    before = seeded(0, num_classes=3).state_dict()
    after = trainer(Tuning(2, 0.1)).fit()
    assert not any(torch.equal(after[key], value) for key, value in before.items())


def test_earlier_stages_learn_slower() -> None:
    run = trainer(Tuning(0, 0.1))
    run._step(next(iter(run.train.epoch(0, 0))))
    rates = {
        name: group["lr"]
        for group in run.optimiser.param_groups
        for name, parameter in run.net.named_parameters()
        if any(parameter is p for p in group["params"])
    }
    top = rates["linear.weight"]
    assert rates["conv1.weight"] / top == pytest.approx(0.1)
    assert rates["layer1.0.conv1.weight"] / top == pytest.approx(0.1 ** (2 / 3))
    assert rates["layer2.0.bn2.bias"] / top == pytest.approx(0.1 ** (1 / 3))
    assert len(rates) == len(list(run.net.parameters()))


@pytest.mark.parametrize("step", (4, 8))
def test_resume_in_and_after_the_frozen_epochs(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trainer(Tuning(2, 0.1)).fit()
    first = trainer(Tuning(2, 0.1), snapshot=tmp_path / "resume.safetensors")
    taken = Trainer._step

    def die(self: Trainer, batch: Any) -> None:
        if self.step == step:
            raise KeyboardInterrupt
        taken(self, batch)

    monkeypatch.setattr(Trainer, "_step", die)
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    monkeypatch.setattr(Trainer, "_step", taken)
    again = trainer(Tuning(2, 0.1), seed=5, snapshot=tmp_path / "resume.safetensors").fit()
    assert all(torch.equal(again[key], value) for key, value in whole.items())


# ---- from the publisher to a run


def checkpoint(net: nn.Module, **more: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}, **more}, buffer)
    return buffer.getvalue()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server with `resnet20.pth`, the catalogue that names it, an empty cache, and data of two classes."""
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(3)
    net = create("resnet20")
    content = checkpoint(net)
    entry = Published("resnet20", "https://example.org/w/resnet20.pth", len(content),
                      hashlib.sha256(content).hexdigest()[:8], "V1", (32, 32), (36,), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3),
                      91.25, "CIFAR-10", 10, "https://example.org/repository", "MIT", False)  # fmt: skip
    monkeypatch.setattr(_start, "published", lambda name: entry if name == "resnet20" else None)
    monkeypatch.setattr(_start, "all_published", lambda: (entry,))
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 255, (40, 20, 20, 3), dtype=np.uint8)
    np.savez(tmp_path / "colour.npz", x=colour, y=np.arange(40) % 2)
    np.savez(tmp_path / "gray.npz", x=colour[..., 0], y=np.arange(40) % 2)
    with serving(**{"resnet20.pth": content}) as (server, address):
        monkeypatch.setenv("GRIDSIGHT_MIRROR", address)
        yield server, net, tmp_path


def run(folder: Path, data: str, out: str, **settings: Any) -> Any:
    return train(str(folder / data), out=str(folder / out), epochs=2, report=False, **settings)


def test_a_run_from_published_weights(published: Any) -> None:
    server, net, folder = published
    found = run(folder, "colour.npz", "a", model="resnet20", pretrained=True, frozen=2)
    model = found.predictor().model
    assert model.spec.spatial == (32, 32) and model.front.mean == (0.4, 0.5, 0.6)
    ours, theirs = model.net.state_dict(), net.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if not key.startswith("linear"))
    assert ours["linear.weight"].shape == (2, 64)
    said = (folder / "a" / "log.txt").read_text()
    assert "V1 of https://example.org/repository (91.25 % of CIFAR-10 as published, untried by us; MIT)" in said
    assert "a new head, which alone learns" in said  # as many epochs frozen as there are
    plan = json.loads((folder / "a" / "plan.json").read_text())
    assert plan["start"]["sha256"] == hashlib.sha256(server.files["resnet20.pth"]).hexdigest()
    assert plan["recipe"]["tuning"] == {"frozen": 2, "spread": 0.01}
    # the second run needs no server
    run(folder, "colour.npz", "b", model="resnet20", pretrained=True, offline=True)
    assert server.asked == [None]


def test_gray_pictures_and_a_model_file(published: Any) -> None:
    _, net, folder = published
    first = run(folder, "gray.npz", "a", model="resnet20", pretrained=True, frozen=2)
    model = first.predictor().model
    assert model.in_channels == 1 and model.front.mean == (0.5,)
    torch.testing.assert_close(model.net.conv1.weight, net.conv1.weight.sum(1, keepdim=True))
    again = run(folder, "gray.npz", "b", weights=str(first.model), frozen=2).predictor().model
    assert torch.equal(again.net.layer3[0].conv1.weight, net.layer3[0].conv1.weight)
    assert again.front.mean == (0.5,)
    with pytest.raises(UsageError, match="is a resnet20, not a resnet18; leave out --model"):
        run(folder, "gray.npz", "c", model="resnet18", weights=str(first.model))


def test_what_is_refused(published: Any) -> None:
    server, _, folder = published

    def refused(why: str, **settings: Any) -> None:
        with pytest.raises(GridsightError, match=why):
            run(folder, "colour.npz", "no", **settings)
        assert not (folder / "no").exists()

    refused("no weights of lenet5 are published that we know of", model="lenet5", pretrained=True)
    refused("--offline downloads nothing", model="resnet20", pretrained=True, offline=True)
    refused("give one of the two", pretrained=True, weights="x")
    refused("--frozen is for a start from trained weights", frozen=1)
    refused("--frozen 5 is more than the --epochs 2 of the run", model="resnet20", pretrained=True, frozen=5)
    refused("--spread must be above 0", pretrained=True, spread=2.0)
    refused("there is no file of weights", weights=str(folder / "none.pth"))
    content = server.files["resnet20.pth"]
    server.files["resnet20.pth"] = content[:-1] + b"x"
    refused("are not the published file", model="resnet20", pretrained=True)
    (folder / "some.pth").write_bytes(content)
    refused("does not say what network it is of; give --model NAME", weights=str(folder / "some.pth"))
    refused("some.pth is not a checkpoint of resnet32: 60 keys are missing", model="resnet32",
            weights=str(folder / "some.pth"))  # fmt: skip
    (folder / "some.safetensors").write_bytes(content)
    refused("is no safetensors file; is it a PyTorch file", model="resnet20", weights=str(folder / "some.safetensors"))
    (folder / "hostile.pth").write_bytes(checkpoint(nn.Linear(1, 1), hook=print))
    refused("holds more than tensors, which could run code when loaded", model="resnet20",
            weights=str(folder / "hostile.pth"))  # fmt: skip


def test_a_file_that_has_changed_is_not_taken_for_the_same(published: Any, tmp_path: Path) -> None:
    _, net, folder = published
    path = folder / "w.pth"
    path.write_bytes(checkpoint(net))
    start = _start._from_file(path, "resnet20")
    assert (start.in_channels, start.num_classes, start.side) == (3, 10, 32)
    assert start.trained().num_classes == 10
    path.write_bytes(checkpoint(seeded(0)))
    with pytest.raises(UsageError, match="is not the file that this run starts from"):
        start.trained()


def test_a_start_builds_few_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "w.pth", []
    path.write_bytes(checkpoint(create("resnet20")))
    original = _start._build

    def counting(*given: Any) -> Any:
        net = original(*given)
        real.append(not next(net.parameters()).is_meta)
        return net

    monkeypatch.setattr(_start, "_build", counting)
    start = _start._from_file(path, "resnet20")
    start.into(create("resnet20", num_classes=4), 2, 3, 4, {})
    assert (len(real), sum(real)) == (6, 0)


def test_the_catalogue_is_of_networks_that_exist() -> None:
    named = {entry.name for entry in MODELS.entries() if entry.tags.get("publisher") == "torchvision"}
    assert {found.name for found in all_published()} == named
    for found in all_published():
        assert found.url.startswith("https://download.pytorch.org/models/") and found.sha256 in found.url
        published = MODELS.get(found.name).tags["parameters_published"]
        # a file holds four bytes a parameter, and a little more
        assert 3.9 * published < found.size < 4.4 * published + 200_000, found.name


def test_partial_builds() -> None:
    start = _start.Start("x", "", "", "resnet20", 2, 3, 10, SMALL)
    assert _start.build(start, 1, 2, 4).linear.out_features == 4
    assert changing(partial(_start._build, "resnet20", SMALL), Trained({}, 2, 3, 10), (0, 1)) == [
        {"linear.weight", "linear.bias"}
    ]


def test_import_knows_what_the_publisher_says(tmp_path: Path) -> None:
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    path.write_bytes(checkpoint(create("squeezenet1_1")))
    model = load_model(import_checkpoint(str(path), model="squeezenet1_1").path)
    assert model.spec.spatial == (224, 224) and model.front.mean == (0.485, 0.456, 0.406)
    assert model.spec.num_classes == 1000 and model.spec.classes[1] == "goldfish, Carassius auratus"
    # the control: of other classes the publisher says nothing but the size
    path.write_bytes(checkpoint(create("squeezenet1_1", num_classes=7)))
    other = load_model(import_checkpoint(str(path), model="squeezenet1_1", size=(64,)).path)
    assert other.spec.spatial == (64, 64) and other.front.mean == (0.0, 0.0, 0.0)
    assert other.spec.classes == tuple("0123456")
    path.write_bytes(checkpoint(create("fcn", ndim=1, in_channels=2, num_classes=3)))
    series = load_model(import_checkpoint(str(path), model="fcn", size=(50,)).path)
    assert (series.ndim, series.in_channels, series.spec.kind) == (1, 2, "series")


def test_import_takes_of_the_publisher_what_is_not_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "squeezenet1_1.pth"
    path.write_bytes(checkpoint(create("squeezenet1_1")))

    def front(**given: Any) -> FrontEndSettings:
        return load_model(import_checkpoint(str(path), model="squeezenet1_1", **given).path).front

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert (front(mean=(0.5,)).mean, front(mean=(0.5,)).std) == ((0.5, 0.5, 0.5), std)
    assert (front(std=(0.5,)).mean, front(std=(0.5,)).std) == (mean, (0.5, 0.5, 0.5))
    capsys.readouterr()
    assert main(["import", str(path), "--model", "squeezenet1_1", "--std", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "mean (--mean) of the channels: taken from IMAGENET1K_V1 of https://" in said and "--std" not in said
    assert "brings the shorter side to 256 and cuts out the middle 224 x 224; here the largest middle part" in said
    assert "differ a little from the published 58.18 %" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"std": (float("nan"),)}, r"--std must be finite, not \(nan,\)"),
        ({"std": (1.0, float("inf"))}, "--std must be finite"),
        ({"std": (0.0,)}, "--std must be above 0"),
        ({"mean": (float("nan"),)}, "--mean must be finite"),
        ({"mean": (0.0, float("-inf"))}, "--mean must be finite"),
        ({"mean": (123.0, 117.0)}, "--mean 123 117 is not of values from 0 to 1: divide by 255"),
        ({"mean": (0.0, 1.5)}, "--mean 0 1.5 is not of values from 0 to 1: divide by 255"),
        ({"std": (58.4,)}, "--std 58.4 is not of values from 0 to 1: divide by 255"),
        ({"std": (9e3,), "dtype": "uint16"}, "--std 9000 is not of values from 0 to 1: divide by 65,535"),
        ({"classes": ("a", "b", "c")}, "--classes has 3 names, the checkpoint answers 10"),
    ],
)
def test_import_refuses_what_does_not_fit(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(checkpoint(create("lenet5", in_channels=2)))
    with pytest.raises(UsageError, match=message):
        import_checkpoint(str(path), model="lenet5", size=(32,), **given)


def test_import_takes_any_mean_of_numbers_without_a_full_scale(tmp_path: Path) -> None:
    path, mean, std = tmp_path / "net.pth", (-600.0, 40.0), (300.0, 80.0)
    path.write_bytes(checkpoint(create("lenet5", in_channels=2)))
    found = import_checkpoint(str(path), model="lenet5", size=(32,), mean=mean, std=std, dtype="float32")
    front = load_model(found.path).front
    assert (front.mean, front.std, front.full_scale) == (mean, std, 1.0)


def test_another_network_is_said_before_the_number_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(checkpoint(create("resnet32")))
    with pytest.raises(UsageError, match="is not a checkpoint of resnet20: 72 keys are not of resnet20"):
        import_checkpoint(str(path), model="resnet20", size=(32,), classes=("a", "b", "c"))


def test_import_asks_for_axes_that_are_not_published(tmp_path: Path) -> None:
    path = tmp_path / "video.pth"
    path.write_bytes(checkpoint(create("lenet5", in_channels=2)))
    with pytest.raises(UsageError, match="r3d_18 takes 3 axes, of which 112 112 are published; give --size for all"):
        import_checkpoint(str(path), model="r3d_18")
