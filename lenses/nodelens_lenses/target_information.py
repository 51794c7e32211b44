"""What a channel says about targets and classes, in nats, small samples corrected for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError, ShapeError, nearest
from nodelens.metrics.formulas import (
    binned_information,
    class_information,
    explained_variance,
    gaussian_information,
    information_bias,
    information_within_classes,
    joined_bins,
    partial_moments,
)
from nodelens.metrics.rows import full_rows
from nodelens.model import Layer
from nodelens.statistics import (
    ClassCoMoments,
    ClassCrossMoments,
    ClassMoments,
    CrossMoments,
    JointCounts,
    LabelledCoMoments,
    Read,
    Weights,
)

__all__ = [
    "ConditionalMi",
    "ConditionalMutualInformation",
    "MiAboutClass",
    "MutualInformationBinning",
]

_REFERENCES = ("pc1", "targets")
_STRATEGIES = ("quantile", "uniform")


class _Information(MetricLens):
    family = "information"
    unit = "nat"
    importance = +1
    minimum_rows = 2


@Lens.register("mi_about_class", aliases=("mi_class",))
class MiAboutClass(_Information):
    """Gaussian information of a channel about the class, `(channels,)`, in nats.

    The entropy of the channel less its mean entropy within classes, each with a variance of its
    own: a channel that only changes its spread with the class has information too. Classes of one
    row, too small for a variance, are pooled (with the next smallest, as far as it takes).

    Small samples make entropies look smaller, most of all those within small classes. `corrected`
    takes out exactly what that adds for Gaussian rows, so a channel independent of the class scores
    0 on average, however many classes of few rows there are. Scores are not cut at 0, which would
    bring the bias back: a little below 0 means none. `corrected=False` gives the plain difference.
    """

    state = "K C"
    cost = "K C"
    formula = r"H(y) - \sum_c \frac{n_c}{n} H(y \mid c), \qquad H = \tfrac12 \log s^2 - \tfrac12 \Bigl(\psi\bigl(\tfrac{\nu}{2}\bigr) - \log \tfrac{\nu}{2}\Bigr)"
    where = (
        r"$n_c$ is the number of rows of class $c$, $s^2$ the variance there with $\nu$ degrees of "
        r"freedom, $\psi$ the digamma function; the constant $\tfrac12 \log 2 \pi e$ cancels"
    )
    degenerate = (
        r"A constant channel scores 0, and so does every channel when no class has two rows. A "
        r"class's variance counts as at least $1 - (1 - \varepsilon)^2$ of the whole."
    )
    paper = (
        "Misra, Singh and Demchuk (2005), Estimation of the entropy of a multivariate normal "
        "distribution, J. Multivariate Analysis 92(2)"
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        corrected: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.corrected = corrected
        self.eps = eps

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"classes": Read("output", ClassMoments)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = statistics["classes"]
        return class_information(seen.counts, seen.mean, seen.m2, self.eps, self.corrected)


@Lens.register("conditional_mi", aliases=("cond_mi",))
class ConditionalMi(_Information):
    """Gaussian information with a reference signal within classes, `(channels,)`, in nats.

    The mean over classes, by their rows, of -1/2 log(1 - rho_c^2) with rho_c the correlation of
    channel and reference within class c: what the channel tells beyond the class. The reference is
    the first principal component of the layer's own inputs, over all rows, which keeps a D x D
    matrix a class; or, with `reference="targets"`, numbers that come with each row, such as a
    logit: batches then have targets `(rows, 2)` or more, of which column `label` is the class
    number and the others are the signal (several: their multiple correlation). That keeps K C T.

    Classes of too few rows for a correlation are pooled, about their own means. `corrected` takes
    out exactly what small samples add for Gaussians, so that shuffled references score 0 on
    average, and some a little below; `corrected=False` gives the plain sum.
    """

    state = "K D^2; K C T with targets"
    cost = "D^2; K C T with targets"
    formula = r"\sum_c \frac{n_c}{n} \Bigl(-\tfrac12 \log\bigl(1 - \rho_c^2\bigr) - \beta_c\Bigr)"
    where = (
        r"$\rho_c$ is the correlation of the channel and the reference within class $c$ of $n_c$ "
        r"rows, clamped to $1 - \varepsilon$; $\beta_c = \tfrac12 \psi\bigl(\tfrac{n_c - 1}{2}"
        r"\bigr) - \tfrac12 \psi\bigl(\tfrac{n_c - 1 - T}{2}\bigr)$ is what small samples add"
    )
    degenerate = "Within classes where the channel or the reference is constant it scores 0."
    paper = "Cover and Thomas (2006), Elements of Information Theory, ch. 8"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        reference: str = "pc1",
        label: int = 0,
        corrected: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if reference not in _REFERENCES:
            raise InvalidValueError(
                f"reference is {reference!r}{nearest(str(reference), _REFERENCES)}, "
                f"expected one of {', '.join(_REFERENCES)}"
            )
        self.reference = reference
        self.label = label
        self.corrected = corrected
        self.eps = eps

    def reads(self, layer: Layer) -> dict[str, Read]:
        if self.reference == "targets":
            return {"targets": Read("output", ClassCrossMoments, {"label": self.label})}
        return {
            "inputs": Read("input", ClassCoMoments, view="patches"),
            "weights": Read("weight", Weights),
        }

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        if self.reference == "targets":
            seen = statistics["targets"]
            sums = seen.m2, seen.target_m2, seen.cross
        else:
            seen = statistics["inputs"]
            rows = full_rows(statistics["weights"].rows.double(), layer)
            sums = _with_first_component(rows, seen)
        return information_within_classes(seen.counts, *sums, self.eps, self.corrected)


def _with_first_component(rows: Tensor, seen: ClassCoMoments) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of products within classes of w'x and v'x, v the leading direction of all inputs."""
    direction = torch.linalg.eigh(seen.total()).eigenvectors[:, -1]
    along = seen.m2 @ direction
    squares = torch.stack([((rows @ m2) * rows).sum(1) for m2 in seen.m2])
    return squares, (along @ direction)[:, None, None], (along @ rows.mT)[:, None]


