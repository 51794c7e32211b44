"""The schema of configurations as JSON Schema, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from nodelens.configs.schema import EXPERIMENT_ALIASES, Config

__all__ = ["json_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FROM_ENVIRONMENT = {"type": "string", "pattern": r"\$\{"}
_TYPED = ("integer", "number", "boolean")


def json_schema() -> dict[str, Any]:
    """Return what a configuration may hold, as JSON Schema (draft 2020-12).

    It allows what the loader does: aliases of experiment types, lenses by their bare name, and a
    variable of the environment where a number stands.
    """
    schema = Config.model_json_schema()
    sections = schema["$defs"]
    sections["ExperimentConfig"]["properties"]["type"]["enum"] += list(EXPERIMENT_ALIASES)
    named_lists = (schema, "lenses"), (sections["PruningSection"], "strategies")
    for section, key in named_lists:
        entry = section["properties"][key]
        entry["items"] = {"anyOf": [{"type": "string"}, entry["items"]]}
    for section in (schema, *sections.values()):
        named = section["properties"]
        section["properties"] = {name: _open(value) for name, value in named.items()}
    return {"$schema": _DIALECT, **schema, "title": "A nodelens experiment"}


def _open(value: Any) -> Any:
    """Return a schema that takes `${NAME}` as well where it asks for a number."""
    if not isinstance(value, dict):
        return value
    inner = {key: _open(part) for key, part in value.items() if key in ("items",)}
    choices = [_open(choice) for choice in value.get("anyOf", ())]
    opened = {**value, **inner, **({"anyOf": choices} if choices else {})}
    if value.get("type") not in _TYPED:
        return opened
    told = {key: opened.pop(key) for key in ("default", "description", "title") if key in opened}
    return {**told, "anyOf": [opened, _FROM_ENVIRONMENT]}
