"""How a channel tells classes apart, from its mean and variance within every class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError, nearest
from nodelens.metrics.formulas import (
    boundary_distance,
    class_spread,
    class_tuning,
    left_out_class_quality,
    left_out_quality,
    norm_by_class,
    preferred_class_index,
    separation,
)
from nodelens.model import Layer
from nodelens.statistics import ClassMoments, CrossMoments, Read

__all__ = [
    "ClassSelectivity",
    "ClassificationAlignment",
    "ConditionalActivationNorm",
    "RepresentationQuality",
]

_AGGREGATES = ("mean", "max", "variance", "ratio")
_SELECTIVITIES = ("index", "variance", "entropy", "gini")
_SEPARATIONS = ("boundary_distance", "class_separation")
_TARGETS = ("classes", "numbers")


class _ByClass(MetricLens):
    family = "class-conditional"
    unit = "1"
    importance = +1
    state = "K C"
    cost = "K C"

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"classes": Read("output", ClassMoments)}


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """Return the value, InvalidValueError unless it is one of those known."""
    if value not in known:
        raise InvalidValueError(
            f"{name} is {value!r}{nearest(str(value), known)}, expected one of {', '.join(known)}"
        )
    return value


@Lens.register("conditional_activation_norm", aliases=("cond_act_norm",))
class ConditionalActivationNorm(_ByClass):
    """Root mean square within each class over that of all rows, `(channels,)`, no unit.

    `aggregate` says what of the classes' norms is given, every class counting alike: their "mean",
    "max", "variance" (n - 1) or the "ratio" of the largest and the smallest. A ratio counts the
    smallest as at least `eps`, so a channel silent in one class scores up to 1 / `eps` times its
    largest. Needs class numbers as targets.
    """

    formula = (
        r"\operatorname*{agg}_c \sqrt{\tfrac{1}{n_c} \textstyle\sum_{r \in c} y_r^2} \Big/ "
        r"\sqrt{\tfrac1n \textstyle\sum_r y_r^2}"
    )
    where = r"$n_c$ is the number of rows of class $c$, agg the `aggregate`"
    degenerate = "A dead channel scores 0. With a single class the variance is 0."

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        aggregate: str = "mean",
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.aggregate = one_of("aggregate", aggregate, _AGGREGATES)
        self.eps = eps

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = statistics["classes"]
        norms = norm_by_class(seen.counts, seen.mean, seen.m2)
        return class_spread(norms, self.aggregate, self.eps)


@Lens.register("class_selectivity")
class ClassSelectivity(_ByClass):
    """How far a channel prefers one class, `(channels,)`, in [0, 1].

    `mode="index"`: the largest class mean a against the mean b of the others,
    (a - b) / (abs(a) + abs(b)). "variance", "entropy" and "gini": how unequal the class means are
    as shares of their sum, 0 when all agree and 1 when one class alone has any; where a mean is
    negative, all are measured from the lowest.

    These are of the raw response, spread within classes left aside: a channel whose means lie about
    0 looks selective however little they differ. Compare with
    `classification_alignment`, which measures differences in units of the spread within classes.
    """

    formula = (
        r"\frac{a - b}{\lvert a \rvert + \lvert b \rvert}, \qquad a = \max_c \mu_c, \quad "
        r"b = \frac{1}{K - 1} \Bigl(\textstyle\sum_c \mu_c - a\Bigr)"
    )
    where = (
        r"$\mu_c$ is the channel's mean within class $c$; with $p_c$ the share of class $c$ in the "
        r"sum of the means, `variance` is $(\sum_c p_c^2 - 1/K) / (1 - 1/K)$, `entropy` "
        r"$1 + \sum_c p_c \log p_c / \log K$, `gini` the Gini coefficient over $1 - 1/K$"
    )
    degenerate = "A dead or constant channel, and any channel when there is one class, scores 0."
    paper = "Morcos et al. (2018), On the importance of single directions for generalization, ICLR"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        mode: str = "index",
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.mode = one_of("mode", mode, _SELECTIVITIES)

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = statistics["classes"]
        means = seen.mean[seen.counts > 0]
        if self.mode == "index":
            return preferred_class_index(means)
        return class_tuning(means, self.mode)


@Lens.register("classification_alignment")
class ClassificationAlignment(_ByClass):
    """How well a channel separates the classes, `(channels,)`, no unit.

    `mode="class_separation"`: the variance between classes over that within, Fisher's ratio; of n
    rows independent of K classes it is (K - 1) / (n - K) on average. "boundary_distance": how far a
    class's mean is from the nearest boundary with another class (halfway between their means), in
    standard deviations within classes, averaged over rows; for two classes half of d'. Labels are
    the batch's own class numbers, never invented.

    A variance within classes counts as at least 1 - (1 - `eps`)^2 of the whole.
    """

    minimum_rows = 2
    formula = r"\frac{\sum_c n_c (\mu_c - \bar y)^2}{\sum_c \sum_{r \in c} (y_r - \mu_c)^2}"
    where = (
        r"$n_c$ and $\mu_c$ are rows and mean of class $c$; `boundary_distance` is $\sum_c "
        r"\frac{n_c}{n} \min_{k \ne c} \frac{\lvert \mu_c - \mu_k \rvert}{2 s}$ with $s^2$ the "
        r"pooled variance within classes"
    )
    degenerate = (
        r"A constant channel, and any channel when there is one class, scores 0. The share of the "
        r"variance within classes counts as at least $1 - (1 - \varepsilon)^2$."
    )
    paper = (
        "Fisher (1936), The use of multiple measurements in taxonomic problems, Annals of "
        "Eugenics 7"
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        mode: str = "class_separation",
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.mode = one_of("mode", mode, _SEPARATIONS)
        self.eps = eps

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = statistics["classes"]
        formula = separation if self.mode == "class_separation" else boundary_distance
        return formula(seen.counts, seen.mean, seen.m2, self.eps)


@Lens.register("representation_quality")
class RepresentationQuality(_ByClass):
    """Held-out R^2 of a ridge probe between a channel and the targets, `(channels,)`, at most 1.

    The probe predicts the channel from the targets; with one number as the target the R^2 of the
    other direction is the same. No rows are set aside, which would depend on how the stream is cut.
    With `targets="classes"` every row is predicted by the probe of all other rows, exactly: the
    leave-one-out error follows from each class's rows, mean and variance. With `targets="numbers"`
    the rows' leverages are not known from sums, and their mean takes their place: generalised
    cross-validation (Golub, Heath and Wahba 1979).

    The error is compared with that of the mean of the other rows, so a channel independent of the
    targets scores below 0, the further the fewer rows a class has. `penalty` is that on the squared
    coefficients, for one-hot classes or targets of variance 1.
    """

    state = "K C; C T + T^2 for numbers"
    minimum_rows = 3
    formula = r"1 - \frac{\sum_r (y_r - \hat y_{r, -r})^2}{\sum_r (y_r - \bar y_{-r})^2}"
    where = (
        r"$\hat y_{r, -r}$ is what the ridge probe of all rows but $r$ predicts for row $r$, "
        r"$\bar y_{-r}$ the mean of all rows but $r$"
    )
    degenerate = "A constant channel, and any channel when there is one class, scores 0."
    paper = (
        "Golub, Heath and Wahba (1979), Generalized cross-validation as a method for choosing a "
        "good ridge parameter, Technometrics 21(2)"
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        targets: str = "classes",
        penalty: float = 1.0,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if not penalty > 0:
            raise InvalidValueError(f"penalty is {penalty}, expected more than 0")
        self.targets = one_of("targets", targets, _TARGETS)
        self.penalty = penalty

    def reads(self, layer: Layer) -> dict[str, Read]:
        kind = ClassMoments if self.targets == "classes" else CrossMoments
        return {"targets": Read("output", kind)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = statistics["targets"]
        if isinstance(seen, ClassMoments):
            return left_out_class_quality(seen.counts, seen.mean, seen.m2, self.penalty)
        return left_out_quality(seen.cross, seen.m2, seen.target_m2, seen.rows, self.penalty)
