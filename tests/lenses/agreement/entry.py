"""One lens beside its oracle, and how close float32 can come to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nodelens import Lens
from tests.oracles.capture import Array, Captured
from tests.oracles.rows import pixels, row_targets

Oracle = Callable[[Captured], Array]

# Where a score may be near zero, 1e-5 of it is less than float32 activations can tell. A
# correlation of them is good to some 1e-7, taken here as 1e-6; rho^2 / 2, the information of a weak
# one, then to rho * 1e-6, which is below 1e-7 as long as 1e-5 relative is the smaller bound.
INFORMATION = 1e-7
# A difference of two informations of up to a nat, each good to 1e-5 relative at worst 1e-6.
SYNERGY = 1e-6
# A difference of two quotients of up to ten, each good to 1e-7 of itself.
QUOTIENT = 1e-6
# Three is subtracted from what is good to 1e-5 of itself.
KURTOSIS = 3e-5
# A weight's update is a sum that cancels, good to 1e-6 of its largest terms; a row has few of them.
CORRELATION = 5e-6
# Means of values of about 1 (activations) and 1e-2 (activation times gradient) that cancel.
MEAN = 1e-6
PRODUCT = 1e-8


@dataclass(frozen=True)
class Entry:
    """A lens with options, its oracle, and the kind of targets that it makes sense for."""

    lens: str
    oracle: Oracle
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: str = "any"
    near_zero: float = 0.0

    def __str__(self) -> str:
        return " ".join([self.lens, *(f"{k}={v}" for k, v in self.options.items())])

    def make(self) -> Lens:
        return Lens.from_name(self.lens, **self.options)

    def fits(self, targets: str) -> bool:
        return self.targets in ("any", targets)


def of_outputs(function: Callable[..., Array], *args: Any) -> Oracle:
    return lambda captured: function(pixels(captured.outputs), *args)


def of_inputs(function: Callable[..., Array], *args: Any) -> Oracle:
    return lambda captured: function(pixels(captured.inputs), *args)


def with_targets(function: Callable[..., Array]) -> Oracle:
    return lambda captured: function(pixels(captured.outputs), row_targets(captured))
