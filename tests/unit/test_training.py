"""The loop and its parts against closed forms, and what it promises: exact resume, named NaN, restored best weights."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gridsight.core.errors import TrainingError
from gridsight.data.loader import Batch, Loader
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.nn.net import Net
from gridsight.tasks import class_weights
from gridsight.tasks.classify import Classify
from gridsight.tasks.multilabel import Multilabel
from gridsight.training.answers import predict_logits
from gridsight.training.average import Average
from gridsight.training.loop import Events, Trainer
from gridsight.training.methods.supervised import Supervised
from gridsight.training.optimiser import OPTIMISERS, make_optimiser
from gridsight.training.overfit import overfits
from gridsight.training.recipe import Recipe
from gridsight.training.schedule import SCHEDULES, factor
from gridsight.training.snapshot import first_bad_layer, load_tensors, optimiser_tensors, restore_optimiser
from gridsight.training.stopping import Stopped

RECIPE = Recipe(2, {}, epochs=4, batch=8, lr=0.05, weight_decay=1e-3, warmup=0.25, average=0.9, label_smoothing=0.1)
CPU = torch.device("cpu")


class Small(Net):
    """A convolution with a norm and dropout: everything that has state or draws numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.drop, self.fc = nn.Dropout(0.3), nn.Linear(4, 3)

    def forward_stages(self, x, mask=None):
        yield self.norm(self.conv(x)).relu()

    def forward_head(self, x, mask=None):
        return self.fc(self.drop(x.flatten(2).mean(2)))


