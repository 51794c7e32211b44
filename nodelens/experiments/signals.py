"""Letting SIGTERM end a run as Ctrl-C does: what was measured is saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Terminated", "terminable"]


class Terminated(KeyboardInterrupt):
    """Raised where SIGTERM reached the process, so that it saves as upon Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated upon SIGTERM within; in any but the main thread signals stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: Any) -> None:
    raise Terminated
