"""Two processes follow one: the same weights, rows and answers; one that dies ends the run, and `resume` goes on.

What takes two processes is trained once, by this file itself under `torchrun` (`main`), in every case; the tests then
compare it with the same cases trained here by one.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from gridsight.core.errors import GridsightError, UsageError
from gridsight.core.ranks import Ranks, Several, join
from gridsight.core.seed import shorts
from gridsight.data.loader import Batch, Loader
from gridsight.data.ragged import Ragged
from gridsight.models import MODELS, create
from gridsight.nn.dropout import Dropout, numbered
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.tasks import make_task
from gridsight.training.answers import predict_logits
from gridsight.training.loop import Events, Trainer
from gridsight.training.methods import supervised
from gridsight.training.methods.supervised import Supervised
from gridsight.training.recipe import Recipe

CPU = torch.device("cpu")
ITEMS, BATCH = 37, 8  # five batches an epoch, of 8, 8, 7, 7 and 7 items: most do not divide by two
SMALL = {"widths": (8, 8), "blocks": (0, 1), "pools": (1, 2), "grid": 2, "norm": "group"}
RECIPE = Recipe(2, {}, epochs=40, batch=BATCH, lr=0.02, weight_decay=1e-3, warmup=0.1, clip=1.0)


@dataclass(frozen=True)
class Case:
    """One way to train: 200 steps in float64, 20 in float32."""

    recipe: Recipe = RECIPE
    task: str = "classify"
    weights: tuple[float, ...] = ()
    model: str = "gridnet"
    arguments: tuple[tuple[str, Any], ...] = tuple(SMALL.items())
    unequal: bool = False
    accumulate: int = 1


DROPPING = (*SMALL.items(), ("dropout", 0.4))
CASES = {
    "plain": Case(),
    "weights": Case(replace(RECIPE, label_smoothing=0.1), weights=(1.0, 0.3, 2.7)),
    "everything": Case(
        replace(RECIPE, ndim=1, mixup=0.4, optimizer="adamw", lr=2e-3, average=0.95),
        weights=(1.0, 0.3, 2.7),
        arguments=DROPPING,
        unequal=True,
        accumulate=2,
    ),
    "masks, instance norm": Case(
        # instance norms of a few cells multiply rounding errors; at a lower rate they stay far below the bound
        replace(RECIPE, ndim=1, lr=0.005),
        arguments=(*SMALL.items(), ("norm", "instance"), ("standardise", True)),
        unequal=True,
    ),
    "mixup, dropout, layer norm": Case(
        replace(RECIPE, mixup=0.2, augment=(("flip", 1.0),)), arguments=(*DROPPING, ("norm", "layer"))
    ),
    "recurrent": Case(
        replace(RECIPE, ndim=1, mixup=1.0),
        model="crnn",
        arguments=(("widths", (8,)), ("hidden", 5), ("norm", "group"), ("dropout", 0.3)),
        unequal=True,
    ),
    "regress": Case(replace(RECIPE, mixup=0.3), task="regress"),
    "multilabel": Case(replace(RECIPE, mixup=0.3), task="multilabel", weights=(1.0, 3.0, 0.5)),
    "grade": Case(replace(RECIPE, mixup=0.3), task="grade", weights=(1.0, 3.0, 0.5)),
}
QUICK = ("weights", "everything", "mixup, dropout, layer norm")
SHARED = Case(replace(RECIPE, epochs=4, average=0.9), arguments=(*SMALL.items(), ("norm", "batch")))
"""Batch norm: each process has the statistics of its share."""


def data(case: Case) -> tuple[Any, np.ndarray]:
    """Pictures of 6x6, or signals of 6 to 14 steps, whose brightness depends on a class."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 3, ITEMS + 9)
    y: np.ndarray = numbers.astype(np.int64)
    if case.task == "regress":
        y = numbers + rng.normal(0, 0.1, len(numbers))
    elif case.task == "multilabel":
        y = np.stack([numbers > 0, numbers > 1, rng.random(len(numbers)) < 0.5], 1).astype(np.float32)
    if not case.unequal:
        x = rng.integers(0, 120, (len(y), 1, 6, 6)) + numbers[:, None, None, None] * 60
        return x.astype(np.uint8), y
    sizes = rng.integers(6, 15, (len(y), 1))
    parts = [rng.integers(0, 120, size) + n * 60 for (size,), n in zip(sizes, numbers, strict=True)]
    return Ragged(np.concatenate(parts).astype(np.uint8), 1, sizes), y


