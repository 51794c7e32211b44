"""How state and cost grow, as lenses write it ("C", "K C", "C^2 + C D"), and which grows faster."""

from __future__ import annotations

import re

from nodelens.errors import InvalidValueError, nearest

__all__ = ["bare", "cases", "growth", "no_more_than", "raised"]

_FACTOR = re.compile(r"(?P<symbol>[A-Z]\w*|[a-z]{3,})(?:\^(?P<power>\d+))?|\d+")
_ORDER = re.compile(r"O\((.*)\)( an? [a-z]+)?")
_PRODUCT = re.compile(r"([^()+]*)\((.*)\)")
_USUAL = ("nothing", "C", "K C", "C D", "C^2", "D^2")


def cases(text: str) -> list[str]:
    """Return the cases between semicolons, first the one that does not say for what.

    >>> cases("D^2 for pc1; C T")
    ['C T', 'D^2 for pc1']
    """
    found = [case.strip() for case in text.split(";")]
    return sorted(found, key=lambda case: " for " in case)


def bare(text: str) -> str:
    """Return a growth under default options, without its O(), powers raised.

    What says for what it is, and what is after a semicolon, belongs to other options.

    >>> bare("O(C T); D^2 for pc1"), bare("O(C + D) a position"), bare("C^2")
    ('C T', 'C + D a position', 'C²')
    """
    default = cases(text)[0]
    if (order := _ORDER.fullmatch(default)) is not None:
        default = order[1] + (order[2] or "")
    return raised(default)


def raised(text: str) -> str:
    """Return a text with its powers and numbers of layers as Unicode."""
    for plain, shown in (("^2", "²"), ("^3", "³"), ("_1", "₁"), ("_2", "₂")):
        text = text.replace(plain, shown)
    return text


def growth(text: str) -> tuple[int, int]:
    """Return the powers of the fastest term: of channels and inputs, then of anything else.

    Only C and D, also numbered, count as wide.

    >>> growth("O(C + D)"), growth("K (C + D)"), growth("C^2 + C T; D^2 for pc1"), growth("")
    ((1, 0), (1, 1), (2, 0), (0, 0))
    """
    default = cases(text)[0]
    if default in ("", "nothing"):
        return 0, 0
    return _fastest(re.sub(r" (?:an?|for|with) [a-z].*$", "", default), text)


def no_more_than(text: str, bound: str) -> bool:
    """Return whether something grows no faster than `bound`.

    >>> no_more_than("C + D", "C"), no_more_than("C^2", "C D"), no_more_than("C^2", "K C")
    (True, True, False)
    """
    return growth(text) <= growth(bound)


def _fastest(part: str, text: str) -> tuple[int, int]:
    if (product := _PRODUCT.fullmatch(part.strip())) is not None:
        wide, narrow = _fastest(product[2], text)
        if product[1].strip() in ("", "O"):
            return wide, narrow
        more = _powers(product[1], text)
        return wide + more[0], narrow + more[1]
    return max(_powers(term, text) for term in part.split("+"))


def _powers(term: str, text: str) -> tuple[int, int]:
    factors = [_FACTOR.fullmatch(word) for word in term.replace("*", " ").split()]
    wide = narrow = 0
    for factor in factors or [None]:
        if factor is None:
            raise InvalidValueError(
                f"{text!r} says no growth{nearest(text.upper(), _USUAL)}, "
                f"expected products of symbols such as {', '.join(_USUAL)}"
            )
        symbol, power = factor["symbol"] or "", int(factor["power"] or 1)
        wide += power if symbol[:1] in ("C", "D") else 0
        narrow += power if symbol and symbol[0] not in ("C", "D") else 0
    return wide, narrow
