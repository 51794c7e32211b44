"""What a lens says of itself: it may say nothing, but not half."""

from __future__ import annotations

from nodelens.metrics.growth import growth
from nodelens.testing.trial import Trial

__all__ = ["stated"]


def stated(trial: Trial) -> None:
    """A formula that is stated is whole, with its degenerate cases; growths can be compared.

    No lens has to state its formula.
    """
    kind = trial.kind
    formula = kind.formula.replace(r"\{", "").replace(r"\}", "")
    assert formula.count("{") == formula.count("}"), f"braces of the formula differ: {formula}"
    assert not formula or kind.degenerate, "there is a formula, and no word on degenerate channels"
    growth(kind.state)
    growth(kind.cost)