def data(n: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of 6x6 pictures that differ in brightness."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    x = rng.integers(0, 80, (n, 1, 6, 6)) + y[:, None, None, None] * 70
    return x.astype(np.uint8), y.astype(np.int64)


def trainer(snapshot: Path | None = None, recipe: Recipe = RECIPE, **options) -> Trainer:
    x, y = data()
    torch.manual_seed(7)
    index = np.arange(40)
    options = {"seed": 3, "save_every": 1e9, **options}
    return Trainer(
        options.pop("net", None) or Small(),
        FrontEnd(FrontEndSettings(255.0, (0.4,), (0.3,)), 2),
        Classify("abc", label_smoothing=recipe.label_smoothing),
        recipe,
        Loader(x, y, index, recipe.batch, options.pop("workers", 0)),
        Loader(x, y, np.arange(40, 50), 4),
        device=CPU,
        snapshot=snapshot,
        **options,
    )


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_rise_in_a_line_and_then_follow_their_formula(schedule: str) -> None:
    total, warmup = 200, 0.1
    rates = [factor(schedule, step, total, warmup) for step in range(total)]
    assert rates[:20] == pytest.approx([(t + 1) / 21 for t in range(20)])
    expected = {
        "onecycle": lambda t: 1 - (t - 20) / 180,
        "cosine": lambda t: (1 + math.cos(math.pi * (t - 20) / 180)) / 2,
        "step": lambda t: 1.0 if t < 100 else 0.1 if t < 150 else 0.01,
        "constant": lambda t: 1.0,
    }[schedule]
    assert rates[20:] == pytest.approx([expected(t) for t in range(20, total)])


def test_decay_with_zero_gradient_follows_the_closed_form_and_spares_norms_and_biases() -> None:
    for name, shrink in (("sgd", 1 - 0.1 * 0.05), ("adamw", 1 - 0.1 * 0.05)):
        net = Small()
        before = {key: value.clone() for key, value in net.state_dict().items()}
        optimiser = make_optimiser(name, net, lr=0.1, weight_decay=0.05, momentum=0.0)
        for _ in range(10):
            for parameter in net.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimiser.step()
        after = net.state_dict()
        assert torch.allclose(after["conv.weight"], before["conv.weight"] * shrink**10, rtol=1e-5)
        for spared in ("norm.weight", "conv.bias", "fc.bias"):
            assert torch.equal(after[spared], before[spared])


def test_fused_sgd_with_nesterov_momentum_equals_its_formula_in_channels_last_memory() -> None:
    conv = nn.Conv2d(3, 4, 3, dtype=torch.float64).to(memory_format=torch.channels_last)
    optimiser = make_optimiser("sgd", conv, lr=0.1, weight_decay=0.01, momentum=0.9)
    w, m = conv.weight.detach().clone(), torch.zeros(4, 3, 3, 3, dtype=torch.float64)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        optimiser.zero_grad()
        conv(x).square().sum().backward()
        g = conv.weight.grad.clone() + 0.01 * w
        m = 0.9 * m + g
        w = w - 0.1 * (g + 0.9 * m)
        optimiser.step()
        assert torch.allclose(conv.weight, w, rtol=1e-12)


def test_average_equals_its_closed_form_and_copies_counters() -> None:
    net = Small()
    average = Average(net, 0.9)
    expected = net.fc.bias.detach().clone()
    for step in range(30):
        with torch.no_grad():
            net.fc.bias += 1
            net.norm.num_batches_tracked += 1
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * net.fc.bias
        average.update(step)
    assert torch.allclose(average.state["fc.bias"], expected, rtol=1e-6)
    assert average.state["norm.num_batches_tracked"] == 30


def test_loader_gives_every_item_once_the_same_for_any_workers_and_start() -> None:
    x, y = data()
    loader = Loader(x, y, np.arange(5, 48), 8)
    first = [batch.items for batch in loader.epoch(0, 2)]
    assert sorted(torch.cat(first).tolist()) == list(range(5, 48))
    assert {len(items) for items in first} == {7, 8}
    threaded = [batch.items for batch in replace(loader, workers=3).epoch(0, 2, start=2)]
    assert [items.tolist() for items in threaded] == [items.tolist() for items in first[2:]]
    assert [b.items.tolist() for b in loader.epoch(0, 3)] != [items.tolist() for items in first]
    batch = next(loader.epoch(0, 2))
    assert np.array_equal(batch.x.numpy(), x[batch.items.numpy()])


@pytest.mark.parametrize("weights", [(), (1.0, 2.0, 0.5)])
def test_accumulation_gives_the_gradient_of_the_whole_batch(weights: tuple[float, ...]) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    net.forward_train = lambda x: (net(x),)  # type: ignore[attr-defined]
    front = FrontEnd(FrontEndSettings(1.0, (0.0,), (1.0,)), 2).double()
    front.scale = lambda x: x.double()  # type: ignore[method-assign]
    task = Classify("abc", label_smoothing=0.1, weights=weights)
    if weights:
        task.weights = task.weights.double()
    x, y = data(10)
    batch = Batch(torch.from_numpy(x).double() / 255, torch.from_numpy(y), torch.arange(10))
    gradients = []
    for parts in (1, 4):
        net.zero_grad()
        loss, correct = Supervised(net, front, task, (), 0).step(batch, 0, parts)
        gradients.append((net[1].weight.grad.clone(), float(loss), float(correct)))
    assert torch.allclose(gradients[0][0], gradients[1][0], rtol=1e-12)
    assert gradients[0][1:] == pytest.approx(gradients[1][1:], rel=1e-6)


def test_loss_with_weights_and_smoothing_equals_the_sum_written_out() -> None:
    logits, y = torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 0, 1, 0])
    task = Classify("abc", label_smoothing=0.2, weights=class_weights([4, 2, 1]))
    assert class_weights([4, 2, 1]) == pytest.approx((7 / 12, 7 / 6, 7 / 3))
    w = task.weights.double()
    task.weights = w
    logp = logits.log_softmax(1)
    smooth = F.one_hot(y, 3).double() * 0.8 + 0.2 / 3
    expected = -((smooth * logp).sum(1) * w[y]).sum() / w[y].sum()
    assert float(task.loss(logits, y)) == pytest.approx(float(expected), rel=1e-9)
    assert task.mass(y) == pytest.approx(float(w[y].sum()))


