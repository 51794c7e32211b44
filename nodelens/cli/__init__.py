"""The command `nodelens`. Exit codes: 0 done, 1 a lens broke a promise (`check`), 2 a mistake.

A mistake is one message. An interrupt is exit code 130, SIGTERM 143.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from nodelens.cli.checking import check
from nodelens.cli.folders import analyse, compare, report, resume
from nodelens.cli.listing import describe, lenses
from nodelens.cli.runs import merge, plan, run
from nodelens.cli.writing import import_config, schema

__all__ = ["app", "main"]

app = typer.Typer(
    name="nodelens",
    help="Which channels of a network matter, which are copies of others, what happens without.",
    no_args_is_help=True,
    epilog="Exit codes: 0 done, 1 a lens failed `check`, 2 a mistake (one message), 130 Ctrl-C,"
    " 143 SIGTERM.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (
    run,
    resume,
    plan,
    merge,
    analyse,
    report,
    compare,
    lenses,
    describe,
    check,
    schema,
    import_config,
)
for command in COMMANDS:
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with `arguments`, those of the process by default, and exit."""
    app(args=None if arguments is None else list(arguments))
