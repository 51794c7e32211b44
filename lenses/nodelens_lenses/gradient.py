"""What the loss would feel: activation times gradient, and the direction of weight updates.

The gradient is that of the loss summed over samples or tokens, so that no score depends on the
batch size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError, nearest
from nodelens.metrics.formulas import row_correlation
from nodelens.model import Layer
from nodelens.statistics import (
    ActivationGradient,
    PatchMoments,
    Read,
    WeightFisher,
    Weights,
    WeightUpdates,
)

__all__ = ["Fisher", "GradientAlignment", "TaylorSaliency"]

_MODES = ("abs_mean", "mean_abs", "sq_mean")
_RULES = ("hebbian", "anti_hebbian", "oja", "input")


@Lens.register("taylor_saliency")
class TaylorSaliency(MetricLens):
    """First-order change of the loss when a channel goes, `(channels,)`, in units of the loss.

    `mode` is "abs_mean" E abs(y g), "mean_abs" abs(E y g) or "sq_mean" E (y g)^2 (squared loss),
    with y what the layer returns and g the gradient there (Molchanov et al. 2017). With
    `spatial="sum"` y g is summed over a map first, so that a row is a sample. `reduction="mean"`
    takes the gradient of the mean loss of each batch.
    """

    family = "gradient"
    unit = "loss"
    importance = +1
    cost = "C"
    formula = r"\tfrac1n \textstyle\sum_r \lvert y_r g_r \rvert"
    where = (
        r"`mean_abs` is $\lvert \frac1n \sum_r y_r g_r \rvert$, `sq_mean` is $\frac1n \sum_r "
        "(y_r g_r)^2$; $g$ is the gradient of the loss summed over samples or tokens"
    )
    degenerate = "A dead channel, and one the loss does not feel, score 0."
    paper = (
        "Molchanov et al. (2017), Pruning convolutional neural networks for resource "
        "efficient inference, ICLR"
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        mode: str = "abs_mean",
        spatial: str = "rows",
        reduction: str = "sum",
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.mode = _one_of("mode", mode, _MODES)
        self.spatial = _one_of("spatial", spatial, ("rows", "sum"))
        self.reduction = _one_of("reduction", reduction, ("sum", "mean"))

    def reads(self, layer: Layer) -> dict[str, Read]:
        per = "sample" if self.spatial == "sum" and layer.is_convolution else "row"
        options = {"per": per, "reduction": self.reduction}
        return {"values": Read("output", ActivationGradient, options)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        values: ActivationGradient = statistics["values"]
        if self.mode == "mean_abs":
            return values.mean("product").abs()
        return values.mean("absolute" if self.mode == "abs_mean" else "square")

    def score_units(self, score: str) -> tuple[str, int]:
        return ("loss^2" if self.mode == "sq_mean" else "loss"), self.importance


@Lens.register("gradient_alignment")
class GradientAlignment(MetricLens):
    """How far gradient descent would move a row as a local rule would, `(channels,)`, in [0, 1].

    The absolute correlation, over the entries of a weight row, of -dL/dW with the update of `rule`:
    "hebbian" E[y x], "anti_hebbian" its negative, "oja" E[y x] - E[y^2] w (Oja 1982) or "input"
    E[x]. Rows without variance score 0. A rule that updates a whole row alike has no correlation,
    so there is none for the output alone.
    """

    family = "gradient"
    unit = "1"
    importance = +1
    state = "C D"
    cost = "C D"
    formula = (
        r"\Bigl\lvert \operatorname{corr}\bigl(-\tfrac{\partial L}{\partial w_i}, \Delta "
        r"w_i^{\text{rule}}\bigr) \Bigr\rvert, \qquad \Delta w_i^{\text{hebbian}} = "
        r"\operatorname{E}[y_i x]"
    )
    where = (
        r"the correlation runs over the entries of row $i$; `oja` is $\operatorname{E}[y_i "
        r"x] - \operatorname{E}[y_i^2] w_i$, `input` is $\operatorname{E}[x]$"
    )
    degenerate = "Rows of one entry, and rows without variance, score 0."
    paper = (
        "Oja (1982), Simplified neuron model as a principal component analyzer, J. Math. Biology 15"
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        rule: str = "hebbian",
    ) -> None:
        super().__init__(pattern, layers=layers)
        if rule == "output":
            raise InvalidValueError(
                "rule 'output' updates all entries of a weight row alike, so that it correlates "
                f"with nothing; expected one of {', '.join(_RULES)}"
            )
        self.rule = _one_of("rule", rule, _RULES)

    def reads(self, layer: Layer) -> dict[str, Read]:
        reads = {"updates": Read("output", WeightUpdates)}
        if self.rule == "oja":
            reads["weights"] = Read("weight", Weights)
        if self.rule == "input":
            reads["inputs"] = Read("input", PatchMoments, view="maps")
        return reads

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        updates: WeightUpdates = statistics["updates"]
        local = updates.hebbian
        if self.rule == "oja":
            rows = statistics["weights"].rows.double()
            local = local - updates.output_square[:, None] * rows
        if self.rule == "input":
            groups = 1 if layer.window is None else layer.window.groups
            mean = statistics["inputs"].mean.unflatten(0, (groups, -1))
            local = mean.repeat_interleave(layer.channels // groups, dim=0)
        return row_correlation(updates.gradient, local)


@Lens.register("fisher")
class Fisher(MetricLens):
    """Diagonal of the empirical Fisher information, summed over a weight row, `(channels,)`.

    The mean over samples of the squared gradient of the loss by every weight of the row, in
    squared loss per squared weight; biases are left out. It is worked out from what a layer takes
    in and the gradient at what it returns: no gradient of a parameter is computed.

    A sample's gradient of a convolution's weight sums over positions before it is squared. Rows of
    linear layers are taken one by one, so that of texts every token is a sample of its own, as is
    every call of a layer that is called several times in a pass. The labels are those given, which
    makes it the empirical Fisher information, not that of labels drawn from the model.
    """

    family = "gradient"
    unit = "loss^2 / weight^2"
    importance = +1
    cost = "C + D; C D of a convolution"
    formula = (
        r"\frac1n \sum_r \sum_d \Bigl( \frac{\partial L_r}{\partial w_d} \Bigr)^2 = "
        r"\frac1n \sum_r \Bigl\lVert \sum_p g_{rp} x_{rp} \Bigr\rVert^2"
    )
    where = (
        "$L_r$ is the loss of sample $r$, $p$ a position of its map and $x_{rp}$ the window there; "
        "for a linear layer there is one, and the score is "
        r"$\frac1n \sum_r g_r^2 \lVert x_r \rVert^2$"
    )
    degenerate = (
        "A channel that the loss does not feel, and one whose input is all zero, score 0; "
        "a constant one scores as any other does, since its weights may still matter."
    )
    paper = (
        "Theis et al. (2018), Faster gaze prediction with dense networks and Fisher pruning, "
        "arXiv 1801.05787"
    )

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"weights": Read("output", WeightFisher)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        weights: WeightFisher = statistics["weights"]
        return weights.square / max(weights.rows, 1)


def _one_of(option: str, value: str, valid: Sequence[str]) -> str:
    if value not in valid:
        raise InvalidValueError(
            f"{option} is {value!r}{nearest(value, valid)}, expected one of {', '.join(valid)}"
        )
    return value
