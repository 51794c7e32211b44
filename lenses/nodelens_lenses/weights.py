"""What the weights alone say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from nodelens import Lens, MetricLens, ModelWrapper
from nodelens.errors import InvalidValueError
from nodelens.metrics import formulas
from nodelens.model import Layer
from nodelens.statistics import Read, RowCosines, RowNorms, SingularValues

__all__ = [
    "BnScale",
    "SpectralGap",
    "SpectralNormRatio",
    "StableRank",
    "WeightCosineSimilarity",
    "WeightMagnitude",
]


@Lens.register("weight_magnitude", aliases=("magnitude",))
class WeightMagnitude(MetricLens):
    """Norm of every weight row, `(channels,)`, in weight units: L2, or L1 with `norm=1`."""

    family = "weights"
    unit = "weight"
    importance = +1
    exempt: ClassVar = {"non_finite_input": "it reads weights alone"}
    formula = r"\lVert w \rVert_2 = \sqrt{\textstyle\sum_d w_d^2}"
    where = r"`norm=1` is $\sum_d \lvert w_d \rvert$"
    degenerate = "A unit without weights scores 0."
    paper = "Li et al. (2017), Pruning filters for efficient ConvNets, ICLR"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        norm: int = 2,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if norm not in (1, 2):
            raise InvalidValueError(f"norm is {norm}, expected 1 or 2")
        self.norm = norm

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"rows": Read("weight", RowNorms)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        rows: RowNorms = statistics["rows"]
        return rows.l1 if self.norm == 1 else rows.squared.sqrt()


@Lens.register("weight_cosine_similarity", aliases=("cosine_similarity",))
class WeightCosineSimilarity(MetricLens):
    """Mean cosine of a weight row with the other rows of its layer, `(channels,)`, in [-1, 1].

    1 says that all rows point the same way; the mean of rows that point anywhere is about 0, so it
    also is where every row has an opposite: `absolute=True` takes the cosines by size, in [0, 1],
    with a product of all rows with all. Biases do not count. Rows of different groups of a
    convolution read different inputs, so their cosine is 0.
    """

    family = "weights"
    unit = "1"
    importance = -1
    formula = (
        r"\frac{1}{C-1} \sum_{j \ne i} \frac{w_i^\top w_j}{\lVert w_i \rVert \lVert w_j \rVert}"
    )
    degenerate = (
        "A row of zeros, and the only channel of a layer, score 0; copies have a cosine of 1 with "
        "one another."
    )
    exempt: ClassVar = {"non_finite_input": "it reads weights alone"}

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        absolute: bool = False,
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.absolute = absolute

    def reads(self, layer: Layer) -> dict[str, Read]:
        options = {"absolute": True} if self.absolute else {}
        return {"cosines": Read("weight", RowCosines, options)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        total: Tensor = statistics["cosines"].total
        return total / max(layer.channels - 1, 1)


class _Spectrum(MetricLens):
    """A number of the singular values of the matrix that a channel's row is part of."""

    family = "weights"
    unit = "1"
    importance = 0
    where = (
        r"$s_1 \ge s_2 \ge \dots$ are the singular values of the weight as a matrix of rows; of "
        r"a grouped convolution those of the channel's group"
    )
    exempt: ClassVar = {"non_finite_input": "it reads weights alone"}

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"spectrum": Read("weight", SingularValues)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        values: Tensor = statistics["spectrum"].singular
        each = self._of(values)
        return each.repeat_interleave(layer.channels // len(values))

    def _of(self, values: Tensor) -> Tensor:
        raise NotImplementedError


@Lens.register("spectral_gap")
class SpectralGap(_Spectrum):
    """How far a weight's first singular value is ahead of its second, `(channels,)`, in [0, 1].

    1 for a matrix of rank one, 0 where two directions tie. It is a number of a matrix: all channels
    of a layer have the same, so it compares layers, and of a grouped convolution groups.
    """

    formula = r"\frac{s_1 - s_2}{s_1}"
    degenerate = "Weights that are all zero score 0; a single row, or input, scores 1."

    def _of(self, values: Tensor) -> Tensor:
        return formulas.spectral_gap(values)


@Lens.register("spectral_norm_ratio")
class SpectralNormRatio(_Spectrum):
    """Spectral over Frobenius norm of a weight, `(channels,)`, in (0, 1].

    1 for a matrix of rank one, 1 over the root of the rank where all directions tie. It is a number
    of a matrix: all channels of a layer have the same, so it compares layers, and of a grouped
    convolution groups.
    """

    formula = r"\frac{s_1}{\sqrt{\sum_m s_m^2}}"
    degenerate = "Weights that are all zero score 0."

    def _of(self, values: Tensor) -> Tensor:
        return formulas.spectral_norm_ratio(values)


@Lens.register("stable_rank")
class StableRank(_Spectrum):
    """Squared Frobenius over squared spectral norm of a weight, `(channels,)`: a smooth rank.

    From 1 to the rank, and little changed by directions that hardly count. It is a number of a
    matrix: all channels of a layer have the same, so it compares layers, and of a grouped
    convolution groups.
    """

    formula = r"\frac{\sum_m s_m^2}{s_1^2}"
    degenerate = "Weights that are all zero score 0."
    paper = (
        "Rudelson and Vershynin (2007), Sampling from large matrices: an approach through "
        "geometric functional analysis, J. ACM 54(4)"
    )

    def _of(self, values: Tensor) -> Tensor:
        return formulas.stable_rank(values)


@Lens.register("bn_scale")
class BnScale(MetricLens):
    """Size of the scale that the BatchNorm behind a layer gives each channel, `(channels,)`.

    The absolute gamma of the norm that takes in what the layer returns, under the layer's name;
    which norm that is, a first batch shows. So this is the one lens on weights that needs a batch,
    unless the model was run before. Layers without such a norm are not scored, and asking for one
    by name is an error. Norms that take in anything else, such as a sum, belong to no layer.
    """

    family = "weights"
    unit = "weight"
    importance = +1
    formula = r"\lvert \gamma \rvert"
    where = r"$\gamma$ is the channel's weight in the BatchNorm"
    degenerate = (
        "A channel whose scale is 0 scores 0, whatever the layer's own weights; one whose weights "
        "are 0 has the score of its scale."
    )
    paper = (
        "Liu, Li, Shen, Huang, Yan and Zhang (2017), Learning efficient convolutional networks "
        "through network slimming, ICCV"
    )
    exempt: ClassVar = {
        "non_finite_input": "it reads weights alone",
        "no_row_of_padding": "the network of texts has no BatchNorm",
    }

    def covers(self, layer: Layer) -> bool:
        return layer.scaled

    def scores(self, name: str, model: ModelWrapper) -> bool:
        if model.known_route() is not None:
            return super().scores(name, model)
        # Only a pass shows which norm follows; until then any layer may have one, if there are any.
        norms = (m for m in model.module.modules() if isinstance(m, _BatchNorm))
        return name in model.layers and any(norm.weight is not None for norm in norms)

    def refusal(self, model: ModelWrapper) -> str | None:
        if super().refusal(model) is None:
            return None
        return "no BatchNorm with a scale takes in what a linear or convolution layer returns"

    def constants(self, model: ModelWrapper) -> Any:
        """Return what is read of the norms, once a pass has shown which norm follows which layer.

        Raises InvalidValueError until then.
        """
        if model.known_route() is None:
            raise InvalidValueError(
                "no batch was given, and only a pass shows which BatchNorm follows which layer"
            )
        return super().constants(model)

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"scale": Read("weight", RowNorms, view="norm")}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        scale: Tensor = statistics["scale"].l1
        return scale
