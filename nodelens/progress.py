"""Progress over a stream of batches, of known or unknown length."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

__all__ = ["Progress", "announce", "watched"]

Progress = Callable[[int, int], None]
"""Called with (batches done, rows seen)."""


def watched(
    batches: Iterable[Any],
    skip: int,
    progress: bool | Progress,
    rows: Callable[[], int],
    ended: Callable[[], bool] = lambda: False,
    what: str = "batches",
) -> Iterator[Any]:
    """Yield the batches behind the first `skip`, showing how far the stream has come.

    `progress` is False, a function, or True for a bar, which shows on terminals and in notebooks.
    Once `ended()`, no further batch is asked for. `what` names what is counted.
    """
    remaining = _before_end(islice(batches, skip, None), ended)
    if progress is False:
        yield from remaining
    elif callable(progress):
        for done, batch in enumerate(remaining, start=skip):
            yield batch
            progress(done + 1, rows())
    else:
        yield from _with_bar(remaining, skip, _length(batches), rows, what)


def announce(text: str) -> None:
    """Say what is about to start: in the log, and where a bar would show, on the terminal."""
    from rich.console import Console

    logging.getLogger(__name__).info(text)
    console = Console(stderr=True, highlight=False)
    if console.is_terminal or console.is_jupyter:
        console.print(text)


def _before_end(batches: Iterable[Any], ended: Callable[[], bool]) -> Iterator[Any]:
    if not ended():
        for batch in batches:
            yield batch
            if ended():
                break


def _length(batches: Iterable[Any]) -> int | None:
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return None


def _with_bar(
    batches: Iterable[Any], skip: int, total: int | None, rows: Callable[[], int], what: str
) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield from batches
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what + ", {task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=total, completed=skip, rows=rows())
        for batch in batches:
            yield batch
            bar.update(task, advance=1, rows=rows())
