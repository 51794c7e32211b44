"""What a run shows while it works: a bar for the stage under way, a line for each that is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from nodelens.experiments.stage import Advance

__all__ = ["Display"]


class Display:
    """Progress on a terminal; `shown=False` says nothing."""

    def __init__(self, shown: bool = True, console: Console | None = None) -> None:
        from rich.console import Console as RichConsole

        self.console = console or RichConsole(quiet=not shown, highlight=False)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text)

    def done(self, stage: str, summary: str, seconds: float | None) -> None:
        """Print how a stage ended; without seconds it was finished before."""
        from rich.markup import escape

        took = "kept" if seconds is None else f"{seconds:.1f} s"
        self.console.print(f"[bold]{stage:<12}[/bold] [dim]{took:>7}[/dim]  {escape(summary)}")

    @contextmanager
    def bar(self, stage: str) -> Iterator[Advance]:
        """Show a bar while a stage works, and yield the function that moves it."""
        if not self.console.is_terminal:
            yield lambda done, total: None
            return
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (
            TextColumn("[bold]{task.description:<12}"),
            TimeElapsedColumn(),
            BarColumn(),
            TaskProgressColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(stage, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
