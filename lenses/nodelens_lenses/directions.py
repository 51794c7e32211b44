"""How far a unit's weights lie along the principal directions of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError
from nodelens.metrics.formulas import covariance_alignment, group_blocks, principal_cosine
from nodelens.model import Layer
from nodelens.statistics import CoMoments, GroupCoMoments, Read, Weights, wide

__all__ = ["SpectralAlignment", "WeightActivationAlignment"]


class _Directions(MetricLens):
    family = "alignment"
    unit = "1"
    importance = +1
    state = "O(D^2)"
    cost = "D^2"
    minimum_rows = 2

    def reads(self, layer: Layer) -> dict[str, Read]:
        inputs = Read("input", CoMoments, view="patches")
        if layer.groups > 1:
            inputs = Read("input", GroupCoMoments, {"groups": layer.groups}, view="patches")
        return {"inputs": inputs, "weights": Read("weight", Weights)}


@Lens.register("weight_activation_alignment")
class WeightActivationAlignment(_Directions):
    """Largest absolute cosine with one of the inputs' leading directions, `(channels,)`, in [0, 1].

    Over the `top_k` principal directions of what the unit reads: for a convolution patches, for a
    grouped one those of its group. 1 says that the weights are one of them. Not the size of the
    projection on all of them, which grows with `top_k` alone. Directions with less than a millionth
    of the leading one's variance do not count: there float32 inputs do not tell one from another.
    """

    formula = r"\max_{m \le k} \frac{\lvert w^\top v_m \rvert}{\lVert w \rVert}"
    where = (
        r"$v_m$ is the $m$-th principal direction (unit eigenvector of the covariance, by falling "
        r"variance) of the inputs that the channel reads, $k$ is `top_k`"
    )
    degenerate = (
        "A row without weights, and inputs that never vary, score 0. Where two directions vary "
        "alike, which ones they are is not determined, nor is the score."
    )
    paper = (
        "Jolliffe (2002), Principal Component Analysis, Springer, ch. 2, for principal directions"
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        top_k: int = 5,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if not isinstance(top_k, int) or top_k < 1:
            raise InvalidValueError(f"top_k is {top_k!r}, expected a whole number of 1 or more")
        self.top_k = top_k

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        blocks = group_blocks(statistics["inputs"].m2, layer.groups)
        return principal_cosine(wide(statistics["weights"].rows), blocks, self.top_k)


@Lens.register("spectral_alignment")
class SpectralAlignment(_Directions):
    """Weights in principal directions, each by its variance, over the most possible, `(channels,)`.

    In [0, 1]; it has no unit, and neither the size of the weights nor that of the inputs matters. A
    unit along direction m scores that direction's variance over the norm of all variances, so 1 is
    reached only where inputs vary in one direction alone. Equal to |S w| / (|w| |S|), which is how
    it is worked out; a grouped convolution's units read their group's inputs.
    """

    formula = r"""
    \frac{\bigl\lVert (w^\top V) \odot \lambda \bigr\rVert}
    {\lVert w \rVert\, \lVert \lambda \rVert}
    = \frac{\lVert S w \rVert}{\lVert w \rVert\, \lVert S \rVert_F}
    """
    where = (
        r"$S = V \operatorname{diag}(\lambda) V^\top$ is the covariance of the inputs that the "
        r"channel reads"
    )
    degenerate = "A row without weights, and inputs that never vary, score 0."

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        blocks = group_blocks(statistics["inputs"].m2, layer.groups)
        return covariance_alignment(wide(statistics["weights"].rows), blocks)
