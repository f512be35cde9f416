"""Settings, registry, run folder, console and the command line's first second."""

import ast
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from gridsight.core import seed
from gridsight.core.console import Console, dumps
from gridsight.core.errors import UsageError, nearest
from gridsight.core.registry import Registry
from gridsight.core.run import RunFolder, atomic_write
from gridsight.core.settings import argument, from_toml, make, option, parse, to_toml, toml_values
from gridsight.data.augment import AUGMENTS
from gridsight.data.readers import READERS
from gridsight.data.sets import SETS
from gridsight.models import MODELS
from gridsight.tasks import TASKS
from gridsight.training.methods import METHODS
from gridsight.verbs import VERBS

PACKAGE = Path(__file__).parents[2] / "src" / "gridsight"


@dataclass(frozen=True)
class Example:
    """Do something.

    examples:
      gridsight do this
    """

    data: str = argument("what")
    rest: tuple[str, ...] = argument("more", default=())
    epochs: int | None = option(None, "passes, 100 % of them")
    lr: float = option(0.1, "rate")
    kind: Literal["a", "b"] = option("a", "kind")
    fast: bool = option(False, "be fast")
    name: str = option('quote " and \\ backslash', "a name")


def test_words_toml_and_python_give_equal_settings() -> None:
    parsed = parse(Example, "do", ["x", "y", "z", "--epochs", "3", "--lr", "1", "--kind", "b", "--fast"])
    assert parsed == Example("x", ("y", "z"), 3, 1.0, "b", True)
    assert from_toml(Example, to_toml(parsed), "file") == parsed
    assert (
        make(Example, {"data": Path("x"), "rest": ["y", "z"], "epochs": 3, "lr": 1, "kind": "b", "fast": True}, "p")
        == parsed
    )


def test_stored_settings_are_defaults_that_words_override(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(Example("x", epochs=3, fast=True)), encoding="utf-8")
    again = parse(Example, "do", ["--settings", str(file), "--epochs", "5", "--no-fast"])
    assert again == Example("x", epochs=5, fast=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--epoch", "3"], "'--epoch'; did you mean --epochs?"),
        (["x", "--epochs", "three"], "--epochs: invalid int value: 'three'"),
        (["x", "--kind", "c"], "--kind: invalid choice: 'c'"),
        ([], "required: DATA"),
        (["x", "--settings", "missing.toml"], "no settings file"),
    ],
)
def test_wrong_words_are_one_line_that_names_what_is_right(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(Example, "do", words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": "x", "epoch": 1}, "no setting 'epoch'; did you mean epochs?"),
        ({"data": "x", "epochs": "1"}, "epochs must be int, not '1'"),
        ({"data": "x", "epochs": True}, "epochs must be int"),
        ({"data": "x", "kind": "c"}, "kind is 'c'"),
        ({}, "needs data"),
        ({"data": None}, "data may not be empty"),
    ],
)
def test_wrong_values_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(Example, values, "here")


def test_registry_refuses_duplicates_unknown_names_and_unknown_arguments() -> None:
    registry = Registry("thing", "gridsight.tasks")
    registry._loaded = True
    registry.register({"small": {"size": 1}, "large": {"size": 9}})(lambda size=0, *, colour="red": (size, colour))
    assert registry.create("large") == (9, "red")
    assert registry.create("large", size=3, colour="blue") == (3, "blue")
    with pytest.raises(ValueError, match="two things are called 'small'"):
        registry.register("small")(print)
    with pytest.raises(UsageError, match="no thing called 'smal'; did you mean small"):
        registry.get("smal")
    with pytest.raises(UsageError, match="thing small has no argument 'color'; did you mean colour"):
        registry.create("small", color="blue")


@pytest.mark.parametrize("registry", [MODELS, READERS, SETS, AUGMENTS, TASKS, METHODS, VERBS], ids=lambda r: r.kind)
def test_names_in_the_source_are_the_registered_names(registry: Registry) -> None:
    fresh = Registry(registry.kind, registry.package)
    assert fresh.names_in_source() == set(registry.names())
    assert registry.names()


