"""Importing what brings progress bars, without what these say in a notebook without widgets."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["bars_of_text"]


@contextmanager
def bars_of_text() -> Iterator[None]:
    """Let tqdm fall back on text unsaid: it warns once, when it is imported, and loses nothing."""
    if "tqdm.auto" in sys.modules:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        yield