def test_of_rare_classes_smoothing_and_weights_leave_the_common_ones_their_label() -> None:
    """At 1:99 answers that follow the labels must cost less than calling everything rare."""
    y = torch.tensor([1] + [0] * 99)
    right = torch.where(F.one_hot(y, 2) > 0, 3.0, 0.0)
    all_rare = torch.tensor([[0.0, 3.0]]).expand(100, 2)
    task = Classify("ab", label_smoothing=0.1, weights=class_weights([99, 1]))
    assert task.loss(right, y) < 0.5 * task.loss(all_rare, y)
    sets, questions = F.one_hot(y, 2)[:, 1:].float(), Multilabel("b", label_smoothing=0.1, weights=(99.0,))
    assert questions.loss(6 * sets - 3, sets) < 0.5 * questions.loss(torch.full_like(sets, 3.0), sets)


def test_balanced_scores_are_means_over_classes() -> None:
    y, logits = torch.tensor([0] * 96 + [1] * 4), torch.tensor([[1.0, 0.0]]).repeat(100, 1)
    logits[96] = logits[97] = logits[0] = torch.tensor([0.0, 1.0])
    plain = Classify("ab").score(logits, y)
    assert plain["accuracy"] == pytest.approx(0.97)
    found = Classify("ab", balanced=True).score(logits, y)
    assert found["accuracy"] == pytest.approx((95 / 96 + 2 / 4) / 2)
    assert found["error"] == pytest.approx((95 / 96 / 96 / 96 + 1 / 16) ** 0.5 / 2)
    perfect = Classify("ab", balanced=True).score(F.one_hot(y, 2).double(), y)
    assert perfect["accuracy"] == 1 and perfect["error"] > 0.05
    plain = Classify("ab")
    for n in (1, 4):
        outputs = torch.tensor([[2.0, 0.0]] * n)
        errors = [plain.score(outputs, torch.full((n,), k))["error"] for k in (0, 1)]  # all right, all wrong
        assert errors == pytest.approx([(n / (n + 1) / (n + 1) / n) ** 0.5] * 2)


@pytest.mark.parametrize("optimizer", OPTIMISERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_stopping_anywhere_and_going_on_gives_the_same_bytes(tmp_path: Path, optimizer: str, workers: int) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, augment=(("shift", 0.2),), clip=1.0)
    whole = trainer(recipe=recipe).fit()
    for stop_at in (1, 6, 13):
        path = tmp_path / f"{stop_at}.safetensors"
        first = trainer(path, recipe, workers=workers)
        for _ in range(stop_at):
            _one_step(first)
        first._save()
        again = trainer(path, recipe, workers=workers, net=None)
        torch.manual_seed(99)  # the state of the global generator must not matter
        assert same(again.fit(), whole)


def test_the_last_epoch_may_be_a_part_of_one(tmp_path: Path) -> None:
    rows: list = []
    run = trainer(recipe=replace(RECIPE, epochs=1.5), events=Events(rows.append))
    whole, batches = run.fit(), len(run.train)
    assert [row["step"] for row in rows] == [batches, round(1.5 * batches)] and run.at.epoch == 2
    assert rows[-1]["lr"] == pytest.approx(run.recipe.lr * factor("onecycle", run.total - 1, run.total, 0.25))
    for stop_at in (1, batches, batches + 1):
        first = trainer(tmp_path / f"{stop_at}.safetensors", replace(RECIPE, epochs=1.5))
        for _ in range(stop_at):
            _one_step(first)
        first._save()
        assert same(trainer(tmp_path / f"{stop_at}.safetensors", replace(RECIPE, epochs=1.5)).fit(), whole)


def _one_step(run: Trainer) -> None:
    """One step as `fit` takes it, epochs ended where they end."""
    batch = next(run.train.epoch(run.seed, run.at.epoch, run.at.batch))
    run._step(batch)
    if run.at.batch == len(run.train):
        run._end_of_epoch(0.0, 0)


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    assert same(trainer().fit(), trainer().fit())
    assert not same(trainer().fit(), trainer(seed=4).fit())


