"""What a channel could say through noise of a known size, in nats: from variances alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError
from nodelens.metrics.formulas import information_above_noise
from nodelens.model import Layer
from nodelens.statistics import Moments, Read

__all__ = ["GaussianMiAnalytic", "MiFast"]


class _AboveNoise(MetricLens):
    """`noise_std` is the standard deviation of the noise, in activation units."""

    family = "information"
    unit = "nat"
    importance = +1
    state = "O(C)"
    minimum_rows = 2
    degenerate = "A constant channel scores 0."
    paper = "Cover and Thomas (2006), Elements of Information Theory, ch. 9"
    view = "rows"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        noise_std: float = 0.1,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if not 0 < noise_std < float("inf"):
            raise InvalidValueError(f"noise_std is {noise_std}, expected a number above 0")
        self.noise_std = noise_std

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"outputs": Read("output", Moments, view=self.view)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return information_above_noise(statistics["outputs"].variance(), self.noise_std)


@Lens.register("gaussian_mi_analytic")
class GaussianMiAnalytic(_AboveNoise):
    """Gaussian information of a channel with itself plus noise, `(channels,)`, in nats.

    The capacity of the channel seen through independent Gaussian noise of standard deviation
    `noise_std`, in activation units. It orders channels as their variance does; the noise says
    what size of difference still counts. It needs no targets, and says nothing of any.
    """

    formula = r"\tfrac12 \log\Bigl(1 + \frac{\operatorname{Var}(y)}{\sigma^2}\Bigr)"
    where = r"$\sigma$ is `noise_std`"


@Lens.register("mi_fast", aliases=("mi_gap",))
class MiFast(_AboveNoise):
    """Gaussian information of a pooled map with itself plus noise, `(channels,)`, in nats.

    `gaussian_mi_analytic` of maps averaged over space, a sample being a row. Of a layer that is no
    convolution it is the same.
    """

    view = "pooled"
    formula = r"\tfrac12 \log\Bigl(1 + \frac{\operatorname{Var}(\bar y)}{\sigma^2}\Bigr)"
    where = r"$\bar y$ is the mean of the channel's map over space, $\sigma$ is `noise_std`"
