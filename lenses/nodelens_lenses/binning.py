"""Information from counts, which sees any dependence, not linear ones alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError, nearest
from nodelens.metrics import targets
from nodelens.metrics.formulas import binned_information, joined_bins
from nodelens.model import Layer
from nodelens.statistics import JointCounts, Read

__all__ = ["MutualInformationBinning"]

_TARGETS = tuple(target for target in targets.TARGETS if target != "logit_pc1")
_STRATEGIES = ("quantile", "uniform")


@Lens.register("mutual_information_binning", aliases=("mi_binning",))
class MutualInformationBinning(MetricLens):
    """Histogram mutual information with the targets, `(channels,)`, in nats.

    The channel is cut into `bins` bins of about equal numbers of rows (`strategy="quantile"`) or of
    equal width ("uniform"), numeric targets likewise; classes are taken as they are, and several
    targets averaged. `target` takes one of the model's own instead: "correct_logit" or
    "logit_margin" (correct minus best other); the principal component of the logits is known only
    after the last row, when counts can no longer be turned.

    No bins are fixed beforehand, which would make the score depend on the first batch: rows are
    counted in `resolution` fine bins over the range of all rows (`target_resolution` for a numeric
    target), which are joined when the score is asked for.
    Quantiles are therefore those of the fine bins, and equal values never part.

    `corrected` takes out the bias of each entropy to first order in 1/n (Miller 1955; for few rows
    a cell some is left); a channel independent of the targets then scores about 0, often a little
    below. The result's notes say where fine bins were too coarse: a channel that varies less than a
    millionth of its size, or has most of its rows in a few of them.
    """

    family = "information"
    unit = "nat"
    importance = +1
    minimum_rows = 2
    exempt: ClassVar = {
        "half_precision": "a value rounded to half precision may change its bin, and a score of "
        "few rows with it by more than the tolerance"
    }
    state = "C K resolution; 64 C T resolution for numbers"
    cost = "C"
    formula = r"\sum_{b, t} p_{bt} \log \frac{p_{bt}}{p_b p_t} + \frac{m_y + m_T - m_{yT} - 1}{2n}"
    where = (
        r"$p_{bt}$ is the share of rows in bin $b$ of the channel and bin or class $t$ of the "
        r"target; $m_y$, $m_T$ and $m_{yT}$ count the bins, of each and jointly, that have rows"
    )
    degenerate = (
        "A constant channel scores 0. One that varies by less than a millionth of its largest "
        "value scores 0 too, and the result's notes say so."
    )
    paper = (
        "Miller (1955), Note on the bias of information estimates, Information Theory in Psychology"
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        target: str = "targets",
        bins: int = 10,
        strategy: str = "quantile",
        corrected: bool = True,
        resolution: int = 256,
        target_resolution: int = 64,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if strategy not in _STRATEGIES:
            raise InvalidValueError(
                f"strategy is {strategy!r}{nearest(str(strategy), _STRATEGIES)}, "
                f"expected one of {', '.join(_STRATEGIES)}"
            )
        for name, size in (("resolution", resolution), ("target_resolution", target_resolution)):
            if size < 2 or size & (size - 1):
                raise InvalidValueError(f"{name} is {size}, expected a power of two")
        if not 2 <= bins <= resolution:
            raise InvalidValueError(f"bins is {bins}, expected 2 to resolution={resolution}")
        self.target = targets.checked(target, _TARGETS)
        self.bins = bins
        self.strategy = strategy
        self.corrected = corrected
        self.resolution = resolution
        self.target_resolution = target_resolution

    def reads(self, layer: Layer) -> dict[str, Read]:
        sizes = {"bins": self.resolution, "target_bins": self.target_resolution}
        return {"joint": Read("output", JointCounts, sizes, target=self.target)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen: JointCounts = statistics["joint"]
        counts = self._joined(seen.counts, 3, seen.counts[:, 0].sum(1), seen.used())
        if not seen.categorical:
            counts = self._joined(counts, 2, seen.counts[0].sum(2), seen.targets_used())
        return binned_information(counts, self.corrected).mean(1)

    def _joined(self, counts: Tensor, axis: int, fine: Tensor, used: Tensor) -> Tensor:
        """The table with the fine bins of an axis joined; `fine` counts them, `(columns, bins)`."""
        places = joined_bins(fine, self.bins, self.strategy, used)
        places = places[:, None, None] if axis == 3 else places[None, :, :, None]
        shape = list(counts.shape)
        shape[axis] = self.bins
        joined = counts.new_zeros(shape)
        return joined.scatter_add_(axis, places.expand_as(counts), counts)

    def tally(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, int]:
        seen: JointCounts = statistics["joint"]
        fine, used = seen.counts[:, 0].sum(1), seen.used()
        varies, one = seen.high > seen.low, used == 1
        places = joined_bins(fine, self.bins, "quantile", used)
        filled = fine.new_zeros(len(fine), self.bins).scatter_add_(1, places, fine) > 0
        crowded = (2 * filled.sum(1) < min(self.bins, seen.rows)) & varies & ~one
        return {"unresolved": int((varies & one).sum()), "crowded": int(crowded.sum())}

    def told(self, tally: Mapping[str, int]) -> list[str]:
        notes = []
        if count := tally["unresolved"]:
            notes.append(
                f"{_channels(count)} less than a millionth of their size, which fine bins do not "
                "tell from a constant: scored 0"
            )
        if count := tally["crowded"]:
            notes.append(
                f"{_channels(count)} so unevenly (equal values, or outliers) that the "
                f"{self.resolution} fine bins fill less than half of {self.bins} bins: a larger "
                "resolution= may tell more"
            )
        return notes


def _channels(count: int) -> str:
    return "1 channel varies" if count == 1 else f"{count} channels vary"
