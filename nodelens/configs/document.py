"""YAML text as plain values that remember where they stand; the only file that imports YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import yaml

from nodelens.errors import ConfigError

__all__ = ["OVERRIDE", "Document", "Path", "Place", "dotted", "write_yaml"]

Path = tuple[str | int, ...]

# `${NAME}`, `${NAME:default}`, and as in a shell `${NAME:-default}`; or the beginning of one.
_VARIABLE = re.compile(r"\$\{(?:(?P<name>[A-Za-z_]\w*)(?::-?(?P<default>[^}]*))?\})?")

_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_DEEPEST = 50
_PLAINER = {
    "mapping values are not allowed here": "a second ':' in one entry; expected a line indented as"
    " its neighbours, or quotes around text that has ': ' in it",
    "found character '\\t' that cannot start any token": "a tab, expected spaces",
    "expected <block end>": "indented unlike the other lines of its section",
    "but found another document": "a second document, behind '---'; expected one",
}
"""What PyYAML says of the most usual slips, in other words."""
_KINDS = {"float": "number", "int": "whole number", "bool": "true or false"}
_PLAIN = ("bool", "float", "int", "map", "null", "seq", "str")
_UNREADABLE = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
"""What PyYAML raises for a date, number or truth value that is none."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `1e-3` as a number, and refuses aliases and bottomless nesting.

    Aliases let a few lines unfold into gigabytes, and would blur which line a value is on.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"alias *{alias.anchor}: a configuration writes every value out",
                problem_mark=alias.start_mark,
            )
        if self._depth == _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"lists or sections more than {_DEEPEST} deep",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _UNREADABLE as failure:
            tag = node.tag.rpartition(":")[2]
            kind = _KINDS.get(tag, tag)
            raise yaml.MarkedYAMLError(
                problem=f"{str(node.value)[:40]!r} is no {kind}", problem_mark=node.start_mark
            ) from failure


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Place:
    """Where a value is written: a file and line, or an override (which has no line)."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}, line {self.line}"


OVERRIDE = Place("override")
"""Where a value stands that was given beside the file."""


@dataclass
class Document:
    """The values of a configuration and the place of each.

    >>> document = Document.from_text("training:\\n  epochs: 3\\n", "small.yaml")
    >>> document.data, str(document.place(("training", "epochs")))
    ({'training': {'epochs': 3}}, 'small.yaml, line 2')
    """

    source: Place
    has_lines: bool = True
    data: Any = None
    places: dict[Path, Place] = field(default_factory=dict)

    @classmethod
    def from_text(cls, text: str, source: str) -> Document:
        """Return the document that `text` holds; `source` is the name that errors call it by."""
        document = cls(Place(source))
        document.data = document._parse(text)
        return document

    def override(self, key: str, value: object) -> None:
        """Set the value at the dotted `key`, making sections on the way; items go by number."""
        if self.data is None:
            self.data = {}
        path: Path = ()
        section: Any = self.data
        *outer, last = key.split(".")
        if len(outer) >= _DEEPEST:
            raise ConfigError(f"override {key[:40]!r}: a key of more than {_DEEPEST} parts")
        for part in outer:
            step = _step(section, part, path)
            path = (*path, step)
            if isinstance(section, dict) and section.get(step) is None:
                section[step] = {}
            section = section[step]
        step = _step(section, last, path)
        section[step] = value
        path = (*path, step)
        self.places = {at: place for at, place in self.places.items() if at[: len(path)] != path}
        self.places[path] = OVERRIDE

    def override_text(self, assignment: str) -> None:
        """Apply `key.sub=value`, the value read as YAML (`0.5`, `true`, `[low, high]`)."""
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {assignment[:80]!r} is not of the form key.sub=value")
        typed = Document(Place(f"override {assignment[:80]!r}"), has_lines=False)
        self.override(key.strip(), typed._parse(text))

    def place(self, path: Path) -> Place:
        """Return where the value at `path`, or the nearest section around it, is written."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return self.source

    def _parse(self, text: str) -> Any:
        loader = None
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            if node is None:
                return None
            self._visit(loader, node, ())
            return loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            place = self._at(error.problem_mark) if error.problem_mark else self.source
            raise ConfigError(f"{place}: not valid YAML: {_problem(error)}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{self.source}: not valid YAML: {error}") from error
        finally:
            if loader is not None:
                loader.dispose()

    def _visit(self, loader: _Loader, node: yaml.Node, path: Path) -> None:
        """Note the line of `node` and of everything in it, and fill in environment variables."""
        place = self._at(node.start_mark)
        self.places.setdefault(path, place if path else self.source)
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(loader, node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._visit(loader, item, (*path, index))
        elif isinstance(node, yaml.ScalarNode) and "${" in node.value:
            at = f"{place}: {dotted(path)}" if path else str(place)
            node.value = _VARIABLE.sub(lambda match: _from_environment(match, at), node.value)
            if node.style is None:
                node.tag = loader.resolve(  # type: ignore[no-untyped-call]
                    yaml.ScalarNode, node.value, (True, False)
                )
        _check_plain(loader, node, path, place)

    def _visit_mapping(self, loader: _Loader, node: yaml.MappingNode, path: Path) -> None:
        seen: dict[str, Place] = {}
        for key, value in node.value:
            place = self._at(key.start_mark)
            if key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or section"
                raise ConfigError(f"{place}: the key {shown} is not text; put it in quotes")
            if key.value in seen:
                shown = dotted((*path, key.value))
                raise ConfigError(f"{place}: {shown}: given twice, first in {seen[key.value]}")
            _check_writable(key.value, place)
            seen[key.value] = place
            self.places[(*path, key.value)] = place
            self._visit(loader, value, (*path, key.value))

    def _at(self, mark: yaml.Mark) -> Place:
        return Place(self.source.source, mark.line + 1) if self.has_lines else self.source


def dotted(path: Path) -> str:
    """Return a path as it is typed in an override.

    >>> dotted(("lenses", 0, "relative"))
    'lenses.0.relative'
    """
    return ".".join(str(part) for part in path)


def write_yaml(data: Mapping[str, Any]) -> str:
    """Return `data` as YAML text, in the order given."""
    return str(yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=100))


