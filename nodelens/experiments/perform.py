"""Doing one stage: on the record, in the log and before the reader's eyes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nodelens.errors import NodeLensError
from nodelens.experiments.artifacts import LOG
from nodelens.experiments.console import Display
from nodelens.experiments.drawing import formats_of
from nodelens.experiments.provenance import source_code
from nodelens.experiments.record import Record, key_of
from nodelens.experiments.stage import Run, Stage

__all__ = ["closing", "draw_again", "logged", "perform"]

_DRAWN_BY = ("figures", "experiments/drawing.py", "experiments/sections.py")


def perform(
    stage: Stage,
    run: Run,
    record: Record,
    key: str,
    display: Display,
    log: logging.Logger,
    *,
    keep: bool = False,
) -> None:
    """Run a stage and note how it went under `key`; with `keep`, say what it left before."""
    if keep:
        summary = record.data["stages"][stage.name]["summary"]
        log.info("%s: kept (%s)", stage.name, summary)
        display.done(stage.name, summary, None)
        draw_again(stage, run, record, log)
        # A run may have been killed when the outcome was on record and this not yet done.
        stage.tidy(run)
        return
    log.info("%s: started", stage.name)
    record.begin(stage.name, key)
    started = time.perf_counter()
    with display.bar(stage.name) as run.advance:
        summary = stage.run(run)
        computed = len(run.folder.written)
        stage.show(run)
    seconds = time.perf_counter() - started
    shown = run.folder.written[computed:]
    record.end(stage.name, seconds, summary, style=_style(run), shown=shown)
    stage.tidy(run)
    log.info("%s: finished in %.1f s (%s)", stage.name, seconds, summary)
    display.done(stage.name, summary, seconds)


def draw_again(stage: Stage, run: Run, record: Record, log: logging.Logger) -> None:
    """Make a finished stage's part of the report again, if it is not as it would be drawn now."""
    style = _style(run)
    if not record.is_shown(stage.name, style):
        record.redraw(stage.name, style, lambda: stage.show(run))
        log.info("%s: drawn again", stage.name)


def _style(run: Run) -> str:
    """Return a digest of how figures of sections are drawn now."""
    return key_of(formats_of(run.config), source_code(*_DRAWN_BY))


@contextmanager
def closing(record: Record, log: logging.Logger) -> Iterator[None]:
    """Note in the record how the run ended, however it did."""
    status = "failed"
    try:
        yield
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except NodeLensError as error:
        log.error("%s", error)
        raise
    finally:
        record.close(status)
        log.info("run %s", status)


@contextmanager
def logged(run: Run) -> Iterator[logging.Logger]:
    """Yield a logger that writes into the run directory while within."""
    log = logging.getLogger("nodelens.experiments")
    handler = logging.FileHandler(run.folder.path(LOG), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()