def trainer(case: Case, dtype: torch.dtype, ranks: Ranks, rows: list | None = None) -> Trainer:
    x, y = data(case)
    recipe = case.recipe if dtype == torch.float64 else replace(case.recipe, epochs=4)
    task = make_task(case.task, () if case.task == "regress" else "abc", weights=case.weights)
    task.label_smoothing = recipe.label_smoothing
    torch.manual_seed(1)
    net = create(case.model, ndim=recipe.ndim, in_channels=1, num_classes=task.num_outputs, **dict(case.arguments)).to(
        dtype
    )
    front = FrontEnd(FrontEndSettings(255.0, (0.4,), (0.3,)), recipe.ndim)
    front.scale = lambda x: FrontEnd.scale(front, x).to(dtype)  # type: ignore[method-assign]
    train, val = Loader(x, y, np.arange(ITEMS), BATCH), Loader(x, y, np.arange(ITEMS, len(y)), 4)
    return Trainer(
        net,
        front,
        task,
        recipe,
        train,
        val,
        seed=3,
        device=CPU,
        accumulate=case.accumulate,
        events=Events() if rows is None else Events(rows.append),
        ranks=ranks,
    )


Result = tuple[dict[str, torch.Tensor], list[dict[str, Any]]]


def trained(case: Case, dtype: torch.dtype, ranks: Ranks | None = None) -> Result:
    """The last weights, and the rows of the epochs."""
    rows: list = []
    run = trainer(case, dtype, ranks or Ranks(), rows)
    run.fit()
    assert run.step == (200 if dtype == torch.float64 else 20) or case is SHARED
    return {name: value.detach().clone() for name, value in run.net.state_dict().items()}, rows


def apart(a: Result, b: Result) -> float:
    """The largest difference of any weight."""
    assert a[0].keys() == b[0].keys()
    return max(float((a[0][name] - b[0][name]).abs().max()) for name in a[0])


# what two processes do ------------------------------------------------------------------------------------------------


@contextmanager
def mean_of_means() -> Iterator[None]:
    """A defect: each process takes the mean of its share, and the gradients are averaged, as DDP does."""

    def average(self: Several, tensors: list[torch.Tensor]) -> None:
        add(self, tensors)
        for tensor in tensors:
            tensor.detach().div_(self.world)

    add = Several.add
    with mock.patch.object(Several, "add", average), mock.patch.object(Batch, "targets", property(lambda b: b.y)):
        yield


def main(out: str, *names: str) -> None:
    """Train these cases as one of two processes; rank 0 writes what came out."""
    ranks = join()
    assert isinstance(ranks, Several) and ranks.world == 2
    found: dict[str, Any] = {}
    for name in names:
        found[name, 64] = trained(CASES[name], torch.float64, ranks)
        found[name, 32] = trained(CASES[name], torch.float32, ranks)
    if QUICK[0] in names:
        found |= others(ranks)
    if ranks.first:
        torch.save(found, out)


def others(ranks: Several) -> dict[Any, Any]:
    """What else is asked of two processes: batch norms, what must differ, answers, failures."""
    found: dict[Any, Any] = {}
    found["batch norm"] = ranks.gather(trained(SHARED, torch.float32, ranks))
    with mean_of_means():
        found["mean of means"] = trained(
            replace(CASES["plain"], recipe=replace(RECIPE, epochs=4)), torch.float32, ranks
        )
    with mock.patch.object(supervised, "numbered", lambda *_: nullcontext()):
        found["generator"] = trained(CASES["mixup, dropout, layer norm"], torch.float32, ranks)
    run = trainer(CASES["plain"], torch.float32, ranks)
    for count in (1, 7, 9):
        part = replace(run.validation, index=np.arange(ITEMS, ITEMS + count))
        found["answers", count] = predict_logits(run.net, run.front, part, CPU, ranks)
    found["shares"] = ranks.gather([batch.items.tolist() for batch in run.train.epoch(3, 0)])
    found["said"] = ranks.gather(failures(ranks))
    return found


