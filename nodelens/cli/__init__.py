"""The command `nodelens`. Our own errors are one message and exit code 2.

An interrupt is exit code 130, SIGTERM 143.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from nodelens.cli.checking import check
from nodelens.cli.listing import describe, lenses
from nodelens.cli.runs import merge, plan, run

__all__ = ["app", "main"]

app = typer.Typer(
    name="nodelens",
    help="Which channels of a network matter, which are copies of others, what happens without.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run, merge, plan, lenses, describe, check):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with `arguments`, those of the process by default, and exit."""
    app(args=None if arguments is None else list(arguments))