def test_average_and_dropout_take_part(tmp_path: Path) -> None:
    """A control for the test above: leaving one of them out must change the result."""
    whole = trainer().fit()
    assert not same(trainer(recipe=replace(RECIPE, average=0.0)).fit(), whole)
    path = tmp_path / "resume.safetensors"
    run = trainer(path)
    for _ in range(7):
        _one_step(run)
    run._save()
    tensors, _ = load_tensors(path)
    kinds = {name.split(".")[0] for name in tensors}
    assert kinds == {"net", "optimiser", "average", "best"}
    run = trainer(path)
    run._restore()
    run.average.state["fc.bias"] += 1
    run.snapshot = None
    assert not same(run.fit(), whole)


def test_moments_are_restored_in_the_memory_order_of_their_weights() -> None:
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimiser = make_optimiser("sgd", conv, lr=0.1, weight_decay=0.0, momentum=0.9)
    conv(torch.ones(1, 3, 4, 4)).sum().backward()
    optimiser.step()
    stored = {name: value.contiguous() for name, value in optimiser_tensors(optimiser).items()}
    restore_optimiser(optimiser, stored)
    for parameter, state in optimiser.state.items():
        assert state["momentum_buffer"].stride() == parameter.stride()


def test_nan_names_the_layer_and_the_step(tmp_path: Path) -> None:
    rows: list = []
    run = trainer(tmp_path / "resume.safetensors", events=Events(rows.append))
    for _ in range(3):
        _one_step(run)
    with torch.no_grad():
        run.net.norm.weight[1] = math.inf
    with pytest.raises(TrainingError, match=r"step 3: first in norm \(its weight is not finite\).*--lr"):
        run.fit()
    assert rows[-1]["event"] == "nan"
    assert not run.net.norm._forward_hooks


def test_first_bad_layer_names_the_first_in_order_of_execution() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        net[2].weight.fill_(1e30)
    assert first_bad_layer(net, torch.full((1, 2), 1e20)) == "2"


def test_a_rate_that_blows_up_is_reported_within_a_step_of_it() -> None:
    recipe = replace(RECIPE, lr=1e30, average=0.0)
    with pytest.raises(TrainingError, match="diverged"):
        trainer(recipe=recipe).fit()


def test_early_stopping_restores_the_best_weights_with_norms_and_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list = []
    run = trainer(recipe=replace(RECIPE, epochs=10), patience=2, events=Events(rows.append))
    scores = iter([0.5, 0.9, 0.6, 0.7, 0.8])
    seen: list = []

    def evaluate(loader: Loader) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in run._current().items()})
        share = next(scores)
        return {"accuracy": share, "error": (share * (1 - share) / 10) ** 0.5, "loss": 1.0}

    monkeypatch.setattr(run, "evaluate", evaluate)
    chosen = run.fit()
    assert len(seen) == 4
    assert same(chosen, seen[1])
    assert not torch.equal(seen[1]["norm.running_mean"], seen[3]["norm.running_mean"])
    assert rows[-1]["event"] == "early_stop"


@pytest.mark.parametrize(("scores", "kept"), [((0.9, 0.8), 0), ((0.85, 0.8), 1), ((0.7, 0.8), 1)])
def test_the_last_weights_are_kept_unless_clearly_worse(
    monkeypatch: pytest.MonkeyPatch, scores: tuple[float, float], kept: int
) -> None:
    # ten validation items: one standard error of 0.9 is 0.095, of 0.85 it is 0.113
    run = trainer(recipe=replace(RECIPE, epochs=2))
    given, seen = iter(scores), []

    def evaluate(loader: Loader) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in run._current().items()})
        share = next(given)
        return {"accuracy": share, "error": (share * (1 - share) / 10) ** 0.5, "loss": 1.0}

    monkeypatch.setattr(run, "evaluate", evaluate)
    assert same(run.fit(), seen[kept])