@Lens.register("conditional_mutual_information")
class ConditionalMutualInformation(_Information):
    """Gaussian information with the targets given other variables, `(channels,)`, in nats.

    I(y; T | Z) = -1/2 log(1 - R^2), R the (multiple) correlation of what Z leaves of the channel
    with what Z leaves of the targets, numbers or one-hot classes. Z is `given`: "pc1", the first
    principal component of the layer's own inputs, which keeps D x D; or the numbers of those
    columns of numeric targets `(rows, targets)` that are Z, the others being T.

    As with `mutual_information_gaussian`, small samples add about T / (2 n): the chain rule
    I(y; T, Z) = I(y; Z) + I(y; T | Z) then holds exactly. `corrected=True` takes that out.
    """

    state = "D^2 + D T for pc1; C T + T^2"
    cost = "D^2 for pc1; C T"
    minimum_rows = 3
    formula = r"-\tfrac12 \log\bigl(1 - R_{i \cdot Z}^2\bigr)"
    where = (
        r"$R_{i \cdot Z}$ is the multiple correlation of channel $i$ with the targets $T$, both "
        r"less their regression on $Z$, clamped to $1 - \varepsilon$"
    )
    degenerate = (
        "A constant channel, and one of which $Z$ leaves less than $10^{-10}$ of the variance, "
        "scores 0; targets that $Z$ explains as far say nothing."
    )
    paper = "Cover and Thomas (2006), Elements of Information Theory, ch. 2 and 8"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        given: str | int | Sequence[int] = "pc1",
        corrected: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        columns = [given] if isinstance(given, int) else given
        numbers = not isinstance(columns, str) and all(
            isinstance(k, int) and k >= 0 for k in columns
        )
        if columns != "pc1" and not (numbers and columns):
            raise InvalidValueError(
                f"given is {given!r}, expected 'pc1' or numbers of target columns, from 0"
            )
        self.given = given
        self.corrected = corrected
        self.eps = eps

    def reads(self, layer: Layer) -> dict[str, Read]:
        if self.given != "pc1":
            return {"targets": Read("output", CrossMoments)}
        return {
            "inputs": Read("input", LabelledCoMoments, view="patches"),
            "targets": Read("input", CrossMoments, view="patches"),
            "weights": Read("weight", Weights),
        }

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = statistics["targets"]
        if self.given != "pc1":
            given = self._columns(seen)
            sums = seen.cross, seen.m2, seen.target_m2
        else:
            rows = full_rows(statistics["weights"].rows.double(), layer)
            sums = _beside_first_component(rows, statistics["inputs"].m2, seen)
            given = torch.arange(sums[0].shape[1], device=rows.device) == 0
        cross, m2, target_m2 = partial_moments(*sums, given)
        found = gaussian_information(explained_variance(cross, m2, target_m2), self.eps)
        if not self.corrected:
            return found
        rank = int(torch.linalg.matrix_rank(target_m2, hermitian=True))
        freedom = seen.rows - 1 - int(given.sum())
        bias = float(information_bias(freedom, rank)) if freedom > rank else 0.0
        return torch.where(m2 > 0, found - bias, torch.zeros_like(found))

    def _columns(self, seen: CrossMoments) -> Tensor:
        """Which target columns are given, `(targets,)`; ShapeError unless some are and some not."""
        columns = [self.given] if isinstance(self.given, int) else list(self.given)
        targets = len(seen.target_mean)
        if seen.categorical or max(columns) >= targets or len(set(columns)) == targets:
            kind = "class numbers" if seen.categorical else f"{targets} numeric columns"
            raise ShapeError(
                f"given={self.given!r} names columns of the targets, which are {kind}: expected "
                "numbers of shape (rows, targets) with columns beside those given"
            )
        given = torch.zeros(targets, dtype=torch.bool, device=seen.cross.device)
        given[columns] = True
        return given


