"""Loss, accuracy and perplexity of a model over batches, with and without some channels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nodelens.data import Batch
from nodelens.data.disjoint import Fingerprint, Meeting
from nodelens.errors import InvalidValueError
from nodelens.interventions.channels import Channels, Condition, Site, Value, as_condition
from nodelens.interventions.silence import numbered, silenced_outputs
from nodelens.model.loaded import check_loaded
from nodelens.model.loss import Prediction, is_causal, predict
from nodelens.model.wrapper import ModelWrapper, wrap

__all__ = ["Comparison", "Evaluation", "evaluate", "evaluate_conditions"]

_TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """Mean loss a prediction, accuracy (None where there are no classes) and predictions seen.

    `top5` is the fraction whose target is among the five likeliest classes, None where there are
    not more than five. `perplexity` is exp(loss), for a language model that predicts next tokens.
    """

    loss: float
    accuracy: float | None
    rows: int
    top5: float | None = None
    perplexity: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The model as it is, and the same batches under every condition, by the condition's name."""

    dense: Evaluation
    conditions: Mapping[str, Evaluation]

    def loss_changes(self) -> dict[str, float]:
        """Return by how much the mean loss of a prediction rises under every condition."""
        return {name: found.loss - self.dense.loss for name, found in self.conditions.items()}


def evaluate(
    model: Any,
    batches: Iterable[Any],
    channels: Channels | Condition | None = None,
    *,
    heads: Channels | None = None,
    value: Value = "zero",
    site: Site = "output",
    seed: int = 0,
    loss: Any = None,
    calibration: Any = None,
) -> Evaluation:
    """Return loss and accuracy of a model over batches, with some channels silenced.

    `channels` is `{layer: channel numbers, or a bool mask with True to silence}`, `heads` is
    `{attention output projection: head numbers or mask}`; see `silenced_outputs` for `value`,
    `site` and `seed`. The model itself does not change. `calibration` is the data by which the
    channels were chosen, or its `Fingerprint`: rows that are in both give a SharedDataWarning.

    Raises InvalidValueError when there is nothing to predict.
    """
    condition = as_condition(channels, heads=heads, value=value, site=site, seed=seed)
    return _evaluated(model, batches, {"": condition}, loss, calibration)[""]


def evaluate_conditions(
    model: Any,
    batches: Iterable[Any],
    conditions: Mapping[str, Channels | Condition],
    *,
    value: Value = "zero",
    site: Site = "output",
    seed: int = 0,
    loss: Any = None,
    calibration: Any = None,
) -> Comparison:
    """Return the evaluations of several conditions, `{name: channels}`, and of the dense model.

    Each batch is drawn once, and run once as it is and once a condition. A condition is channels
    as `evaluate` takes them, or a `Condition` with heads, value and site of its own.
    """
    made = {
        name: as_condition(chosen, value=value, site=site, seed=seed)
        for name, chosen in conditions.items()
    }
    if not made:
        raise InvalidValueError("no conditions to evaluate, expected {name: {layer: channels}}")
    found = _evaluated(model, batches, {None: Condition(), **made}, loss, calibration)
    return Comparison(found.pop(None), {name: found[name] for name in made})


class _Tally:
    """What one condition has come to so far."""

    def __init__(self) -> None:
        self.loss, self.terms = 0.0, 0
        self.right: int | None = 0
        self.first: int | None = 0

    def take(self, found: Prediction) -> None:
        self.loss += float(found.loss)
        self.terms += found.terms
        right = None if found.correct is None else int(found.correct.sum())
        self.right = _sum(self.right, right)
        self.first = _sum(self.first, None if self.first is None else found.among_first(_TOP))

    def result(self, tokens: bool) -> Evaluation:
        loss = self.loss / self.terms
        perplexity = exponential(loss) if tokens and self.right is not None else None
        return Evaluation(
            loss,
            None if self.right is None else self.right / self.terms,
            self.terms,
            None if self.first is None else self.first / self.terms,
            perplexity,
        )


def exponential(loss: float) -> float:
    """Return exp(loss), infinity where that is more than a float holds."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _sum(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more


def _evaluated(
    model: Any,
    batches: Iterable[Any],
    conditions: Mapping[Any, Condition],
    loss: Any,
    calibration: Any,
) -> dict[Any, Evaluation]:
    wrapper = wrap(model)
    check_loaded(wrapper.module)
    tallies = {name: _Tally() for name in conditions}
    meeting = Meeting(None if calibration is None else Fingerprint.of(calibration))
    # A shuffled DataLoader draws from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        for number, given in enumerate(batches):
            meeting.see(given)
            with numbered(number):
                batch = wrapper.prepare_batch(given)
                for name, condition in conditions.items():
                    tallies[name].take(_predicted(wrapper, batch, condition, loss))
    if not all(tally.terms for tally in tallies.values()):
        raise InvalidValueError("nothing was predicted, expected at least one batch with targets")
    meeting.warn()
    tokens = is_causal(wrapper.module)
    return {name: tally.result(tokens) for name, tally in tallies.items()}


def _predicted(wrapper: ModelWrapper, batch: Batch, condition: Condition, loss: Any) -> Prediction:
    outputs = silenced_outputs(wrapper, batch, condition)
    return predict(outputs, batch, wrapper.module, loss)