def failures(ranks: Ranks) -> list[str]:
    """What each process is told when rank 0 fails, and when there are more processes than items."""
    said = []
    for error in (UsageError("no such thing"), GridsightError("a disk is full"), ValueError("a defect")):

        def fail(error: Exception = error) -> None:
            raise error

        try:
            ranks.from_first(fail)
        except Exception as caught:
            said.append(f"{type(caught).__name__} {caught}")
    try:
        trainer(replace(CASES["plain"], recipe=replace(RECIPE, batch=1)), torch.float32, ranks)
        run = trainer(CASES["plain"], torch.float32, ranks)
        Trainer(
            run.net, run.front, run.task, run.recipe, replace(run.train, size=1), None, seed=0, device=CPU, ranks=ranks
        )
    except UsageError as caught:
        said.append(str(caught))
    return said


def torchrun(*words: str) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    return [*start, "--master-port", str(port), *words]


def environment(tmp_path: Path) -> dict[str, str]:
    fixed = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GRIDSIGHT_CACHE": str(tmp_path / "cache")}
    return os.environ | fixed


# what is expected of them ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    return in_two(tmp_path_factory.mktemp("two"), *QUICK)


@pytest.fixture(scope="module")
def two_more(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    return in_two(tmp_path_factory.mktemp("two"), *(name for name in CASES if name not in QUICK))


def in_two(folder: Path, *names: str) -> dict[Any, Any]:
    done = subprocess.run(
        torchrun(str(Path(__file__)), str(folder / "found.pt"), *names),
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "found.pt", weights_only=False)


@pytest.mark.parametrize("name", QUICK)
def test_two_processes_follow_one(name: str, two: dict) -> None:
    follows(name, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in QUICK])
def test_two_processes_follow_one_in_other_ways_too(name: str, two_more: dict) -> None:
    follows(name, two_more)


def follows(name: str, two: dict) -> None:
    for bits, bound in ((64, 1e-10), (32, 1e-5)):
        one = trained(CASES[name], {64: torch.float64, 32: torch.float32}[bits])
        assert apart(one, two[name, bits]) < bound
        rows, others = one[1], two[name, bits][1]
        assert len(rows) == len(others) > 0
        for row, other in zip(rows, others, strict=True):
            assert row.keys() == other.keys()
            for key in row.keys() - {"event", "phase", "seconds", "items_per_second"}:
                assert other[key] == pytest.approx(row[key], rel=1e-4, abs=1e-5), key


def test_the_mean_of_the_means_of_unequal_shares_is_another_gradient(two: dict) -> None:
    one = trained(CASES["plain"], torch.float32)
    assert apart(one, two["mean of means"]) > 1e-3


def test_dropout_from_a_generator_would_differ_between_processes(two: dict) -> None:
    one = trained(CASES["mixup, dropout, layer norm"], torch.float32)
    assert apart(one, two["generator"]) > 1e-3


def test_batch_norms_are_the_same_in_both_and_near_to_one_process(two: dict) -> None:
    first, second = two["batch norm"]
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])
    one = trained(SHARED, torch.float32)
    means = [name for name in first[0] if name.endswith("running_mean")]
    assert len(means) > 1
    for name in means:
        # the mean over both shares of a batch is that of the batch, but for weights that statistics have led elsewhere
        assert torch.allclose(first[0][name], one[0][name], atol=0.2)
        assert not torch.equal(first[0][name], torch.zeros_like(first[0][name]))
    assert apart(one, first) > 1e-4


def test_every_item_is_trained_on_and_answered_once(two: dict) -> None:
    one = trainer(CASES["plain"], torch.float32, Ranks())
    expected = [batch.items.tolist() for batch in one.train.epoch(3, 0)]
    assert [a + b for a, b in zip(*two["shares"], strict=True)] == expected
    assert {len(a) - len(b) for a, b in zip(*two["shares"], strict=True)} == {0, -1}
    for count in (1, 7, 9):
        part = replace(one.validation, index=np.arange(ITEMS, ITEMS + count))
        outputs, y = predict_logits(one.net, one.front, part, CPU)
        assert torch.equal(two["answers", count][1], y)
        assert torch.allclose(two["answers", count][0], outputs, atol=1e-6)
        assert len(y) == count


