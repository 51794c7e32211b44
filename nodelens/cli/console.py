"""What every command does alike: printing, our errors in one message, what to do after Ctrl-C."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["clean_errors", "console", "going_on", "is_first"]

INTERRUPTED = 130
TERMINATED = 143
PIPED = 160
"""Columns of what goes to a file or another command."""


@contextmanager
def clean_errors() -> Iterator[None]:
    """Turn our errors into a message and exit code 2, and an interrupt into exit code 130."""
    from nodelens.errors import NodeLensError

    try:
        yield
    except NodeLensError as error:
        from rich.markup import escape

        console(stderr=True).print(f"[bold red]error:[/bold red] {escape(str(error))}")
        raise typer.Exit(2) from error
    except KeyboardInterrupt as interrupt:
        terminated = type(interrupt) is not KeyboardInterrupt
        raise typer.Exit(TERMINATED if terminated else INTERRUPTED) from interrupt


@contextmanager
def going_on(
    words: list[str],
    options: dict[str, Any],
    directory: str,
    again: Sequence[str] = ("--resume",),
) -> Iterator[None]:
    """Upon Ctrl-C or SIGTERM, say with which command the work within goes on."""
    from nodelens.experiments import terminable

    try:
        with terminable():
            yield
    except KeyboardInterrupt:
        if not is_first():
            raise
        given = [part for name, v in options.items() if v is not None for part in (name, str(v))]
        command = shlex.join([*_front(), *words, *given, *again])
        out = console(stderr=True)
        out.print(f"Interrupted. What was finished is whole, in {directory}", markup=False)
        out.print(f"Go on with: {command}", markup=False)
        raise


def _front() -> list[str]:
    """Return the words this command was started with, before its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ["nodelens"]
    here = os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])
    return ["torchrun", "--nproc-per-node", here, "-m", "nodelens"]


def is_first() -> bool:
    """Return whether this process speaks for the run: rank 0 of torchrun's, or the only one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def console(*, stderr: bool = False) -> Console:
    """Return where to print: plain text, without colours where nobody looks."""
    from rich.console import Console

    out = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not out.is_terminal:
        out.width = PIPED
    return out
