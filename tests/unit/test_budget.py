"""--minutes: a plan is a pure function of measured seconds, and a run that proves slower ends in time all the same."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gridsight.training.budget import (
    FEWEST,
    LADDER,
    MOST,
    PASSES,
    SPARE,
    epochs_that_fit,
    fit_time,
    recipe_from,
    widened,
)
from gridsight.training.loop import Events, Trainer
from gridsight.training.recipe import Recipe, Tuning, recipe, shortened, tuned
from gridsight.training.schedule import bent
from gridsight.verbs._machine import SMALL_STEP, use_threads

BASE = Recipe(2, {"widths": (16, 32)}, epochs=10, batch=8, lr=0.1, weight_decay=0.0)


def machine(second_a_pass: float, asked: list[float] | None = None) -> Callable[[Recipe], float]:
    """A machine on which a pass of the base takes so long, and others as the square of their width."""

    def epoch(of: Recipe) -> float:
        if asked is not None:
            asked.append(of.arguments["widths"][0] / 16)
        return second_a_pass * (of.arguments["widths"][1] / 32) ** 2

    return epoch


@given(seconds=st.floats(0.1, 1e5), speed=st.floats(0.01, 100))
def test_the_plan_fits_and_no_wider_one_would_make_the_passes(seconds: float, speed: float) -> None:
    found = fit_time(BASE, seconds, machine(speed))
    each = machine(speed)(found.recipe)
    assert found.seconds == pytest.approx(found.recipe.epochs * each)
    assert 0 < found.recipe.epochs <= MOST * BASE.epochs
    assert found.seconds <= max(SPARE * seconds, 1.0) * (1 + 1e-9)
    # as many passes as fit, to a tenth of what there are or a whole one
    unit = max(1.0, 0.1 * found.recipe.epochs) if found.recipe.epochs >= 10 else 0.1 * found.recipe.epochs
    assert found.recipe.epochs == int(MOST * BASE.epochs) or found.seconds + unit * each > SPARE * seconds * (1 - 1e-9)
    wider = [factor for factor in LADDER if factor > max(found.factor, 1.0)]
    if wider and found.factor >= 1:
        passes = int(SPARE * seconds / machine(speed)(widened(BASE, wider[0])))
        assert passes < PASSES * BASE.epochs
    if found.factor < 1 and found.factor > LADDER[0]:
        assert found.recipe.epochs >= FEWEST * BASE.epochs


def test_more_time_gives_passes_then_width_and_the_machine_is_asked_little() -> None:
    asked: list[float] = []
    assert fit_time(BASE, 20 / SPARE + 0.1, machine(1.0, asked)).factor == 1.0
    assert asked == [1.0, 1.5]
    long = fit_time(BASE, 1e6, machine(1.0))
    assert long.factor == LADDER[-1] and long.recipe.epochs == 40
    short = fit_time(BASE, 3.0, machine(1.0))
    assert short.factor == 0.5
    assert short.recipe.epochs == int(3.0 * SPARE / 0.25)
    assert fit_time(BASE, 1.5, machine(1.0)).recipe.epochs == 5.5


def test_a_network_without_widths_gets_passes_alone() -> None:
    fixed = Recipe(2, {}, epochs=10, batch=8, lr=0.1, weight_decay=0.0, model="resnet18")
    assert fit_time(fixed, 1e6, lambda of: 1.0).recipe.epochs == 40
    assert fit_time(fixed, 2.5, lambda of: 1.0).recipe.epochs == 2.3


def test_trained_weights_keep_their_width_and_the_head_its_share_of_the_passes() -> None:
    tuning = Tuning(frozen=4, spread=0.01)
    tuned = replace(BASE, tuning=tuning)
    for seconds in (3.0, 7.5, 1e6):
        found = fit_time(tuned, seconds, machine(1.0)).recipe
        assert found.arguments == BASE.arguments
        assert found.tuning == replace(tuning, frozen=4 * found.epochs // BASE.epochs)


def test_threads_are_one_for_small_steps_and_all_again_for_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert [use_threads(macs, 2) for macs in (1000, SMALL_STEP, 1000)] == [1, 2, 1]
        assert use_threads(SMALL_STEP, 2, before=1) == 1 and use_threads(1000, 2, before=2) == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(1, 1, (60,)), (2, 3, (32, 32)), (3, 1, (20, 20, 20)), (1, 1, (8000,))])
def test_a_recipe_comes_back_from_json(shape: tuple) -> None:
    from dataclasses import asdict

    ndim, channels, spatial = shape
    made = recipe(ndim, channels, spatial, 4, 900, 8000.0 if spatial == (8000,) else None)
    assert recipe_from(json.loads(json.dumps(asdict(made)))) == made


def test_a_run_cut_short_ends_at_rate_zero_and_goes_on_from_where_it_was() -> None:
    rates = [bent(0.6, step, 30, 50) for step in range(30, 51)]
    assert rates[0] == 0.6 and rates[-1] == 0.0
    assert rates == pytest.approx([0.6 * (1 - i / 20) for i in range(21)])


def test_a_slow_machine_ends_in_time_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from test_training import RECIPE, same, trainer

    clock = iter(range(0, 10**6, 1))
    monkeypatch.setattr("gridsight.training.loop.time.monotonic", lambda: float(next(clock)))
    rows: list = []
    path = tmp_path / "resume.safetensors"

    def make() -> Trainer:
        return trainer(path, replace(RECIPE, epochs=12), seconds=60.0, events=Events(rows.append), save_every=1e9)

    run = make()
    state = run.fit()
    found = [row for row in rows if row["event"] == "overrun"]
    assert found and "instead of 12" in found[0]["text"]
    assert run.at.epoch == run.at.epochs < 12
    last = [row for row in rows if row["event"] == "epoch"][-1]
    assert last["lr"] < 0.1 * RECIPE.lr
    # what was decided is in the snapshot: a process that goes on from there decides nothing anew
    again = make()
    again.seconds = None
    assert same(again.fit(), state)
    assert again.at.epochs == run.at.epochs
    assert torch.is_tensor(next(iter(state.values())))


def test_a_run_cut_while_its_rate_still_rises_takes_its_whole_course_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_training import RECIPE, trainer

    clock = iter(range(10**6))
    monkeypatch.setattr("gridsight.training.loop.time.monotonic", lambda: float(next(clock)))
    rows: list = []
    run = trainer(None, replace(RECIPE, epochs=100, warmup=0.3), seconds=150.0, events=Events(rows.append))
    run.fit()
    cut = next(row for row in rows if row["event"] == "overrun")
    assert cut["epoch"] < 30  # in the warm-up
    rates = [row["lr"] for row in rows if row["event"] == "epoch"]
    assert max(rates) > 0.7 * RECIPE.lr
    assert rates[-1] < 0.3 * RECIPE.lr


def test_the_time_covers_every_fold_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gridsight.__main__ import main
    from gridsight.verbs import _budget, _phases, _run
    from gridsight.verbs._machine import Speed

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))
    rng, given = np.random.default_rng(0), dict[str, float | None]()
    y = np.arange(60) % 2
    np.savez("data.npz", x=(rng.normal(size=(60, 1, 20)) + y[:, None, None]).astype(np.float32), y=y)

    class Timed(Trainer):
        def __init__(self, *words: object, **options: object) -> None:
            given[options["phase"]] = options["seconds"]  # type: ignore[index,assignment]
            super().__init__(*words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(_phases, "Trainer", Timed)
    # where the plan is chosen the machine looks four times as fast as just before training
    monkeypatch.setattr(_budget, "measure", lambda *words, **options: Speed(0.2, 0.05, 1 << 20, 1))
    monkeypatch.setattr(_run, "measure", lambda *words, **options: Speed(0.8, 0.2, 1 << 20, 1))
    words = ("train", "data.npz", "--axes", "NCL", "--minutes", "0.3", "--no-report", "--check")
    assert main([*words, "--out", "folds", "--folds", "3"]) == 0
    plan = json.loads(Path("folds/plan.json").read_text())
    assert given.pop("check") is None and len(given) == 4
    assert sum(seconds or 0 for seconds in given.values()) == pytest.approx(plan["seconds"])
    assert given["final network"] == pytest.approx(given["fold 1 of 3"] * 3 / 2)  # it trains on all
    assert plan["seconds"] < 18 and plan["seconds_expected"] < plan["seconds"]
    out = capsys.readouterr().out
    assert f"expect   about {plan['seconds_expected']:.0f} s of training, for 4 networks" in out
    assert "in about" not in out
    given.clear()
    assert main([*words, "--out", "one"]) == 0
    limited = {phase: seconds for phase, seconds in given.items() if seconds is not None}
    assert limited == {"training": json.loads(Path("one/plan.json").read_text())["seconds"]}


@pytest.mark.parametrize(
    ("n", "batch", "rate"), [(72, 9, 0.03 * (9 / 256) ** 0.5), (800, 100, 0.03 * 10 / 16), (9000, 256, 0.03)]
)
def test_small_sets_get_at_least_eight_steps_an_epoch(n: int, batch: int, rate: float) -> None:
    found = recipe(2, 3, (32, 32), 10, n, colour=True)
    assert (found.optimizer, found.batch, found.lr) == ("muon", batch, pytest.approx(rate))
    assert recipe(2, 3, (96, 96), 10, 40, colour=True).batch == 8
    series = [recipe(1, 1, (40,), 2, n).lr for n in (40, 900)]
    assert series[0] == series[1]  # AdamW's rate is left


def test_a_shorter_run_keeps_the_share_of_its_frozen_epochs() -> None:
    found = tuned(recipe(2, 3, (96, 96), 10, 100, colour=True), 100)
    assert (found.epochs, found.tuning, found.batch) == (60, Tuning(12, 0.01), 12)
    assert shortened(found, 20).tuning == Tuning(4, 0.01) and shortened(found, 20).epochs == 20
    assert shortened(recipe(1, 1, (100,), 2, 50), 7).tuning is None


def test_a_slow_run_is_cut_by_what_it_has_left_and_small_items_do_not_hide_it() -> None:
    assert epochs_that_fit(BASE, 2, 10, 20.0, 100.0) == 10  # in time
    assert epochs_that_fit(BASE, 2, 10, 30.0, 100.0) == 2 + 4  # 15 s an epoch, 70 s left
    assert epochs_that_fit(BASE, 1, 10, 9.0, 100.0) == 10  # too early to tell
    small = replace(BASE, shrunk=0.4)
    # 4 of 10 epochs at 9/16 of the cells: 2.25 of 8.25; as slow as planned, and half slower
    assert epochs_that_fit(small, 4, 10, 100 * 2.25 / 8.25, 100.0) == 10
    late = epochs_that_fit(small, 4, 10, 150 * 2.25 / 8.25, 100.0)
    assert late == 4 + int((100 - 150 * 2.25 / 8.25) / (150 / 8.25)) < 10