def _beside_first_component(
    rows: Tensor, m2: Tensor, seen: CrossMoments
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of products of w'x with v'x (column 0) and the targets; v the leading direction."""
    values, vectors = torch.linalg.eigh(m2)
    # In one order whether merged or read from a file: products are then the same to the last bit.
    direction, with_inputs = vectors[:, -1], seen.cross.contiguous()
    with_targets = (direction @ with_inputs)[None]
    top = torch.cat([values[-1:, None], with_targets], 1)
    both = torch.cat([top, torch.cat([with_targets.mT, seen.target_m2], 1)])
    cross = torch.cat([(rows @ (m2 @ direction))[:, None], rows @ with_inputs], 1)
    return cross, ((rows @ m2) * rows).sum(1), both


@Lens.register("mutual_information_binning", aliases=("mi_binning",))
class MutualInformationBinning(_Information):
    """Histogram mutual information with the targets, `(channels,)`, in nats.

    The channel is cut into `bins` bins of about equal numbers of rows (`strategy="quantile"`) or of
    equal width ("uniform"), numeric targets likewise; classes are taken as they are. Several numeric
    targets are averaged. No bins are fixed beforehand, which would make the score depend on the
    first batch: rows are counted in `resolution` fine bins over the range of all rows (64 for a
    numeric target), which are joined when the score is asked for. Quantiles are therefore those of
    the fine bins, and equal values never part.

    `corrected` takes out the bias of each entropy to first order in 1/n (Miller 1955; for few rows
    a cell some is left); a channel independent of the targets then scores about 0, often a little
    below. The result's notes say where fine bins were too coarse: a channel that varies less than a
    millionth of its size, or has most of its rows in one of them.
    """

    exempt: ClassVar = {
        "half_precision": "a value rounded to half precision may change its bin, and a score of few "
        "rows with it by more than the tolerance"
    }
    state = "C K resolution; 64 C T resolution for numbers"
    cost = "C"
    formula = r"\sum_{b, t} p_{bt} \log \frac{p_{bt}}{p_b p_t} + \frac{m_y + m_T - m_{yT} - 1}{2n}"
    where = (
        r"$p_{bt}$ is the share of rows in bin $b$ of the channel and bin or class $t$ of the "
        r"target; $m_y$, $m_T$ and $m_{yT}$ count the bins, of each and jointly, that have rows"
    )
    degenerate = (
        "A constant channel scores 0. One that varies by less than a millionth of its largest value "
        "scores 0 too, and the result's notes say so."
    )
    paper = "Miller (1955), Note on the bias of information estimates, Information Theory in Psychology"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        bins: int = 10,
        strategy: str = "quantile",
        corrected: bool = True,
        resolution: int = 256,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if strategy not in _STRATEGIES:
            raise InvalidValueError(
                f"strategy is {strategy!r}{nearest(str(strategy), _STRATEGIES)}, "
                f"expected one of {', '.join(_STRATEGIES)}"
            )
        if resolution < 2 or resolution & (resolution - 1):
            raise InvalidValueError(f"resolution is {resolution}, expected a power of two")
        if not 2 <= bins <= resolution:
            raise InvalidValueError(f"bins is {bins}, expected 2 to resolution={resolution}")
        self.bins = bins
        self.strategy = strategy
        self.corrected = corrected
        self.resolution = resolution

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"joint": Read("output", JointCounts, {"bins": self.resolution})}

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
        fine = seen.counts[:, 0].sum(1)
        varies, one = seen.high > seen.low, seen.used() == 1
        crowded = (2 * fine.amax(1) > seen.rows) & varies & ~one
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
                f"{_channels(count)} so unevenly (equal values, or outliers) that one of "
                f"{self.resolution} fine bins holds most rows: a larger resolution= tells more"
            )
        return notes


def _channels(count: int) -> str:
    return "1 channel varies" if count == 1 else f"{count} channels vary"