def test_one_batch_is_learned_by_heart_and_random_labels_of_equal_pictures_are_not() -> None:
    run = trainer(recipe=replace(RECIPE, batch=8), net=nn_without_dropout())
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    assert overfits(run)[0]
    assert same(before, run.net.state_dict())
    run.train = replace(run.train, x=np.zeros_like(run.train.x))
    assert not overfits(run)[0]


def test_a_batch_is_learned_by_heart_in_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    step, sizes = Supervised.step, []

    def spied(self, batch, epoch, accumulate=1):
        sizes.append((len(batch.y), accumulate))
        return step(self, batch, epoch, accumulate)

    monkeypatch.setattr(Supervised, "step", spied)
    assert overfits(trainer(recipe=replace(RECIPE, batch=8), net=nn_without_dropout(), accumulate=4))[0]
    assert set(sizes) == {(8, 4)}


def nn_without_dropout() -> Net:
    torch.manual_seed(7)
    net = Small()
    net.drop = nn.Identity()
    return net


def test_a_first_ctrl_c_saves_between_steps(tmp_path: Path) -> None:
    import os
    import signal

    before = signal.getsignal(signal.SIGINT)  # a process in the background of a shell ignores it
    path = tmp_path / "resume.safetensors"
    whole = trainer().fit()
    run = trainer(path)
    step = run._step

    def interrupted(batch: Batch) -> None:
        step(batch)
        if run.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    run._step = interrupted  # type: ignore[method-assign]
    with pytest.raises(Stopped, match="step 7"):
        run.fit()
    assert same(trainer(path).fit(), whole)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_full_disk_at_a_snapshot_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gridsight.training.loop.save_tensors", full)
    assert same(trainer(tmp_path / "resume.safetensors", save_every=0.0).fit(), trainer().fit())


def test_a_snapshot_keeps_the_best_weights_and_the_patience(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Planted scores whose best is long past: what was lost in a snapshot would change what is chosen, or when."""
    recipe = replace(RECIPE, epochs=12)
    planted = [0.5, 0.95, 0.6, 0.7, 0.6, 0.5, 0.99]

    def scored(run: Trainer) -> Trainer:
        def evaluate(loader: Loader) -> dict[str, float]:
            return {"accuracy": planted[run.at.epoch - 1], "error": 0.01, "loss": 1.0}

        monkeypatch.setattr(run, "evaluate", evaluate)
        return run

    whole = scored(trainer(recipe=recipe, patience=4)).fit()
    path = tmp_path / "resume.safetensors"
    first = scored(trainer(path, recipe, patience=4))
    for _ in range(4 * len(first.train) + 2):
        _one_step(first)
    first._save()
    again = scored(trainer(path, recipe, patience=4))
    assert same(again.fit(), whole)
    assert again.at.epoch == 6
    assert again.at.best_epoch == 2


def test_a_stop_during_the_evaluation_that_ends_a_run_is_resumed_to_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, epochs=12)

    def scored(run: Trainer, stopping: int | None = None) -> Trainer:
        def evaluate(loader: Loader) -> dict[str, float]:
            if run.at.epoch == stopping:
                run._asked.append(2)  # Ctrl-C
            return {"accuracy": 0.9 - 0.05 * run.at.epoch, "error": 0.01, "loss": 1.0}

        monkeypatch.setattr(run, "evaluate", evaluate)
        return run

    whole = scored(trainer(recipe=recipe, patience=2))
    state = whole.fit()
    assert whole.at.epoch == 3
    path = tmp_path / "resume.safetensors"
    with pytest.raises(Stopped):
        scored(trainer(path, recipe, patience=2), stopping=3).fit()
    again = scored(trainer(path, recipe, patience=2))
    assert same(again.fit(), state) and again.at.epoch == 3


def test_a_full_disk_is_an_os_error_for_the_callers(tmp_path: Path) -> None:
    import resource

    from gridsight.training.snapshot import save_tensors

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError):
            save_tensors(tmp_path / "big.safetensors", {"x": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_memory_that_runs_out_halves_the_parts_and_keeps_the_batch(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Parts above three items fail half-way through the forward pass, when norms have moved; the gradient stays."""
    calls: list[int] = []
    whole = Supervised._loss

    def tight(self, outputs, y):
        calls.append(len(y))
        if len(y) > 3:
            raise error
        return whole(self, outputs, y)

    rows: list = []
    recipe = replace(RECIPE, epochs=2)
    wanted = trainer(recipe=recipe, accumulate=4).fit()
    monkeypatch.setattr(Supervised, "_loss", tight)
    run = trainer(tmp_path / "resume.safetensors", recipe, events=Events(rows.append))
    assert same(run.fit(), wanted)
    assert run.at.parts == 4
    assert [row["event"] for row in rows if row["event"] != "epoch"] == ["out_of_memory"] * 2
    assert "4 parts" in rows[1]["text"]
    # the parts go with the snapshot
    run._save()
    again = trainer(tmp_path / "resume.safetensors", recipe)
    again._restore()
    assert again.at.parts == 4


def test_other_errors_are_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Supervised, "step", broken)
    with pytest.raises(RuntimeError, match="multiplied"):
        trainer().fit()


