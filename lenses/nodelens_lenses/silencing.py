"""What happens without some channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, ModelWrapper
from nodelens.errors import InvalidValueError, MissingTargetsError
from nodelens.interventions import (
    Condition,
    channel_losses,
    parts_of,
    silenced_outputs,
    silencing,
)
from nodelens.model.layers import check_finite
from nodelens.model.loss import logits_in, predict
from nodelens.statistics import Mean

__all__ = ["Ablation", "SingleChannelDamage"]

Channels = Mapping[str, Sequence[int] | Tensor]

_UNITS = {"loss": "loss", "accuracy": "fraction of rows", "output": "1"}


@Lens.register("ablation")
class Ablation(Lens):
    """Loss, accuracy and output of a model with a set of channels silenced, against without.

    `channels` is `{layer: channel numbers, or a bool mask with True to silence}`, `heads` is
    `{attention output projection: head numbers or mask}`; they are all silenced at once, inside the
    trace, and no weight is written. `value` is "zero", "mean" (of the batch's rows), "resample"
    (the values of other rows of the batch, chosen by `seed`) or `{layer: (channels,)}`;
    `site="input"` silences what a layer takes in, such as the units of an FFN at its down
    projection. Several sets are measured against one dense pass by `conditions`, `{name: channels}`
    or `{name: Condition}`, in the place of `channels` and `heads`.

    Scores stand under "model", or under a condition's name, each `(1,)`: `loss`, `loss_ablated`,
    `loss_change` (a prediction), `accuracy`, `accuracy_ablated` for classes, and `output_change`,
    the size of the difference of the outputs over the size of the outputs. A batch without targets
    gives `output_change` alone.
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
        channels: Channels | None = None,
        *,
        heads: Channels | None = None,
        conditions: Mapping[str, Channels | Condition] | None = None,
        value: str | Mapping[str, Tensor] = "zero",
        site: str = "output",
        seed: int = 0,
        loss: Any = None,
    ) -> None:
        super().__init__()
        if conditions and (channels or heads):
            raise InvalidValueError(
                "channels or heads are given beside conditions: put them into a condition of "
                "their own"
            )
        if not channels and not heads and not conditions:
            raise InvalidValueError("no channels to silence, expected {layer: channel numbers}")
        self.channels = channels
        self.heads = heads
        self.conditions = conditions
        self.value = value
        self.site = site
        self.seed = seed
        self.loss = loss

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens with the first two channels of the first two layers silenced."""
        route = model.known_route()
        names = [name for name in model.layers if route is None or route.reached(name)]
        return cls({name: [0, 1] for name in names[:2]}), {}

    def prepare(self, model: Any, **kwargs: Any) -> ModelWrapper:
        """Return the wrapped model once all that is named is known to exist."""
        wrapper = super().prepare(model, **kwargs)
        for condition in self._made().values():
            parts_of(wrapper, condition)
        return wrapper

    def _made(self) -> dict[str, Condition]:
        """The conditions by name; the one without a name of its own is "model"."""
        options: Any = {"value": self.value, "site": self.site, "seed": self.seed}
        if not self.conditions:
            return {"model": Condition(self.channels or {}, self.heads or {}, **options)}
        return {
            name: given if isinstance(given, Condition) else Condition(given, {}, **options)
            for name, given in self.conditions.items()
        }

    def _watched(self, stream: Any, batch: Any) -> list[str]:
        return next(iter(self._made().values())).layers

    def _intervene(self, model: ModelWrapper, **kwargs: Any) -> dict[str, Any]:
        batch, first = kwargs["batch"], next(iter(self._made().values()))
        return {"outputs": silencing(model, model.route(batch), first, batch=batch)()}

    def _conclude(self, found: list[Any], stream: Any, batch: Any) -> dict[str, dict[Any, Any]]:
        model = stream.model
        changed, dense = found[0]["outputs"], model.forward(batch)
        measured: dict[str, dict[Any, Any]] = {}
        for name, condition in self._made().items():
            # The first condition is what the trace was opened with.
            changed = silenced_outputs(model, batch, condition) if measured else changed
            measured[name] = self._compared(dense, changed, batch, model)
        return measured

    def _compared(
        self, dense: Any, changed: Any, batch: Any, model: ModelWrapper
    ) -> dict[Any, Any]:
        for outputs in (dense, changed):
            check_finite(_main(outputs), "model", "output")
        measured: dict[Any, Any] = _difference(dense, changed)
        try:
            before = predict(dense, batch, model.module, self.loss)
            after = predict(changed, batch, model.module, self.loss)
        except MissingTargetsError:
            return measured
        measured["loss"] = Mean(before.terms, before.loss.reshape(1))
        measured["loss_ablated"] = Mean(after.terms, after.loss.reshape(1))
        if before.correct is not None and after.correct is not None:
            measured["accuracy"] = Mean(before.terms, before.correct.sum().double().reshape(1))
            measured["accuracy_ablated"] = Mean(
                after.terms, after.correct.sum().double().reshape(1)
            )
        return measured

    def finish(self, statistics: Any) -> dict[str, dict[str, Tensor]]:
        return {name: _scores(found) for name, found in statistics.items()}

    def score_units(self, score: str) -> tuple[str, int]:
        return _UNITS[score.partition("_")[0]], 0


@Lens.register("single_channel_damage")
class SingleChannelDamage(Lens):
    """By how much the loss rises when a channel alone is silenced, for every channel of a layer.

    What other scores predict, measured: one forward pass a channel, of which `at_once` share one by
    repeating the batch. `value` is "zero", "mean" (of the batch's rows), "resample" (the values of
    other rows of the batch, chosen by `seed`) or `{layer: (channels,)}`; `site="input"` silences
    what a layer takes in, such as the units of an FFN at its down projection. Choose layers by
    `layers` or `pattern`: of a large model all of them take long.
    """

    edits = True
    family = "intervention"
    unit = "loss"
    importance = 1
    needs = ("targets",)
    formula = r"\Delta L_j = L\bigl(f_{\text{without } j}\bigr) - L(f)"
    where = "$f$ is the model, $L$ the mean loss of a prediction, $j$ a channel"
    degenerate = "A channel that changes nothing gives 0; one that does harm gives less."

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        value: str | Mapping[str, Tensor] = "zero",
        site: str = "output",
        seed: int = 0,
        at_once: int = 16,
        loss: Any = None,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if at_once < 1:
            raise InvalidValueError(f"at_once is {at_once!r}, expected 1 or more")
        self.value = value
        self.site = site
        self.seed = seed
        self.at_once = at_once
        self.loss = loss

    def _intervene(self, model: ModelWrapper, **kwargs: Any) -> dict[str, Any]:
        return {"outputs": model.nnsight.output}

    def _conclude(self, found: list[Any], stream: Any, batch: Any) -> dict[str, dict[Any, Any]]:
        model, dense = stream.model, found[0]["outputs"]
        check_finite(_main(dense), "model", "output")
        before = predict(dense, batch, model.module, self.loss)
        measured: dict[str, dict[Any, Any]] = {}
        for name, _ in self._get_modules(model):
            layer = model.layers[name]
            width = layer.channels if self.site == "output" else layer.inputs
            every = Condition({name: range(width)}, {}, self.value, self.site, self.seed)
            losses = channel_losses(
                model, batch, dense, every, at_once=self.at_once, loss=self.loss
            )
            change = losses - float(before.loss)
            measured[name] = {"loss_change": Mean(before.terms, change)}
        return measured

    def finish(self, statistics: Any) -> dict[str, dict[str, Tensor]]:
        return {
            name: {"loss_change": _predicted(found["loss_change"]).mean()}
            for name, found in statistics.items()
        }


def _predicted(loss: Mean) -> Mean:
    if not loss.rows:
        raise InvalidValueError("nothing was predicted, expected targets other than -100")
    return loss


def _scores(found: Mapping[Any, Mean]) -> dict[str, Tensor]:
    means = {name: statistic.mean() for name, statistic in found.items()}
    size, change = means.pop("output_square"), means.pop("difference_square")
    scores = dict(means)
    if "loss" in scores:
        _predicted(found["loss"])
        scores["loss_change"] = scores["loss_ablated"] - scores["loss"]
    safe = torch.where(size > 0, size, torch.ones_like(size))
    scores["output_change"] = (change / safe).sqrt()
    return scores


def _difference(dense: Any, changed: Any) -> dict[str, Mean]:
    before, after = _main(dense), _main(changed)
    size, gap = before.double().square().sum(), (after - before).double().square().sum()
    rows = before.numel()
    return {
        "output_square": Mean(rows, size.reshape(1)),
        "difference_square": Mean(rows, gap.reshape(1)),
    }


def _main(outputs: Any) -> Tensor:
    tensor = logits_in(outputs)
    if tensor is None:
        raise InvalidValueError(f"a {type(outputs).__name__} holds no tensor to compare")
    return tensor.detach()
