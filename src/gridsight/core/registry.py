"""One registry class for every kind of item: models, readers, named data sets, augmentations, tasks, methods.

An item is a class or function in a file of its own; discovery is by directory, so adding a file is the only edit.
Third parties join through the entry-point group of the same name as the package (`gridsight.models`, ...).
Known names are read from the source without running it, so that a wrong name is answered before torch is imported.
"""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gridsight.core.errors import UsageError, nearest


@dataclass(frozen=True)
class Entry:
    """A registered item: `item(**arguments)` builds the variant `name`; `tags` hold what its contract asks for."""

    name: str
    item: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)


class Registry:
    """Items of one `kind` that live one a file in the package `package`; files starting with `_` are skipped."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def register(self, names: str | Mapping[str, Mapping[str, Any]], **tags: Any) -> Callable[[Any], Any]:
        """Decorator: enter an item under one name, or under several, each with its own constructor arguments."""
        variants: Mapping[str, Mapping[str, Any]] = {names: {}} if isinstance(names, str) else names

        def enter(item: Any) -> Any:
            for name, arguments in variants.items():
                if name in self._entries:
                    raise ValueError(f"two {self.kind}s are called {name!r}: {self._entries[name].item} and {item}")
                self._entries[name] = Entry(name, item, dict(arguments), dict(tags))
            return item

        return enter

    def names(self) -> list[str]:
        """Every name, sorted; imports every file of the package."""
        self._load()
        return sorted(self._entries)

    def entries(self) -> list[Entry]:
        """Every entry, sorted by name."""
        return [self._entries[name] for name in self.names()]

    def families(self) -> list[list[Entry]]:
        """Entries grouped by the item that builds them: one group a class or function."""
        groups: dict[int, list[Entry]] = {}
        for entry in self.entries():
            groups.setdefault(id(entry.item), []).append(entry)
        return list(groups.values())

    def get(self, name: str) -> Entry:
        """The entry called `name`; an unknown name is a `UsageError` with the nearest ones."""
        self._load()
        if name not in self._entries:
            raise self._unknown(name, self._entries)
        return self._entries[name]

    def create(self, name: str, **arguments: Any) -> Any:
        """Build the item `name`; an unknown argument is a `UsageError` with the nearest ones."""
        entry = self.get(name)
        known = [p.name for p in inspect.signature(entry.item).parameters.values() if p.kind != p.VAR_KEYWORD]
        for argument in arguments:
            if argument not in known:
                raise UsageError(f"{self.kind} {name} has no argument {argument!r}; {nearest(argument, known)}")
        return entry.item(**{**entry.arguments, **arguments})

    def accepts(self, name: str, argument: str) -> bool:
        """Whether the item `name` is built with an argument of that name."""
        return argument in inspect.signature(self.get(name).item).parameters

    def require(self, name: str) -> None:
        """Refuse an unknown name without importing the package's files (no torch): names come from the source."""
        if not self._loaded and entry_points(group=self.package):
            self._load()  # what third parties register is known only when they have
        known = set(self._entries) if self._loaded else self.names_in_source()
        if name not in known:
            raise self._unknown(name, known)

    def names_in_source(self) -> set[str]:
        """Names given literally to `register`, or as the keys of a literal dict assigned in the same file."""
        names: set[str] = set(self._entries)
        for path in self._files():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            tables = {
                target.id: node.value
                for node in tree.body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "register":
                    first = node.args[0]
                    names |= _literal_names(tables.get(first.id, first) if isinstance(first, ast.Name) else first)
        return names

    def _unknown(self, name: str, known: Iterable[str]) -> UsageError:
        return UsageError(f"there is no {self.kind} called {name!r}; {nearest(name, known)}")

    def _files(self) -> list[Path]:
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return []
        folder = Path(next(iter(spec.submodule_search_locations)))
        return sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))

    def _load(self) -> None:
        if self._loaded:
            return
        for path in self._files():
            importlib.import_module(f"{self.package}.{path.stem}")
        for point in entry_points(group=self.package):
            point.load()
        self._loaded = True


def _literal_names(node: ast.AST) -> set[str]:
    """The string itself, or the keys of a dict display or of a dict built by `|` from several."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.Dict):
        return {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return set()
