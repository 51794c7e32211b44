"""What happens without some channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, ModelWrapper
from nodelens.errors import InvalidValueError, MissingTargetsError
from nodelens.interventions import channel_indices, known_layers, silencing
from nodelens.model.layers import check_finite, first_tensor
from nodelens.model.loss import predict
from nodelens.statistics import Mean

__all__ = ["Ablation"]

_UNITS = {"loss": "loss", "accuracy": "fraction of rows", "output": "1"}


@Lens.register("ablation")
class Ablation(Lens):
    """Loss, accuracy and output of a model with a set of channels silenced, against without.

    `channels` is `{layer: channel numbers, or a bool mask with True to silence}`; they are all
    silenced at once, inside the trace, and no weight is written. `value` is "zero" or
    `{layer: (channels,)}`; `site="input"` silences what a layer takes in, such as the units of an
    FFN at its down projection.

    Scores stand under "model", each `(1,)`: `loss`, `loss_ablated`, `loss_change` (a prediction),
    `accuracy`, `accuracy_ablated` for classes, and `output_change`, the size of the difference of
    the outputs over the size of the outputs. A batch without targets gives `output_change` alone.
    """

    edits = True
    family = "intervention"
    needs = ("targets",)
    formula = (
        r"\Delta L = L\bigl(f_{\text{silenced}}\bigr) - L(f), \qquad \text{output change} = "
        r"\frac{\lVert f_{\text{silenced}}(x) - f(x) \rVert}{\lVert f(x) \rVert}"
    )
    where = "$f$ is the model, $L$ the mean loss of a prediction"
    degenerate = (
        "A batch without targets gives `output_change` alone. Outputs that are all zero give 0."
    )

    def __init__(
        self,
        channels: Mapping[str, Sequence[int] | Tensor],
        *,
        value: str | Mapping[str, Tensor] = "zero",
        site: str = "output",
        loss: Any = None,
    ) -> None:
        super().__init__()
        if not channels:
            raise InvalidValueError("no channels to silence, expected {layer: channel numbers}")
        self.channels = channels
        self.value = value
        self.site = site
        self.loss = loss

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens with the first two channels of the first two layers silenced."""
        route = model.known_route()
        names = [name for name in model.layers if route is None or route.reached(name)]
        return cls({name: [0, 1] for name in names[:2]}), {}

    def prepare(self, model: Any, **kwargs: Any) -> ModelWrapper:
        """Return the wrapped model once every layer and channel named is known to exist."""
        wrapper = super().prepare(model, **kwargs)
        for name in known_layers(wrapper, self.channels):
            layer = wrapper.layers[name]
            width = layer.channels if self.site == "output" else layer.inputs
            channel_indices(self.channels[name], width, name)
        return wrapper

    def _watched(self, stream: Any, batch: Any) -> list[str]:
        return list(self.channels)

    def _intervene(self, model: ModelWrapper, **kwargs: Any) -> dict[str, Any]:
        route = model.route(kwargs["batch"])
        body = silencing(model, route, self.channels, value=self.value, site=self.site)
        return {"outputs": body()}

    def _conclude(self, found: list[Any], stream: Any, batch: Any) -> dict[str, dict[Any, Any]]:
        model = stream.model
        changed, dense = found[0]["outputs"], model.forward(batch)
        for outputs in (dense, changed):
            check_finite(_main(outputs), "model", "output")
        measured: dict[Any, Any] = _difference(dense, changed)
        try:
            before = predict(dense, batch, model.module, self.loss)
            after = predict(changed, batch, model.module, self.loss)
        except MissingTargetsError:
            return {"model": measured}
        measured["loss"] = Mean(before.terms, before.loss.reshape(1))
        measured["loss_ablated"] = Mean(after.terms, after.loss.reshape(1))
        if before.correct is not None and after.correct is not None:
            measured["accuracy"] = Mean(before.terms, before.correct.sum().double().reshape(1))
            measured["accuracy_ablated"] = Mean(
                after.terms, after.correct.sum().double().reshape(1)
            )
        return {"model": measured}

    def finish(self, statistics: Any) -> dict[str, dict[str, Tensor]]:
        means = {name: s.mean() for name, s in statistics["model"].items()}
        size = means.pop("output_square")
        change = means.pop("difference_square")
        scores = dict(means)
        if "loss" in scores:
            scores["loss_change"] = scores["loss_ablated"] - scores["loss"]
        safe = torch.where(size > 0, size, torch.ones_like(size))
        scores["output_change"] = (change / safe).sqrt()
        return {"model": scores}

    def score_units(self, score: str) -> tuple[str, int]:
        return _UNITS[score.partition("_")[0]], 0


def _difference(dense: Any, changed: Any) -> dict[str, Mean]:
    before, after = _main(dense), _main(changed)
    size, gap = before.double().square().sum(), (after - before).double().square().sum()
    rows = before.numel()
    return {
        "output_square": Mean(rows, size.reshape(1)),
        "difference_square": Mean(rows, gap.reshape(1)),
    }


def _main(outputs: Any) -> Tensor:
    logits = getattr(outputs, "logits", None)
    tensor = logits if isinstance(logits, Tensor) else first_tensor(outputs)
    if tensor is None:
        raise InvalidValueError(f"a {type(outputs).__name__} holds no tensor to compare")
    return tensor.detach()