def test_a_failure_of_the_first_process_is_one_of_all(two: dict) -> None:
    first, second = two["said"]
    assert first[:2] == second[:2] == ["UsageError no such thing", "GridsightError a disk is full"]
    assert (first[2], second[2]) == ("ValueError a defect", "GridsightError a defect")
    assert first[3] == second[3]
    assert "2 processes cannot share batches of 1 items" in first[3]


def test_dropout_is_of_the_items_and_drops_the_share_asked_for() -> None:
    layer, items = Dropout(0.3), torch.arange(400)
    net = nn.Sequential(Dropout(0.0), layer)
    x = torch.ones(400, 50)
    with numbered(net, 1, 2, items):
        whole = net(x)
        assert torch.equal(net(x), whole)
    with numbered(net, 1, 2, items[100:150]):
        assert torch.equal(net(x[:50]), whole[100:150])
    with numbered(net, 1, 3, items):
        other = net(x)
    assert 0.4 < float((whole == other).double().mean()) < 0.7  # 0.58 where they are independent
    assert float((whole == 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert whole.max().item() == pytest.approx(1 / 0.7, rel=1e-4)
    assert float(whole.mean()) == pytest.approx(1, abs=0.02)
    assert layer.draw is None
    torch.manual_seed(0)
    assert not torch.equal(net(x), net(x))  # without numbers: torch's own
    assert torch.equal(net.eval()(x), x)
    spread = torch.bincount(shorts(0, 0, items, "x", 4096).flatten().long() + (1 << 15), minlength=1 << 16)
    chi = float(((spread - 25) ** 2 / 25).sum())
    assert abs(chi - 65535) < 5 * (2 * 65535) ** 0.5


def test_every_network_drops_by_item() -> None:
    """`torch.nn.Dropout` would make two processes differ from one."""
    for entry in MODELS.entries():
        with torch.device("meta"):
            net = entry.item(**{**entry.arguments, **entry.item.small}, ndim=entry.tags["ndims"][0])
        plain = [name for name, module in net.named_modules() if type(module) is nn.Dropout]
        assert not plain, f"{entry.name}: {plain}"


@pytest.mark.parametrize("world", [1, 2, 3])
def test_chained_shares_end_with_the_row_that_follows_and_the_last_with_the_first(world: int) -> None:
    loader = Loader(np.zeros((7, 1, 2), np.uint8), np.arange(7), np.arange(7), 4, world=world, chained=True)
    plain = list(replace(loader, world=1, chained=False).epoch(5, 0))
    shares = [list(replace(loader, rank=rank).epoch(5, 0)) for rank in range(world)]
    for number, batch in enumerate(plain):
        rows, own = batch.items.tolist(), [share[number].items.tolist() for share in shares]
        assert [item for each in own for item in each[:-1]] == rows
        assert [each[-1] for each in own] == [*(each[0] for each in own[1:]), rows[0]]
        for share in shares:
            assert share[number].targets.tolist() == batch.y.tolist()


def test_mixup_blends_neighbours_and_their_losses() -> None:
    x = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 2, 2).contiguous()
    y = torch.tensor([0, 1, 2, 1, 0])
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    net.forward_train = lambda x: (seen.append(x) or net(x),)  # type: ignore[assignment]
    front, seen = FrontEnd(FrontEndSettings(1.0, (0.0,), (1.0,)), 2), []
    task = make_task("classify", "abc")
    shares = []
    for number in range(3):
        batch = Batch(x, y, torch.arange(5), number=number, all_y=y[:4])
        loss, _ = Supervised(net, front, task, (), 0, mixup=0.5).step(batch, 1)
        share = 1 - float(seen[-1][0, 0, 0, 0])
        assert torch.allclose(seen[-1], share * x[:4] + (1 - share) * x[1:])
        outputs = net(seen[-1]).detach()
        expected = share * task.loss(outputs, y[:4]) + (1 - share) * task.loss(outputs, y[1:])
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)
        shares.append(share)
    assert len(set(shares)) == 3


def test_shares_of_mixup_are_from_beta() -> None:
    from scipy.stats import beta, kstest

    from gridsight.core.seed import key

    u = [key(0, 0, "mixup", number) / (1 << 63) for number in range(500)]
    assert kstest(beta.ppf(u, 0.4, 0.4), beta(0.4, 0.4).cdf).pvalue > 0.01


