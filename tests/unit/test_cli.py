"""The command line as a user meets it: train, eval, predict, report and check on real files, good and nasty."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import gridsight
from gridsight.__main__ import main
from gridsight.artifact.model_file import vector_error
from gridsight.core.errors import UsageError
from nasty import build, folders

FAST = ("--epochs", "2", "--no-report")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))


def pictures(root: Path, count: int = 40, size: int = 12) -> Path:
    """Dark and bright pictures, one folder a class."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 120)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            array = rng.integers(low, low + 120, (size, size, 3), dtype=np.uint8)
            Image.fromarray(array).save(root / name / f"{i:03}.png")
    return root


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[Any], str]:
    """Exit code, objects printed with --json, what else was printed."""
    capsys.readouterr()
    code = main([*words, "--json"])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run on dark and light pictures."""
    pictures(tmp_path / "photos")
    return Path(gridsight.train(str(tmp_path / "photos"), out="run", epochs=4, report=True).path)


def test_train_prints_one_object_that_is_also_in_the_run_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pictures(tmp_path / "photos")
    code, printed, prose = run(capsys, "train", "photos", "--out", "run", "--epochs", "4")
    assert code == 0
    (result,) = printed
    assert set(result) == {"task", "n", "skipped", "metrics", "run", "model", "seconds"}
    assert (result["task"], result["n"], result["skipped"]) == ("classify", 16, 0)
    accuracy = result["metrics"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    stored = json.loads(Path("run/result.json").read_text())
    assert {key: stored[key] for key in result} == result
    assert Path(result["model"]).is_file()
    assert Path("run/report.html").read_text().startswith("<!doctype html>")
    for words in ("2 : dark, light", "train 64", "test 16", "parameters", "expect"):
        assert words.replace("2 : ", "2: ") in prose
    assert not list(Path("run").glob(".*.tmp"))


def test_eval_gives_the_figures_of_training_again_and_counts_the_reading(
    capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    first = json.loads((trained / "result.json").read_text())
    code, (again,), _ = run(capsys, "eval", str(trained))
    assert code == 0
    assert again["metrics"] == first["metrics"]
    assert json.loads((trained / "result.json").read_text())["test_reads"] == 2
    for data, said in (((), True), (("photos",), False)):  # other data, whatever they are, are not the run's test part
        assert main(["eval", str(trained), *data]) == 0
        assert ("reading 3 of this test data" in capsys.readouterr().out) is said


def test_eval_of_a_part_without_items_is_refused_in_a_line(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    assert main(["eval", str(trained), "--split", "val"]) == 2
    assert "there is no val part to measure" in capsys.readouterr().err


def test_eval_says_what_goes_on_without_bad_items(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    for name in ("dark", "light", "grey"):
        pictures_of = Path("new") / name
        pictures_of.mkdir(parents=True)
        Image.new("RGB", (12, 12), 90).save(pictures_of / "1.png")
    code, (answer,), _ = run(capsys, "eval", str(trained), "new")
    assert code == 1
    assert "'grey' is none of the model's" in answer["error"] and "--accept-bad measures the others" in answer["error"]
    code, (result,), _ = run(capsys, "eval", str(trained), "new", "--accept-bad")
    assert (code, result["n"], result["skipped"]) == (1, 2, 1)


def test_predicting_a_file_gives_the_probabilities_that_its_cached_copy_gave(trained: Path) -> None:
    stored = np.load(trained / "predictions.npz")
    answers = gridsight.load(trained).predict([str(path) for path in stored["paths"]])
    ours = np.array([[answer["probabilities"][name] for name in ("dark", "light")] for answer in answers])
    assert np.abs(ours - stored["probabilities"]).max() < 1e-5
    assert [answer["label"] for answer in answers] == [("dark", "light")[i] for i in stored["probabilities"].argmax(1)]


def test_arrays_folders_and_lists_give_the_same_answers_as_files(trained: Path) -> None:
    predictor = gridsight.load(trained)
    files = sorted(Path("photos/light").glob("*.png"))[:3]
    arrays = np.stack([np.asarray(Image.open(file)) for file in files])
    by_file = [a["probability"] for a in predictor.predict(list(map(str, files)))]
    for other in (arrays, arrays.transpose(0, 3, 1, 2), list(arrays)):
        assert [a["probability"] for a in predictor.predict(other)] == pytest.approx(by_file, abs=1e-6)
    assert len(predictor.predict("photos")) == 80
    with pytest.raises(UsageError, match="neither one item nor a stack"):
        predictor.predict(np.zeros((5, 12, 12, 4), np.uint8))


def test_predict_prints_a_line_an_item_and_goes_on_after_a_bad_one(
    capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    Path("bad.png").write_bytes(b"nothing")
    code, printed, _ = run(
        capsys, "predict", str(trained), "photos/dark/000.png", "bad.png", "gone.png", "photos/light/000.png"
    )
    assert code == 1
    assert [item.get("label") for item in printed] == ["dark", None, None, "light"]
    said = {"path", "label", "probability", "probabilities"}
    assert set(printed[0]) == said | {"unsure", "reason", "novelty"}
    assert sum(printed[0]["probabilities"].values()) == pytest.approx(1, abs=1e-9)
    assert printed[0]["unsure"] in (True, False)
    assert "no such file" in printed[2]["error"]


@pytest.mark.parametrize("whole", ((), ("--whole", "--overlap", "0")))
def test_an_answer_that_is_not_finite_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, whole: tuple[str, ...]
) -> None:
    """Weights that are finite, and a network that answers only the black picture, whose features are zeros."""
    state = gridsight.create("resnet20", num_classes=2).state_dict()
    state = {key: value.fill_(1e30) if value.ndim == 4 else value for key, value in state.items()}
    torch.save(state, "huge.pth")
    assert main(["import", "huge.pth", "--model", "resnet20", "--size", "12", "--classes", "dark", "light"]) == 0
    for name, level in (("dark", 0), ("light", 200)):
        Path("new", name).mkdir(parents=True)
        Image.new("RGB", (12, 12), (level,) * 3).save(Path("new", name, "1.png"))
    model = "huge.model.safetensors"
    code, printed, _ = run(capsys, "predict", model, "new/light/1.png", "new/dark/1.png", *whole)
    assert code == 1
    assert printed[0].keys() == {"path", "error"} and "answer is not finite" in printed[0]["error"]
    expected = state["linear.bias"].double().softmax(0).tolist()
    assert list(printed[1]["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
    assert main(["predict", model, "new", *whole]) == 1
    assert "1 answered, 0 of them unsure; 1 without an answer" in capsys.readouterr().err
    code, (answer,), _ = run(capsys, "eval", model, "new")
    assert code == 1
    assert "not finite (NaN or infinite) for 1 of 2 items (first: new/light/1.png)" in answer["error"]


def test_the_model_file_answers_its_own_test_vector_and_has_one_metadata_key(trained: Path) -> None:
    from safetensors import safe_open

    assert vector_error(trained / "model.safetensors") == 0
    with safe_open(trained / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert list(metadata) == ["gridsight"]
    text = metadata["gridsight"]
    assert str(Path.cwd()) not in text
    assert text == json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)


def test_a_finished_run_says_so(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    before = (trained / "model.safetensors").read_bytes()
    code, (result,), prose = run(capsys, "resume", str(trained))
    assert code == 0
    assert "finished" in prose
    assert result["n"] == 16
    assert (trained / "model.safetensors").read_bytes() == before


def test_resume_refuses_data_that_have_changed(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    (trained / "result.json").unlink()
    Path("photos/dark/000.png").unlink()
    code, (answer,), _ = run(capsys, "resume", str(trained))
    assert code == 2
    assert "data have changed" in answer["error"]


@pytest.mark.parametrize("kind", ["series", "volume", "sound"])
def test_every_kind_of_data_trains_and_predicts(capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    y = np.arange(40) % 2
    if kind == "sound":
        Path("sounds").mkdir()
        for i, label in enumerate(y):
            t = np.arange(2000 + 40 * i) / 8000
            wave = np.sin(2 * np.pi * (300 if label else 1200) * t) + 0.1 * rng.normal(size=len(t))
            soundfile.write(f"sounds/{'low' if label else 'high'}_{i % 5}_{i}.wav", wave * 0.3, 8000)
        words = ["sounds", "--pattern", "{label}_{speaker}_{take}.wav", "--group", "speaker"]
        new = "sounds/low_1_1.wav"
    else:
        shape = {"series": (40, 2, 50), "volume": (40, 8, 9, 10)}[kind]
        x = rng.normal(size=shape).astype(np.float32)
        x[y == 1, ..., :4] += 3
        np.savez("data.npz", x=x, y=y)
        np.save("new.npy", x[1])
        words, new = ["data.npz"], "new.npy"
    code, (result,), prose = run(capsys, "train", *words, "--out", "run", "--epochs", "8")
    assert code == 0
    assert f": {kind}, " in prose
    assert result["metrics"]["accuracy"]["value"] > 0.7
    code, (answer,), _ = run(capsys, "predict", "run", new)
    assert code == 0
    assert answer["label"] == ("low" if kind == "sound" else "1")


def test_folds_pool_the_answers_for_every_item(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 20)
    code, (result,), _ = run(capsys, "train", "photos", "--out", "run", "--folds", "4", *FAST)
    assert code == 0
    assert result["n"] == 40
    stored = np.load("run/predictions.npz")
    assert len(set(stored["paths"].tolist())) == 40
    assert len(list(Path("run/phases").glob("fold-*"))) == 4


def test_labels_drawn_at_random_are_not_learned(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    """The negative control: with shuffled labels the interval must hold chance, and its answers come with a warning."""
    rng = np.random.default_rng(0)
    np.savez("noise.npz", x=rng.integers(0, 255, (600, 8, 8), dtype=np.uint8), y=rng.integers(0, 2, 600))
    code, (result,), prose = run(capsys, "train", "noise.npz", "--out", "noise", "--epochs", "3", "--no-report")
    found = result["metrics"]["accuracy"]
    assert code == 0 and found["low"] < 0.5 < found["high"]
    assert prose.count("on these data this model is not shown to be better than chance: balanced accuracy") == 1
    code, answers, prose = run(capsys, "predict", "noise", "noise.npz")
    assert (code, len(answers)) == (0, 600)
    assert prose.count("not shown to be better than chance: balanced accuracy") == 1
    assert "guessing gives 50.00 %" in prose
    assert "chance" not in run(capsys, "predict", str(trained), "photos")[2]


def test_every_nasty_file_is_answered_by_predict(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    bank = build(Path("nasty"))
    files = sorted({str(item.path) for item in bank if item.path.suffix.lower() in PICTURES and item.member is None})
    assert len(files) > 60
    code, printed, _ = run(capsys, "predict", str(trained), *files)
    assert code == 1
    found = {item["path"]: item for item in printed}
    for nasty in bank:
        if str(nasty.path) not in files:
            continue
        answer = found.get(str(nasty.path))
        assert answer is not None, nasty.what
        # an image of another depth or more axes than the model's is told so, all else is answered as the bank says
        if nasty.good and nasty.expected[0].dtype == np.uint8 and nasty.expected[0].ndim == 3:
            assert "label" in answer, (nasty.what, answer)
        elif not nasty.good:
            assert answer["error"], nasty.what


PICTURES = {".png", ".jpg", ".gif", ".webp", ".tif", ".bmp", ".pgm", ".pbm"}


@pytest.mark.parametrize(
    "what", ["one item", "empty class", "link loop", "same picture", "1 % bad", "10 % bad", "leak"]
)
def test_folders_that_are_nasty_as_a_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str) -> None:
    made = folders(tmp_path / "sets") | {"leak": tmp_path / "sets" / "leak"}
    code, (result,), prose = run(capsys, "train", str(made[what]), "--out", "run", *FAST)
    said = prose + str(result)
    if what == "10 % bad":
        assert code == 1
        assert "cannot be read" in result["error"]
        assert "bad0.png" in said
        code, (result,), _ = run(capsys, "train", str(made[what]), "--out", "run2", "--accept-bad", *FAST)
        assert (code, result["skipped"]) == (0, 6)
        return
    if what == "1 % bad":  # one of 61 is more than 1 %
        assert code == 1
        return
    assert code == 0, said
    expected = {
        "one item": "single",
        "empty class": "nothing",
        "link loop": "data",
        "same picture": "same",
        "leak": "test",
    }[what]
    assert expected in said


def test_a_closed_pipe_does_not_end_the_training(tmp_path: Path) -> None:
    pictures(tmp_path / "photos")
    command = f"{sys.executable} -m gridsight train photos --out run --epochs 2 --no-report | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=os.environ)
    assert "Traceback" not in done.stderr
    assert Path("run/result.json").exists()


def test_a_full_disk_is_one_line_and_the_run_can_go_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "photos")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", "run/model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr("gridsight.verbs._run.save_model", full)
        code, (answer,), _ = run(capsys, "train", "photos", "--out", "run", *FAST)
    assert code == 1
    assert "No space left on device" in answer["error"]
    assert "gridsight resume run" in answer["error"]
    code, (result,), _ = run(capsys, "resume", "run")
    assert code == 0
    assert result["n"] == 16


def test_imbalanced_data_never_show_accuracy_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 20 == 0).astype(int)
    np.savez("rare.npz", x=(rng.normal(size=(400, 1, 30)) + y[:, None, None]).astype(np.float32), y=y)
    code, _, prose = run(capsys, "train", "rare.npz", "--axes", "NCL", "--out", "run", *FAST)
    assert code == 0
    assert "imbalanced: 1 has 20 items, 0 380" in prose
    assert "balanced accuracy" in prose
    assert "average precision" in prose


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0.0}, "--epochs must be above 0"),
        ({"lr": -1.0}, "--lr must be above 0"),
        ({"folds": 1}, "at least 2"),
        ({"augment": ("flipp",)}, "no augmentation called 'flipp'; did you mean flip"),
        ({"augment": ("flip=x",)}, "is a number"),
        ({"augment": ("shift=7",)}, "takes a strength from 0 to 1"),
        ({"model": "resnet1"}, "no model called 'resnet1'"),
        ({"group": "speaker"}, "speaker"),
        ({"device": "cuda:9"}, "cannot be used here"),
        ({"epoch": 3}, "no setting 'epoch'; did you mean epochs"),
    ],
)
def test_wrong_options_say_what_is_right(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    pictures(tmp_path / "photos", 6)
    with pytest.raises(UsageError, match=message):
        gridsight.train("photos", **options)


def test_eval_refuses_data_that_have_changed_since_training(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    Path("photos/dark/000.png").unlink()
    code, (answer,), _ = run(capsys, "eval", str(trained))
    assert code == 2
    assert "data have changed" in answer["error"]


def test_eval_of_a_container_with_both_parts_measures_the_test_part(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2
    x = (rng.integers(0, 90, (30, 9, 9)) + y[:, None, None] * 150).astype(np.uint8)
    np.savez("both.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    code, (result,), _ = run(capsys, "train", "both.npz", "--out", "run", *FAST)
    assert (code, result["n"]) == (0, 10)
    code, (result,), _ = run(capsys, "eval", "run", "both.npz")
    assert (code, result["n"]) == (0, 10)


def test_two_training_groups_are_too_few_to_calibrate_and_enough_to_train(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sounds").mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        soundfile.write(f"sounds/{'ab'[i % 2]}_{i // 2 % 3}_{i}.wav", rng.normal(size=900) * 0.1 * (1 + i % 2), 8000)
    words = ["sounds", "--pattern", "{label}_{speaker}_{take}.wav", "--group", "speaker"]
    code, _, prose = run(capsys, "train", *words, "--out", "run", *FAST)
    assert code == 0, prose
    assert "no calibration" in prose


def test_a_bad_file_that_was_removed_is_no_longer_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures(tmp_path / "photos")
    bad = tmp_path / "photos" / "dark" / "scan.xyz"
    bad.write_bytes(b"no picture")
    code, _, prose = run(capsys, "train", "photos", "--out", "run1", *FAST)
    assert code == 1
    assert "scan.xyz" in prose
    bad.unlink()
    code, (result,), _ = run(capsys, "train", "photos", "--out", "run2", *FAST)
    assert (code, result["skipped"]) == (0, 0)


def test_axes_that_training_was_told_hold_for_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = rng.normal(size=(40, 12, 10, 3)).astype(np.float32) + y[:, None, None, None]
    np.savez("volumes.npz", x=x, y=y)
    np.save("new.npy", x)
    code, _, _ = run(capsys, "train", "volumes.npz", "--axes", "NHWD", "--out", "run", *FAST)
    assert code == 0
    code, answers, _ = run(capsys, "predict", "run", "new.npy")
    assert code == 0
    stored = np.load("run/predictions.npz")
    rows = [int(str(path).rpartition("[")[2][:-1]) for path in stored["paths"]]
    ours = np.array([[answers[i]["probabilities"][name] for name in "01"] for i in rows])
    assert np.abs(ours - stored["probabilities"]).max() < 1e-5


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "float64"])
def test_arrays_of_any_type_are_answered_as_their_files_are(trained: Path, dtype: str) -> None:
    array = np.asarray(Image.open("photos/light/000.png")).astype(dtype)
    predictor = gridsight.load(trained)
    np.save("one.npy", array)
    by_file, by_array = predictor.predict("one.npy")[0], predictor.predict(array)[0]
    assert {k: v for k, v in by_file.items() if k != "path"} | {"path": ""} == by_array | {"path": ""} or (
        by_file["error"] == by_array["error"]
    )


def test_folds_train_the_model_on_everything(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 20)
    run(capsys, "train", "photos", "--out", "run", "--folds", "4", *FAST)
    plan = json.loads(Path("run/plan.json").read_text())
    assert plan["spec"]["counts"] == {"train": [20, 20], "validation": [0, 0], "test": [0, 0]}


def test_a_model_file_with_missing_parts_is_one_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gridsight.training.snapshot import load_tensors, save_tensors

    tensors, metadata = load_tensors(trained / "model.safetensors")
    for damage in ("spec", "arguments", "front"):
        save_tensors(Path("damaged.safetensors"), tensors, {k: v for k, v in metadata.items() if k != damage})
        code, (answer,), _ = run(capsys, "predict", "damaged.safetensors", "photos")
        assert code == 2
        assert "damaged" in answer["error"]


def test_options_that_would_be_ignored_are_refused(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    code, (answer,), _ = run(capsys, "eval", str(trained), "--group", "speaker")
    assert (code, "belongs to DATA" in answer["error"]) == (2, True)
    with pytest.raises(UsageError, match="not for data that are no sounds"):
        gridsight.train("photos", augment=("time_mask=0.5",))
