"""What all causal checks share: lesions known beforehand, then estimates from what they cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from nodelens.analysis.arrays import Array, channel_scores
from nodelens.analysis.causal.damage import measured_damage
from nodelens.analysis.causal.estimates import Estimate
from nodelens.analysis.causal.lesions import INTACT, Damage, Lesion
from nodelens.errors import InvalidValueError, ShapeError
from nodelens.files import write_text
from nodelens.interventions import known_layers
from nodelens.model.wrapper import ModelWrapper, wrap
from nodelens.notebook import html_table
from nodelens.progress import Progress
from nodelens.result import LensResult

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

__all__ = ["CausalCheck", "CausalResult", "Scores", "score_arrays"]

Scores = Mapping[str, Any]
"""`{layer: (channels,)}`, or a LensResult, of which the first score is meant."""


@dataclass(frozen=True)
class CausalResult:
    """Estimates by name, the rows they are made from, and how many evaluations they took."""

    name: str
    estimates: Mapping[str, Estimate]
    rows: Sequence[Mapping[str, Any]]
    evaluations: int
    notes: Sequence[str] = field(default_factory=tuple)

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a table."""
        import pandas

        return pandas.DataFrame(list(self.rows))

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as CSV, whole or not at all."""
        write_text(Path(path), self.to_pandas().to_csv(index=False))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Return axes with every estimate as a point on its interval."""
        from nodelens.figures.intervals import plot_intervals

        return plot_intervals({n: (e.value, e.low, e.high) for n, e in self.estimates.items()}, ax)

    def _repr_html_(self) -> str:
        rows = [(name, e.value, e.low, e.high) for name, e in self.estimates.items()]
        caption = f"{self.name}: {self.evaluations} evaluations"
        return html_table(("estimate", "value", "low", "high"), rows, caption)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.evaluations} evaluations"]
        return "\n".join(lines + [f"  {name} {e}" for name, e in self.estimates.items()])


class CausalCheck(ABC):
    """Lesions that are known before anything is run, and what follows from their damage."""

    name: ClassVar[str]
    lesions: Sequence[Lesion]
    widths: Mapping[str, int] = MappingProxyType({})
    """How many channels each layer has by the scores that were given."""

    @property
    def evaluations(self) -> int:
        """Return how often a run goes over all batches, the intact model included."""
        return len({INTACT, *self.lesions})

    def run(
        self,
        model: Any,
        batches: Iterable[Any],
        *,
        value: Any = "zero",
        site: str = "output",
        loss: Any = None,
        path: str | Path | None = None,
        progress: bool | Progress = True,
        at_once: int = 16,
    ) -> CausalResult:
        """Return what the check finds on a model; see `measured_damage` for the options."""
        wrapper = wrap(model)
        self.check_on(wrapper, site)
        damage = measured_damage(
            wrapper, batches, self.lesions,
            value=value, site=site, loss=loss, path=path, progress=progress,
            at_once=at_once,
        )  # fmt: skip
        return self.conclude(damage)

    def check_on(self, wrapper: ModelWrapper, site: Any) -> None:
        """Raise LayerNotFoundError or ShapeError for scores of another model's layers."""
        for name in known_layers(wrapper, self.widths):
            layer = wrapper.layers[name]
            width = layer.channels if site == "output" else layer.inputs
            if isinstance(site, str) and self.widths[name] != width:
                raise ShapeError(
                    f"layer {name!r}: a score of {self.widths[name]} channels, expected {width}"
                )

    @abstractmethod
    def conclude(self, damage: Damage) -> CausalResult:
        """Return what the damage of the lesions says."""

    def result(
        self,
        estimates: Mapping[str, Estimate],
        rows: Sequence[Mapping[str, Any]],
        notes: Sequence[str] = (),
    ) -> CausalResult:
        """Return the result of this check."""
        return CausalResult(self.name, estimates, rows, self.evaluations, notes)


def score_arrays(scores: Scores, name: str | None = None) -> dict[str, Array]:
    """Return a score of every layer, each `(channels,)`.

    Raises ShapeError for another shape, InvalidValueError for NaN and for no layer.
    """
    given = scores.scores(name) if isinstance(scores, LensResult) else scores
    if not isinstance(given, Mapping) or not given:
        raise InvalidValueError("no layer has scores, expected {layer: (channels,)}")
    found = {}
    for layer, values in given.items():
        found[layer] = channel_scores(values, f"the score of layer {layer!r}")
        if not len(found[layer]):
            raise ShapeError(f"the score of layer {layer!r} has no channel, expected at least one")
    return found