def test_hash_is_uniform_independent_and_the_same_for_any_batch() -> None:
    items = torch.arange(20_000)
    u = seed.uniform(1, 2, items, "shift", 3)
    assert torch.equal(u[100:200], seed.uniform(1, 2, items[100:200], "shift", 3))
    counts = torch.histc(u, 20, 0, 1)
    # chi square with 19 degrees of freedom stays under 43.8 with probability 0.999
    assert float(((counts - 3000) ** 2 / 3000).sum()) < 43.8
    other = [
        seed.uniform(2, 2, items, "shift", 3),
        seed.uniform(1, 3, items, "shift", 3),
        seed.uniform(1, 2, items, "flip", 3),
    ]
    for v in other:
        assert abs(float(torch.corrcoef(torch.stack([u[:, 0], v[:, 0]]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(u.T)[0, 1])) < 0.03


def test_permutations_are_permutations_and_differ_by_epoch_and_seed() -> None:
    first = seed.permutation(0, 0, 1000)
    assert sorted(first) == list(range(1000))
    for other in (seed.permutation(0, 1, 1000), seed.permutation(1, 0, 1000)):
        assert np.mean(first == other) < 0.02


def test_a_hash_is_the_same_in_another_process() -> None:
    code = "from gridsight.core import seed; print(seed.key('a', 1), seed.permutation(3, 4, 9).tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.split(" ", 1) == [str(seed.key("a", 1)), f"{seed.permutation(3, 4, 9).tolist()}\n"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        atomic_write(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_run_folders_count_up_and_never_overwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(RunFolder.create(None, "digits").path) for _ in range(2)] == ["runs/digits-1", "runs/digits-2"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        RunFolder.create("mine", "digits")
    with pytest.raises(UsageError, match="no run at"):
        RunFolder.open("nowhere")
    with pytest.raises(UsageError, match=r"no settings\.toml"):
        RunFolder.open("mine")


def test_a_run_has_one_process_at_a_time(tmp_path: Path) -> None:
    run = RunFolder.create(str(tmp_path / "run"), "x")
    with run.lock(), pytest.raises(UsageError, match="another process"), run.lock():
        pass


def test_a_metrics_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    run = RunFolder.create(str(tmp_path / "run"), "x")
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"st', encoding="utf-8")
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]


def test_json_has_no_nan_and_sorted_keys() -> None:
    text = dumps({"b": float("nan"), "a": [np.float32(0.5), float("inf")], "ü": np.arange(2)})
    assert text == '{"a": [0.5, null], "b": null, "ü": [0, 1]}'
    assert json.loads(text)["b"] is None


def test_names_that_are_not_utf8_are_json_toml_and_prose(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode(b"caf\xe9 \\udce9 \x7f s\xc3\xbc\xc3\x9f")
    text = dumps({"classes": [name], name: "ü"})
    assert text.encode().decode() == text and "ü" in text
    assert json.loads(text) == {"classes": [name], name: "ü"}
    settings = Example(name, (name, "é89", "0\u00e9"), name=os.fsdecode(bytes(range(0x80, 0x100))))
    atomic_write(tmp_path / "settings.toml", to_toml(settings))
    stored = (tmp_path / "settings.toml").read_text(encoding="utf-8")
    assert from_toml(Example, stored, "file") == settings
    assert toml_values(stored, "file")["data"] == name
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "utf-8", "strict", write_through=True))
        Console().say(name)
        written = sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
    assert written.decode() == "caf\\udce9 \\udce9 \x7f süß\n"
    with pytest.raises(UsageError, match=r"r\\udce9' is not UTF-8, as the paths of model files must be"):
        RunFolder.create(str(tmp_path / "r\udce9"), "x")


def test_prose_leaves_standard_output_to_json(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json=True)
    console.say("prose")
    console.emit({"n": 1})
    out, err = capsys.readouterr()
    assert (out, err) == ('{"n": 1}\n', "prose\n")


def test_nearest_lists_all_when_nothing_is_close() -> None:
    assert nearest("zzz", ["one", "two"]) == "known: one, two"
    assert nearest("zzz", ["one", "two"], otherwise="see there") == "see there"


def test_nearest_knows_names_in_other_letters() -> None:
    assert nearest("Resnet18", ["resnet18", "resnet101"]) == "did you mean resnet18?"
    assert nearest("mnits", ["MNIST", "digits"], 1) == "did you mean MNIST?"


ALLOWED = {
    "core": {"core"},
    "nn": {"core", "nn"},
    "models": {"core", "nn", "models"},
    "data": {"core", "nn", "data"},
    "measure": {"core", "nn", "data", "measure"},
    "attribution": {"core", "nn", "measure", "attribution"},
    "inside": {"core", "nn", "measure", "inside"},
    "tasks": {"core", "nn", "data", "measure", "tasks"},
    "training": {"core", "nn", "data", "measure", "tasks", "training"},
    "artifact": {"core", "nn", "models", "data", "measure", "tasks", "training", "artifact"},
    "reporting": {"core", "data", "measure", "attribution", "inside", "artifact", "reporting"},
}


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gridsight"):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("gridsight.")}
    return names


def test_a_folder_imports_only_folders_above_it() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts[0]
        for name in _imports(path):
            part = name.split(".")[1] if "." in name else ""
            if folder in ALLOWED and part and part not in ALLOWED[folder]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_files_of_a_registered_folder_do_not_import_each_other() -> None:
    wrong = []
    for folder in ("models", "data/readers", "data/sets", "data/augment", "tasks", "training/methods", "attribution"):
        package = "gridsight." + folder.replace("/", ".")
        for path in (PACKAGE / folder).glob("[!_]*.py"):
            wrong += [
                f"{path.name} imports {name}"
                for name in _imports(path)
                if name.startswith(package + ".") and not name.rpartition(".")[2].startswith("_")
            ]
    assert wrong == []


def test_long_files_state_their_reason() -> None:
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 400 or "lines:" in "\n".join(lines[:12]), f"{path} has {len(lines)} lines"


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_package_imports_neither_torch_nor_numpy() -> None:
    found = _python("import sys, gridsight; print([m for m in ('torch', 'numpy', 'sklearn') if m in sys.modules])")
    assert found.stdout == "[]\n", found.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--help"], 0, ""),
        (["train", "--help"], 0, ""),
        (["trian"], 2, "gridsight: there is no verb called 'trian'; did you mean train?"),
        (["train", "digits", "--epoch", "3"], 2, "did you mean --epochs or"),
        (["train", "digits", "--model", "resnet81"], 2, "no model called 'resnet81'; did you mean"),
        (["train", "digist"], 2, "digits"),
        (["--json", "train"], 2, "the verb comes first"),
        (["predict", "nowhere", "x.png"], 2, "nowhere"),
    ],
)
def test_wrong_use_is_one_line_exit_code_two_and_needs_no_torch(words: list[str], code: int, message: str) -> None:
    script = (
        "import sys; from gridsight.__main__ import main; code = main({words!r}); "
        "print('torch' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    found = _python(script.format(words=words))
    lines = found.stderr.strip().splitlines()
    assert found.returncode == code, found.stderr
    if words[0] != "predict":
        assert lines[-1] == "False", "torch was imported"
    if code:
        assert len(lines) == 2, found.stderr
        assert message in lines[0]
    else:
        assert "examples:" in found.stdout