def test_blending_targets_of_a_linear_loss_is_blending_its_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y, other = torch.rand(2, 6, 3, generator=generator, dtype=torch.float64).round()
    task = make_task("multilabel", "abc", weights=(1.0, 4.0, 0.5), label_smoothing=0.1)
    blended = sum(share * task.loss(outputs, target) for share, target in task.mixed(y, other, 0.3))
    assert float(blended) == pytest.approx(float(task.loss(outputs, 0.3 * y + 0.7 * other)), rel=1e-12)
    number = make_task("regress", ())
    ((weight, mixed),) = number.mixed(torch.tensor([1.0]), torch.tensor([5.0]), 0.25)
    assert (weight, float(mixed)) == (1.0, 4.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK and LOCAL_RANK and MASTER_ADDR and MASTER_PORT is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', not a number"),
    ],
)
def test_half_an_environment_is_wrong_use(given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert type(join()) is Ranks
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        join()


# the command line -----------------------------------------------------------------------------------------------------


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """120 pictures of 8x8, bright on one side."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = rng.integers(0, 90, (120, 8, 8))
    x[y == 0, :, :4] += 60
    x[y == 1, :, 4:] += 60
    path = tmp_path / "arrays.npz"
    np.savez(path, x=x.astype(np.uint8), y=y)
    return path


def started(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        torchrun("-m", "gridsight", *words),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(tmp_path: Path, *words: str) -> str:
    process = started(tmp_path, *words)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out + err


def when_there(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def workers(agent: int) -> dict[int, int]:
    """Process numbers of the ranks that torchrun has started."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    found = {}
    for child in map(int, children):
        words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(word[5:]): child for word in words if word.startswith(b"RANK=")}
    return found


TRAIN = ("--batch", "30", "--no-report", "--save-every", "0.05")


def test_a_process_that_dies_ends_the_run_and_one_process_resumes_it(tmp_path: Path, arrays: Path) -> None:
    out = tmp_path / "run"
    process = started(tmp_path, "train", str(arrays), "--out", str(out), "--epochs", "80", *TRAIN)
    when_there(out / "resume.safetensors", process)
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    killed = time.monotonic()
    printed, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert time.monotonic() - killed < 20
    assert "another of the 2 processes has ended" in errors
    assert f"gridsight resume {out} goes on from its last snapshot" in errors
    assert printed.count("data     arrays") == 1
    assert not (out / "result.json").exists()
    resume = [sys.executable, "-m", "gridsight", "resume", str(out)]
    done = subprocess.run(resume, env=environment(tmp_path), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "processes 2 -> 1" in done.stderr
    assert "resumed at step" in done.stdout
    assert "accuracy" in done.stdout


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bytes_however_they_were_stopped(tmp_path: Path, arrays: Path) -> None:
    train = ("train", str(arrays), "--epochs", "150", *TRAIN)
    printed = finished(tmp_path, *train, "--out", str(tmp_path / "whole"))
    assert printed.count("\naccuracy ") == 1
    assert printed.count("epoch 150 ") == 1
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        out = tmp_path / how.name
        process = started(tmp_path, *train, "--out", str(out))
        when_there(out / "resume.safetensors", process)
        # a death is of one process, a request to stop comes through torchrun
        os.kill(workers(process.pid)[0] if how == signal.SIGKILL else process.pid, how)
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        if how != signal.SIGKILL:
            stops = re.findall(r"gridsight: stopped at step (\d+) of 600; gridsight resume", errors)
            assert len(stops) == 1  # said once, by whichever process comes first
            resumed = finished(tmp_path, "resume", str(out))
            assert f"resumed at step {stops[0]}" in resumed
        else:
            finished(tmp_path, "resume", str(out))
        assert (out / "model.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_wrong_use_is_one_line_in_two_processes_too(tmp_path: Path, arrays: Path) -> None:
    for words, message in (
        (("train", str(arrays), "--batch", "1"), "--batch 1 is too few for 2 processes"),
        (("train", str(arrays), "--epohcs", "1"), "did you mean --epochs"),
        (("train", "nothing/here"), "nothing/here"),
        (("eval", str(tmp_path)), "gridsight eval works in one process"),
    ):
        process = started(tmp_path, *words)
        out, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert (out + errors).count("gridsight: ") == 1
        assert message in errors


if __name__ == "__main__":
    main(*sys.argv[1:])