def test_one_item_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments):
        raise MemoryError

    monkeypatch.setattr(Supervised, "step", never)
    with pytest.raises(TrainingError, match="smaller --size"):
        trainer().fit()


def test_evaluation_in_smaller_batches_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from gridsight.training import answers

    run = trainer()
    whole = predict_logits(run.net, run.front, run.validation, CPU)
    plain = answers._answer

    def tight(net, front, batch):
        if len(batch.y) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return plain(net, front, batch)

    monkeypatch.setattr(answers, "_answer", tight)
    torch.testing.assert_close(predict_logits(run.net, run.front, run.validation, CPU), whole)


def test_parts_are_doubled_until_they_fit() -> None:
    from gridsight.nn.memory import free_memory, parts_that_fit

    assert parts_that_fit(1_000, 64, None) == 1
    assert parts_that_fit(1_000, 64, 100_000) == 1
    assert parts_that_fit(1_000, 64, 50_000) == 2  # 32,000 are less than four fifths of it, 64,000 are not
    assert parts_that_fit(1_000, 64, 0, 3) == 64
    assert free_memory(CPU) > 1 << 20


@pytest.mark.parametrize(("line", "names", "prefix"), [
    ("0::/job/step", ("memory.max", "memory.current"), ""),
    ("4:memory:/job/step", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_"),
])  # fmt: skip
def test_pages_of_files_are_free_memory_of_a_control_group(
    line: str, names: tuple[str, str], prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A decoded data set that was just written fills the group with pages that the kernel gives up when asked."""
    from gridsight.nn import memory

    root = tmp_path / ("memory" if prefix else "")
    (root / "job" / "step").mkdir(parents=True)
    read = memory._read
    said = {Path("/proc/self/cgroup"): f"9:cpu:/other\n{line}\n"}
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_read", lambda path: said.get(path) or read(path))
    assert memory._left_in_group() is None
    for folder, limit in ((root / "job", 8_000_000), (root, 50_000_000)):  # as of a job, and of all jobs
        for name, value in zip(names, (limit, 7_000_000), strict=True):
            (folder / name).write_text(f"{value}\n")
    assert memory._left_in_group() == 1_000_000  # nothing is said of files
    stat = root / "job" / "memory.stat"
    stat.write_text(f"anon 900\nfile 5\n{prefix}inactive_file 4000000\n{prefix}active_file 500000\nactive_anon 9\n")
    assert memory._left_in_group() == 5_500_000
    stat.write_text(f"{prefix}inactive_file 9000000\n")  # counted a moment later than what is used
    assert memory._left_in_group() == 8_000_000
    (root / "job" / names[0]).write_text("max\n")
    assert memory._left_in_group() == 43_000_000
    # in a container the path is that of the machine, and what is seen there is the container's own group
    said[Path("/proc/self/cgroup")] = line.replace("job/step", "docker/1a2b") + "\n"
    assert memory._left_in_group() == 43_000_000


def test_mixed_precision_learns_as_well_and_keeps_weights_and_loss_in_float32() -> None:
    plain, mixed = (
        trainer(recipe=replace(RECIPE, epochs=8)),
        trainer(recipe=replace(RECIPE, epochs=8, precision="bfloat16")),
    )
    seen: list[torch.dtype] = []
    mixed.net.conv.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    states = plain.fit(), mixed.fit()
    assert seen[0] == torch.bfloat16
    assert all(value.dtype == states[0][name].dtype for name, value in states[1].items())
    scores = [run.evaluate(run.validation) for run in (plain, mixed)]
    assert abs(scores[0]["accuracy"] - scores[1]["accuracy"]) <= 0.1
    assert scores[1]["loss"] == pytest.approx(scores[0]["loss"], abs=0.1)
    assert not same(*states)  # it was another computation


def test_balanced_sampling_meets_each_class_equally_often_and_each_visit_under_its_own_number() -> None:
    y = np.array([0] * 90 + [1] * 8 + [2] * 2)
    loader = Loader(np.arange(100, dtype=np.uint8)[:, None, None], y, np.arange(100), 10, balanced=True)
    seen = torch.cat([batch.items for batch in loader.epoch(3, 0)])
    assert len(seen) == 100 == len(set(seen.tolist()))
    assert np.bincount(y[seen.numpy() % 100]).tolist() == [34, 33, 33]
    visits = np.bincount(seen.numpy() % 100, minlength=100)
    assert visits[:90].max() == 1 and set(visits[90:98]) <= {4, 5} and set(visits[98:]) == {16, 17}
    other = torch.cat([batch.items for batch in loader.epoch(3, 1)])
    assert set((other % 100).tolist()) != set((seen % 100).tolist())
    assert torch.equal(seen, torch.cat([batch.items for batch in replace(loader, workers=2).epoch(3, 0)]))


def test_natural_prior_restores_the_probabilities_of_an_imbalanced_population() -> None:
    """Two Gaussians at 1:99: a classifier that is exact for equal classes must become exact for these."""
    from gridsight.measure.calibration import Calibration

    rng = np.random.default_rng(0)
    y = (rng.random(200_000) < 0.01).astype(np.int64)
    x = rng.standard_normal(len(y)) + 2 * y
    balanced = np.stack([np.zeros_like(x), 2 * x - 2], 1)  # log p(x | 1) - log p(x | 0)
    prior = (0.99, 0.01)
    said = Classify("ab", prior=prior).predict(balanced, Calibration())["probabilities"][:, 1]
    odds = 0.01 / 0.99 * np.exp(2 * x - 2)
    assert said == pytest.approx(odds / (1 + odds), rel=1e-9)
    plain = Classify("ab").predict(balanced, Calibration())["probabilities"][:, 1]
    assert said.mean() == pytest.approx(y.mean(), rel=0.05)
    assert plain.mean() > 10 * y.mean()  # what is wrong without it


def test_the_trial_step_doubles_its_parts_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from gridsight.verbs import _machine

    tried: list[int] = []

    def tight(plan, data, device, repeats):
        tried.append(plan.accumulate)
        if plan.accumulate < 4:
            raise torch.OutOfMemoryError("out of memory")
        return plan.accumulate

    monkeypatch.setattr(_machine, "_measure", tight)

    @dataclass(frozen=True)
    class Planned:
        recipe: object
        accumulate: int = 1

    assert _machine.measure(Planned(SimpleNamespace(batch=8)), range(100), CPU) == 4
    assert tried == [1, 2, 4]


def test_peak_memory_of_a_gpu_is_that_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    from gridsight.verbs._machine import AFTERWARDS, peak_memory

    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: asked.append(device) or 3 << 20)
    assert peak_memory(torch.device("cuda", 1)) == 3 << 20
    assert asked == [torch.device("cuda", 1)]
    assert peak_memory(CPU) > AFTERWARDS + (50 << 20)  # of this process, which holds PyTorch