def _problem(error: yaml.MarkedYAMLError) -> str:
    """Return what is wrong with YAML, and the line in which that began if it is another."""
    said = str(error.problem or error.context)
    for theirs, ours in _PLAINER.items():
        if said.startswith(theirs):
            return ours
    ended, begun = error.problem_mark, error.context_mark
    if begun is None or ended is None or begun.line == ended.line:
        return said
    return f"{said} ({error.context}, from line {begun.line + 1})"


def _step(section: Any, part: str, path: Path) -> str | int:
    """Return `part` as a key or index of `section`, which stands at `path`."""
    if isinstance(section, dict):
        return part
    shown = dotted(path)
    if not isinstance(section, list):
        raise ConfigError(
            f"override: {shown} is {section!r}, not a section: it has no {part[:80]!r}"
        )
    if part not in map(str, range(len(section))):
        raise ConfigError(
            f"override: {shown} has no item {part[:80]!r}, expected 0 to {len(section) - 1}"
        )
    return int(part)


def _check_plain(loader: _Loader, node: yaml.Node, path: Path, place: Place) -> None:
    home, _, kind = node.tag.rpartition(":")
    if home != "tag:yaml.org,2002" or kind not in _PLAIN:
        raise ConfigError(
            f"{place}: {dotted(path)}: a value of the kind {node.tag!r}, expected text, a number,"
            " true, false, null, a list or a section; put a date in quotes"
        )
    if isinstance(node, yaml.ScalarNode):
        _check_writable(node.value, place)
    if kind == "float" and not isfinite(number := loader.construct_object(node)):
        raise ConfigError(f"{place}: {dotted(path)}: {number}, expected a finite number")


def _check_writable(text: str, place: Place) -> None:
    if found := _UNWRITABLE.search(text):
        raise ConfigError(f"{place}: the character {found[0]!r} stands in no file name or text")


def _from_environment(match: re.Match[str], place: str) -> str:
    """Return what a variable stands for; `place` names file, line and key."""
    name, default = match["name"], match["default"]
    if name is None:
        raise ConfigError(
            f"{place}: after '${{' stands no variable's name and '}}'; expected ${{NAME}} or"
            " ${NAME:-value}"
        )
    value = os.environ.get(name, default)
    if value is None:
        raise ConfigError(
            f"{place}: the environment variable {name} is not set, and {match[0]} has no default"
            f" (write ${{{name}:-value}})"
        )
    return value
