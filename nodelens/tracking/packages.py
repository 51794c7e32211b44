"""The software behind a tracker: imported when a run starts it, named when it is not there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nodelens.errors import MissingPackageError

__all__ = ["imported"]


def imported(module: str, package: str) -> Any:
    """Return a module; MissingPackageError says which package has it and how to install it."""
    try:
        return import_module(module)
    except ImportError as missing:
        raise MissingPackageError(
            f"{package} is not installed: expected `pip install 'nodelens[tracking]'`, or {package}"
            f" alone ({missing})"
        ) from missing
