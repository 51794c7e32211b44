"""The commands that help to write configurations: `schema`, `import-config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nodelens.cli.console import clean_errors, console

__all__ = ["import_config", "schema"]


def schema(
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A file; printed without it.")
    ] = None,
) -> None:
    """Print the JSON Schema of configurations, for editors."""
    with clean_errors():
        from nodelens.configs.editors import json_schema

        _put(json.dumps(json_schema(), indent=2) + "\n", output)


def import_config(
    config: Annotated[str, typer.Argument(help="A YAML file, in its unified dialect.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A file; printed without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print both as JSON.")] = False,
) -> None:
    """Turn a configuration of NodeLens 0.2.0 into one of ours. What has no equal is listed."""
    with clean_errors():
        from nodelens.configs.document import write_yaml
        from nodelens.configs.importer import import_config as imported_from

        found = imported_from(config)
        if as_json:
            typer.echo(json.dumps(found.to_json(), indent=2))
            return
        _put(write_yaml(found.data), output)
        out = console(stderr=True)
        for line in found.report():
            out.print(line, markup=False)


def _put(text: str, output: str | None) -> None:
    from nodelens.files import write_text

    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(Path(output), text)
