"""Every error this package raises, each also the built-in error that Python users expect."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from numbers import Integral
from typing import Any

__all__ = [
    "ConfigError",
    "IncompatibleModelError",
    "InvalidValueError",
    "LayerNotFoundError",
    "LayerNotReachedError",
    "MergeError",
    "MissingLossError",
    "MissingPackageError",
    "MissingTargetsError",
    "NodeLensError",
    "NonFiniteError",
    "OutputError",
    "RankError",
    "ShapeError",
    "SharedDataWarning",
    "SurgeryError",
    "TooFewRowsError",
    "TrackingWarning",
    "UnknownNameError",
    "UnknownOptionError",
    "closest",
    "nearest",
    "whole",
]

_LONGEST = 200


class NodeLensError(Exception):
    """Base of every error of this package.

    Boundaries that know more (which lens, which batch) add it with :meth:`within`, so inner code
    states the bare fact.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def within(self, context: str) -> NodeLensError:
        """Return this error with `context` in front of its message; twice the same adds nothing."""
        if not self.message.startswith(context):
            self.message = f"{context}: {self.message}"
            self.args = (self.message,)
        return self


class UnknownNameError(NodeLensError, KeyError):
    """A name that nothing is registered under."""


class UnknownOptionError(NodeLensError, TypeError):
    """An option that the callee does not have."""


class InvalidValueError(NodeLensError, ValueError):
    """A value outside what an option or a computation accepts."""


class LayerNotFoundError(InvalidValueError):
    """A pattern or name that matches no layer of the model."""


class LayerNotReachedError(InvalidValueError):
    """A layer that exists, but that the forward pass never calls."""


class IncompatibleModelError(InvalidValueError):
    """A model that a lens cannot score; the message says why."""


class ShapeError(InvalidValueError):
    """A tensor of the wrong shape."""


class TooFewRowsError(InvalidValueError):
    """Fewer rows than a score needs."""


class NonFiniteError(InvalidValueError):
    """NaN or infinite values where finite ones are needed."""


class MissingTargetsError(InvalidValueError):
    """A score needs targets and the batch has none, or too few."""


class MissingLossError(InvalidValueError):
    """A score needs a loss and none is given or can be chosen."""


class SurgeryError(InvalidValueError):
    """Channels that cannot be cut out of a model without changing what else it computes."""


class ConfigError(InvalidValueError):
    """A configuration file with a mistake."""


class MergeError(InvalidValueError):
    """Two statistics that do not describe the same thing."""


class OutputError(NodeLensError, OSError):
    """A result that cannot be written or read."""


class RankError(NodeLensError, RuntimeError):
    """Another process of the same run failed or went away."""


class MissingPackageError(NodeLensError, ImportError):
    """A package that is wanted for this alone, and is not installed."""


class SharedDataWarning(UserWarning):
    """Rows to evaluate on that were also used to calibrate."""


class TrackingWarning(UserWarning):
    """A tracker that failed, and was left out of a run that goes on."""


def whole(name: str, value: Any, least: int) -> int:
    """Return a whole number; InvalidValueError when it is not one, or below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InvalidValueError(f"{name} is {value!r}, expected a whole number from {least} on")
    return int(value)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest of `valid`, or an empty string.

    >>> nearest("wieght", ["activation_mean", "weight_magnitude"])
    " (did you mean 'weight_magnitude'?)"
    """
    close = closest(name, valid)
    return f" (did you mean {close!r}?)" if close else ""


def closest(name: str, valid: Iterable[str]) -> str | None:
    """Return the one of `valid` that is most like `name`, None when none is like it."""
    # Comparing takes the square of the length, and a name from a file may be of any length.
    name, known = str(name)[:_LONGEST], [str(v) for v in valid]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:
        words = {word: v for v in reversed(known) for word in _words(v)}
        like = difflib.get_close_matches(name.lower(), words, n=1, cutoff=0.7)
        close = [words[word] for word in like]
    return close[0] if close else None


def _words(name: str) -> list[str]:
    """The name in lower case and its parts: a slip may be in the one part that was typed."""
    return [name.lower(), *(part for part in re.split(r"[\W_]+", name.lower()) if len(part) > 2)]
