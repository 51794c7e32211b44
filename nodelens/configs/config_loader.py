"""Reading a configuration file: every mistake is told with its file, line, key and value."""

from __future__ import annotations

import types
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nodelens.configs.document import Document, Path, Place, dotted, write_yaml
from nodelens.configs.schema import EXPERIMENT_ALIASES, Config
from nodelens.errors import ConfigError, nearest

__all__ = ["dump_config", "load_config", "parse_config", "read_text"]

_MOST_TOLD = 20

_PLAIN_WORDS = {"a valid tuple": "a list", "a valid integer": "a whole number", "valid ": ""}


def load_config(path: str | FilePath, overrides: Iterable[str | tuple[str, object]] = ()) -> Config:
    """Return the configuration in the YAML file at `path`.

    `overrides` are `"key.sub=value"` texts, the value read as YAML, or `(key, value)` pairs; they
    win over the file. `${NAME:-default}` in a value is taken from the environment.
    """
    return parse_config(read_text(path), overrides, source=str(path))


def read_text(path: str | FilePath) -> str:
    """Return the text of a file; ConfigError, with the nearest name, when there is none."""
    try:
        return FilePath(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file{_nearest_file(path)}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{_shortened(str(path), 200)}: cannot be read as UTF-8 text: {error}"
        ) from error


def parse_config(
    text: str,
    overrides: Iterable[str | tuple[str, object]] = (),
    *,
    source: str = "configuration",
) -> Config:
    """Return the configuration in `text`; errors call it `source`."""
    document = Document.from_text(text, source)
    for override in overrides:
        if isinstance(override, str):
            document.override_text(override)
        else:
            document.override(*override)
    if document.data is None:
        raise ConfigError(f"{source}: is empty; expected the sections {_names(Config)}")
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(error, document))) from error
    config._source = document
    return config


def dump_config(config: Config) -> str:
    """Return the configuration as YAML with every default written out; it loads to the same."""
    return write_yaml(config.model_dump(mode="json"))


def _problems(error: ValidationError, document: Document) -> list[str]:
    """Return one line for every mistake, in the order of the file, and how many are left out."""
    mistakes = error.errors()
    # What follows from a mistake further in, such as a list with no valid item left, is not told.
    for mistake in mistakes:
        mistake["loc"] = mistake.get("ctx", {}).get("path", mistake["loc"])
    outer = {cause["loc"][:end] for cause in mistakes for end in range(len(cause["loc"]))}
    placed = [(_place(m, document), m) for m in mistakes if m["loc"] not in outer]
    placed.sort(key=lambda entry: entry[0].line or 0)
    told = [
        f"{place}: {_shortened(dotted(m['loc']) or 'file')}: {_explain(m)}"
        for place, m in placed[:_MOST_TOLD]
    ]
    more = len(placed) - len(told)
    return [*told, *([f"and {more} more mistakes"] if more else [])]


def _place(details: ErrorDetails, document: Document) -> Place:
    path = details["loc"]
    return document.place(path[:-1] if details["type"] == "missing" else path)


def _explain(details: ErrorDetails) -> str:
    path, value, kind = details["loc"], details["input"], details["type"]
    if kind == "extra_forbidden":
        valid = _valid_keys(path[:-1])
        hint = nearest(str(path[-1]), valid) or _elsewhere(str(path[-1]))
        return f"unknown key (value {_shown(value)}){hint}, expected one of {', '.join(valid)}"
    if kind == "missing":
        return f"missing, expected {_describe(path)}"
    if kind == "misplaced":
        return str(details["msg"])
    if kind == "value_error":
        return str(details["ctx"]["error"])
    if kind == "literal_error":
        valid = _choices(path)
        return f"{_shown(value)}, expected {_either(valid)}{nearest(str(value), valid)}"
    if kind in ("string_pattern_mismatch", "model_type", "dict_type"):
        return f"{_shown(value)}, expected {_describe(path)}"
    if kind == "too_short":
        return f"{_shown(value)}, expected a list that is not empty"
    if kind == "tuple_type" and isinstance(value, (str, int, float)):
        return f"{_shown(value)}, expected a list, such as [{value}]"
    expected = details["msg"].removeprefix("Input should be ")
    for theirs, ours in _PLAIN_WORDS.items():
        expected = expected.replace(theirs, ours)
    return f"{_shown(value)}, expected {expected}"


def _elsewhere(key: str) -> str:
    """Return a hint at the first section that has the key, as where a line is not indented."""
    sections = ((name, _section_type((name,))) for name in Config.model_fields)
    found = (name for name, section in sections if section and key in section.model_fields)
    name = next(found, None)
    return f" (did you mean '{name}.{key}'?)" if name else ""


def _shown(value: object) -> str:
    return _shortened(repr(value))


def _shortened(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _either(values: list[str]) -> str:
    quoted = [repr(value) for value in values]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))


def _valid_keys(path: Path) -> list[str]:
    section = _section_type(path)
    return list(section.model_fields) if section is not None else []


def _describe(path: Path) -> str:
    """Return what belongs at `path`, from the first line of the field's docstring."""
    outer = _section_type(path[:-1]) if path else None
    field = outer.model_fields.get(str(path[-1])) if outer is not None else None
    if field is not None and field.description:
        return field.description.partition("\n")[0].rstrip(".")
    inner = _section_type(path)
    return f"a section with {_names(inner)}" if inner is not None else "a value"


def _names(section: type[BaseModel]) -> str:
    return ", ".join(section.model_fields)


def _choices(path: Path) -> list[str]:
    """Return the words allowed at `path`, aliases of experiment types included."""
    found = [str(word) for word in _literals(_annotation(path))]
    return [*found, *EXPERIMENT_ALIASES] if path == ("experiment", "type") else found


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for inner in get_args(annotation) for word in _literals(inner)]


def _annotation(path: Path) -> Any:
    """Return the declared type of the value at `path`, or None where the schema has none."""
    annotation: Any = Config
    for part in path:
        sections = _sections(annotation)
        if isinstance(part, int):
            continue
        fields = sections[0].model_fields if sections else {}
        if part not in fields:
            return None
        annotation = fields[part].annotation
    return annotation


def _section_type(path: Path) -> type[BaseModel] | None:
    sections = _sections(_annotation(path))
    return sections[0] if sections else None


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated, tuple):
        return [section for inner in get_args(annotation) for section in _sections(inner)]
    return []


def _nearest_file(path: str | FilePath) -> str:
    folder = FilePath(path).parent
    if not folder.is_dir():
        return f", nor a folder {str(folder)!r}"
    return nearest(FilePath(path).name, (file.name for file in folder.glob("*.y*ml")))
