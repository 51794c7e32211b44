"""What a channel says about targets and classes, in nats, small samples corrected for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError, ShapeError, nearest
from nodelens.metrics import targets
from nodelens.metrics.formulas import (
    class_information,
    explained_variance,
    gaussian_information,
    information_bias,
    information_within_classes,
    partial_moments,
)
from nodelens.metrics.rows import full_rows
from nodelens.model import Layer
from nodelens.statistics import (
    ClassCoMoments,
    ClassCrossMoments,
    ClassMoments,
    CrossMoments,
    LabelledCoMoments,
    Read,
    Weights,
)

__all__ = [
    "ConditionalMi",
    "ConditionalMutualInformation",
    "MiAboutClass",
]

_REFERENCES = ("pc1", *targets.TARGETS)


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

    A class's variance counts as at least 1 - (1 - `eps`)^2 of the whole.
    """

    state = "K C"
    cost = "K C"
    formula = (
        r"H(y) - \sum_c \frac{n_c}{n} H(y \mid c), \qquad H = \tfrac12 \log s^2 - "
        r"\tfrac12 \Bigl(\psi\bigl(\tfrac{\nu}{2}\bigr) - \log \tfrac{\nu}{2}\Bigr)"
    )
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
    Or it is one of the model's own, with class numbers as targets: "correct_logit", "logit_margin"
    (correct minus best other) or "logit_pc1", the first principal component of the logits.

    Classes of too few rows for a correlation are pooled, about their own means. `corrected` takes
    out exactly what small samples add for Gaussians, so that shuffled references score 0 on
    average, and some a little below; `corrected=False` gives the plain sum.

    Correlations count as at most 1 - `eps`.
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
        if self.reference != "pc1":
            return {"targets": targets.about_within(self.reference)}
        return {
            "inputs": Read("input", ClassCoMoments, view="patches"),
            "weights": Read("weight", Weights),
        }

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        if self.reference != "pc1":
            seen = targets.chosen_within(statistics["targets"], self.reference)
            counts, sums = seen.counts, (seen.m2, seen.target_m2, seen.cross)
        else:
            seen = statistics["inputs"]
            rows = full_rows(statistics["weights"].rows.double(), layer)
            counts, sums = seen.counts[sorted(seen.m2)], _with_first_component(rows, seen)
        return information_within_classes(counts, *sums, self.eps, self.corrected)


def _with_first_component(rows: Tensor, seen: ClassCoMoments) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of products of w'x and v'x within the classes that occurred, v the leading direction of
    all inputs.
    """
    direction = torch.linalg.eigh(seen.total()).eigenvectors[:, -1]
    along, squares = [], []
    for label in sorted(seen.m2):
        m2 = seen.m2[label].clone()
        along.append(m2 @ direction)
        squares.append(((rows @ m2) * rows).sum(1))
    beside = torch.stack(along)
    return torch.stack(squares), (beside @ direction)[:, None, None], (beside @ rows.mT)[:, None]


@Lens.register("conditional_mutual_information")
class ConditionalMutualInformation(_Information):
    """Gaussian information with the targets given other variables, `(channels,)`, in nats.

    I(y; T | Z) = -1/2 log(1 - R^2), R the (multiple) correlation of what Z leaves of the channel
    with what Z leaves of the targets, numbers or one-hot classes. Z is `given`: "pc1", the first
    principal component of the layer's own inputs, which keeps D x D; or the numbers of those
    columns of numeric targets `(rows, targets)` that are Z, the others being T. With "pc1",
    `target` takes a T of the model's own instead: "correct_logit", "logit_margin" (correct minus
    best other) or "logit_pc1", the first principal component of the logits.

    As with `mutual_information_gaussian`, small samples add about T / (2 n): the chain rule
    I(y; T, Z) = I(y; Z) + I(y; T | Z) then holds exactly. `corrected=True` takes that out.

    Correlations count as at most 1 - `eps`.
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
        target: str = "targets",
        corrected: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        columns = (given,) if isinstance(given, int) else tuple(given)
        if given != "pc1" and not (columns and all(_is_column(k) for k in columns)):
            raise InvalidValueError(
                f"given is {given!r}, expected 'pc1' or numbers of target columns, from 0"
            )
        self.given = given
        self.target = targets.checked(target)
        if given != "pc1" and target != "targets":
            raise InvalidValueError(
                f"target is {target!r}, but given={given!r} are columns of the batch's targets: "
                "expected given='pc1' with it"
            )
        self.corrected = corrected
        self.eps = eps

    def reads(self, layer: Layer) -> dict[str, Read]:
        if self.given != "pc1":
            return {"targets": Read("output", CrossMoments)}
        return {
            "inputs": targets.about(self.target, LabelledCoMoments, "input", "patches"),
            "targets": targets.about(self.target, CrossMoments, "input", "patches"),
            "weights": Read("weight", Weights),
        }

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = targets.chosen(statistics["targets"], self.target)
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
        given = self.given
        columns = [given] if isinstance(given, int) else [int(k) for k in given]
        targets = len(seen.target_mean)
        if seen.categorical or max(columns) >= targets or len(set(columns)) == targets:
            kind = "class numbers" if seen.categorical else f"{targets} numeric columns"
            raise ShapeError(
                f"given={self.given!r} names columns of the targets, which are {kind}: expected "
                "numbers of shape (rows, targets) with columns beside those given"
            )
        chosen = torch.zeros(targets, dtype=torch.bool, device=seen.cross.device)
        chosen[columns] = True
        return chosen


def _is_column(number: object) -> bool:
    return isinstance(number, int) and number >= 0


def _beside_first_component(
    rows: Tensor, m2: Tensor, seen: CrossMoments
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of products of w'x with v'x (column 0) and the targets; v the leading direction."""
    # Copies in one order and alignment, whether merged or read from a file: products and
    # eigenvectors are then the same to the last bit.
    m2, with_inputs = m2.clone(), seen.cross.clone(memory_format=torch.contiguous_format)
    values, vectors = torch.linalg.eigh(m2)
    direction = vectors[:, -1]
    with_targets = (direction @ with_inputs)[None]
    top = torch.cat([values[-1:, None], with_targets], 1)
    both = torch.cat([top, torch.cat([with_targets.mT, seen.target_m2], 1)])
    cross = torch.cat([(rows @ (m2 @ direction))[:, None], rows @ with_inputs], 1)
    return cross, ((rows @ m2) * rows).sum(1), both
