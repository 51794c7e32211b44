"""The list of checks, each a sentence and a callable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from nodelens.errors import UnknownNameError, nearest
from nodelens.lens import Lens
from nodelens.testing import laws, manners, statements, values
from nodelens.testing.trial import Trial

__all__ = ["Check", "checks"]

_CHECKS: dict[str, Callable[[Trial], None]] = {
    module_check.__name__: module_check
    for module_check in (
        values.described,
        statements.stated,
        laws.split_invariance,
        laws.split_invariance_in_float64,
        laws.merge_laws,
        laws.repeatable,
        laws.saved_state,
        laws.composite,
        values.half_precision,
        values.no_row_of_padding,
        values.degenerate_units,
        values.non_finite_input,
        values.few_rows,
        manners.untouched_model,
        manners.untouched_after_a_failure,
        manners.options_are_checked,
    )
}


@dataclass(frozen=True)
class Check:
    """One promise of a lens: `name` is a sentence, calling it raises when the promise is broken.

    `skipped` is the reason the lens gives for being exempt; such a check does nothing.
    """

    name: str
    lens: str
    key: str
    trial: Trial
    skipped: str | None = None

    def __call__(self) -> None:
        if self.skipped is not None:
            return
        threads = torch.get_num_threads()
        # On tensors this small, threads cost more than they save.
        torch.set_num_threads(1)
        try:
            _CHECKS[self.key](self.trial)
        finally:
            torch.set_num_threads(threads)

    def __str__(self) -> str:
        return f"{self.lens}-{self.key}"


def checks(name: str) -> Iterator[Check]:
    """Yield every check for the lens registered as `name`.

    Raises UnknownNameError for a name that is not registered, and for an exemption from a check
    that does not exist.
    """
    exempt = Lens.named(name).exempt
    for key in exempt:
        if key not in _CHECKS:
            raise UnknownNameError(
                f"lens {name!r} is exempt from an unknown check {key!r}{nearest(key, _CHECKS)}; "
                f"there are {', '.join(_CHECKS)}"
            )
    trial = Trial(name)
    for key, check in _CHECKS.items():
        sentence = (check.__doc__ or key).strip().partition("\n\n")[0].rstrip(".")
        yield Check(sentence, name, key, trial, exempt.get(key))
