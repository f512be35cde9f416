"""README, CONTRIBUTING and docs say what is true: commands parse, links lead somewhere, the examples work."""

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gridsight
from gridsight.core.settings import parse, to_toml
from gridsight.verbs import VERBS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def commands(text: str) -> list[list[str]]:
    """Every `gridsight VERB ...` in the code blocks, comments cut off."""
    found = []
    for block in re.findall(r"```(?:\w*)\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^\$ ", "", line.strip())
            if line.startswith("gridsight ") and not line.startswith("gridsight VERB"):
                found.append(shlex.split(line.split("  ")[0].split(" > ")[0].split(" | ")[0], comments=True)[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_parses(page: Path) -> None:
    for verb, *words in commands(page.read_text(encoding="utf-8")):
        kind = VERBS.get(verb).tags["settings"]
        assert isinstance(parse(kind, verb, words), kind)


def test_every_example_in_the_help_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = 0
    for entry in VERBS.entries():
        text = (entry.tags["settings"].__doc__ or "").replace("\\\n", " ")
        for line in text.partition("examples:")[2].splitlines():
            line = line.strip()
            if not line.startswith("gridsight "):
                continue
            words = shlex.split(line.split("  ")[0].split(" > ")[0])[1:]
            kind = VERBS.get(words[0]).tags["settings"]
            if "--settings" in words:  # the file that an earlier run of the same verb has left
                stored = Path(words[words.index("--settings") + 1])
                stored.parent.mkdir(parents=True, exist_ok=True)
                stored.write_text(to_toml(kind("photos")), encoding="utf-8")
            assert isinstance(parse(kind, words[0], words[1:]), kind)
            seen += 1
        assert "examples:" in text, f"{entry.name} has no examples"
    assert seen > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_names_the_two_commands_and_the_make_targets_exist() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", readme):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "make demo" in readme
    assert "make test" in readme


def _example(page: str, kind: str) -> str:
    blocks = re.findall(rf"```python {kind}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


@pytest.mark.parametrize(
    ("page", "kind", "place", "contract", "name"),
    [
        ("CONTRIBUTING.md", "model", "models/allconv.py", "test_models.py", "allconv"),
        ("CONTRIBUTING.md", "reader", "data/readers/xyzw.py", "test_readers.py", "xyzw"),
        ("docs/models.md", "nin", "models/nin.py", "test_models.py", "nin_cifar"),
    ],
    ids=("allconv", "xyzw", "nin"),
)
def test_the_examples_of_the_pages_pass_their_contract(
    tmp_path: Path, page: str, kind: str, place: str, contract: str, name: str
) -> None:
    shutil.copytree(ROOT / "src" / "gridsight", tmp_path / "src" / "gridsight")
    (tmp_path / "src" / "gridsight" / place).write_text(_example(page, kind), encoding="utf-8")
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    command = [sys.executable, "-m", "pytest", "-q", "-k", name, "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(
        [*command, f"tests/contract/{contract}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{tmp_path / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= 5
    ruff = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--config",
            str(ROOT / "pyproject.toml"),
            str(tmp_path / "src" / "gridsight" / place),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ruff.returncode == 0, ruff.stdout


def test_doctests_of_every_module_hold() -> None:
    tried = 0
    for module in pkgutil.walk_packages(gridsight.__path__, "gridsight."):
        if module.name.endswith("__main__"):
            continue
        result = doctest.testmod(importlib.import_module(module.name))
        assert result.failed == 0, module.name
        tried += result.attempted
    assert tried >= 5


def test_public_functions_say_what_they_compute() -> None:
    import ast

    silent = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            if path.read_text(encoding="utf-8").strip():
                silent.append(str(path))
            continue
        silent += [
            f"{path.name}:{node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    assert silent == []


def test_constraints_pin_releases_and_nothing_of_this_machine() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line), line
