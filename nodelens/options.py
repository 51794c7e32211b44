"""Making a lens from options whose names and types are those of its signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Any, TypeVar

from nodelens.errors import InvalidValueError, NodeLensError, UnknownOptionError, nearest

__all__ = ["made"]

T = TypeVar("T")

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "None",
    Mapping: "a mapping",
    Sequence: "several values",
}


def made(name: str, kind: Callable[..., T], args: Sequence[Any], options: Mapping[str, Any]) -> T:
    """Return the lens `name`, made of the class `kind`.

    Raises UnknownOptionError for an option that it does not have, and InvalidValueError for one
    that it cannot do without, or that is not what its annotation says, looked at no deeper than "a
    mapping". What a lens itself says of a value comes first: it knows more.
    """
    known = inspect.signature(kind).parameters
    for option in options:
        if option not in known:
            raise UnknownOptionError(
                f"lens {name!r} has no option {option!r}{nearest(option, known)}; "
                f"it has {', '.join(known)}"
            )
    for option, parameter in list(known.items())[len(args) :]:
        needed = parameter.default is parameter.empty and parameter.kind not in _VARIADIC
        if needed and option not in options:
            raise InvalidValueError(f"lens {name!r} needs {option}=, which has no default")
    try:
        lens = kind(*args, **options)
    except NodeLensError:
        raise
    except Exception:
        _check_types(name, kind, options)
        raise
    _check_types(name, kind, options)
    return lens


def _check_types(name: str, kind: Any, options: Mapping[str, Any]) -> None:
    hints = _hints(kind)
    for option, value in options.items():
        kinds = _kinds(hints.get(option, Any))
        if not any(_is(value, kind) for kind in kinds):
            expected = " or ".join(_WORDS.get(kind, kind.__name__) for kind in kinds)
            raise InvalidValueError(f"lens {name!r}: {option} is {value!r}, expected {expected}")


def _hints(kind: Any) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(kind.__init__)
    except (NameError, TypeError):  # a stranger's annotations, of names that only mypy sees
        return {}


def _kinds(hint: Any) -> list[type]:
    """Return the classes that a value may be of; `object` for an annotation that is none."""
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return [kind for part in typing.get_args(hint) for kind in _kinds(part)]
    kind = typing.get_origin(hint) or hint
    return [kind if isinstance(kind, type) and kind is not Any else object]


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind is Sequence:
        return isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    return isinstance(value, kind)
