"""What pruning by a strategy would cost: its channels silenced, while the weights stay."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens import Lens, ModelWrapper
from nodelens.data import Batch, Fingerprint
from nodelens.errors import InvalidValueError, SharedDataWarning
from nodelens.interventions import silenced_outputs, silencing
from nodelens.model.loss import finite_prediction, is_causal
from nodelens.pruning import PruningConfig, Strategy, get_pruning_strategy
from nodelens.pruning.config import check_amount
from nodelens.pruning.registry import find_strategy
from nodelens.pruning.units import condition_of
from nodelens.registry import LENSES
from nodelens.statistics import Mean

__all__ = ["PruningProbe"]

_UNITS = {"loss": "loss", "accuracy": "fraction of rows", "perplexity": "1", "removed": "1"}
_SHARED = "rows that losses are taken on were scored on too: give calibration= batches of their own"
_UNSEEN = "calibration= can be read once only: whether losses are taken on its rows is not known"
Masks = dict[str, Tensor]


@dataclass(frozen=True)
class _Same:
    """Batches that calibrate and evaluate."""

    batches: Any


class PruningProbe(Lens):
    """Loss and accuracy or perplexity with the channels silenced that a strategy would prune.

    `amount` is the part of the channels that goes, or `amounts` several, from one preparation of
    the scores. `pruning_mode`, `distribution`, `min_keep`, `min_amount`, `max_amount` and `seed`
    are those of a PruningConfig, `protected` is `{layer: channels that stay}`, `options` are the
    strategy's own. `pattern` and `layers` choose what is pruned. `loss` is that of gradient lenses.
    `structured=False` silences single weights, `nm=(2, 4)` two of every four along a row.

    A run takes `calibration=`, batches that the strategy scores on; without, it scores on those it
    is evaluated on, and a note says so. Rows that are in both give a SharedDataWarning. Scores
    stand under "model": `loss`, `accuracy` or `perplexity` of the whole model, each `(1,)`, and
    `loss_pruned`, `loss_change`, `accuracy_pruned` or `perplexity_pruned`, and `removed`, the part
    of the units silenced, each `(amounts,)`. No weight is written.
    """

    edits = True
    family = "intervention"
    needs = ("targets",)
    formula = r"\Delta L(a) = L\bigl(f_{\text{without } a}\bigr) - L(f)"
    where = "$f$ is the model, $L$ the mean loss of a prediction, $a$ the amount silenced"
    degenerate = "An amount of 0 changes nothing."
    strategy: ClassVar[str] = ""

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        amount: float = 0.5,
        amounts: Sequence[float] | None = None,
        pruning_mode: str = "low",
        distribution: str = "uniform",
        min_keep: int = 1,
        min_amount: float = 0.0,
        max_amount: float = 1.0,
        structured: bool = True,
        nm: tuple[int, int] | None = None,
        seed: int = 0,
        protected: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        loss: Any = None,
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.amount = check_amount(amount)
        self.amounts = None if amounts is None else [check_amount(a) for a in amounts]
        if amounts is not None and not self.amounts:
            raise InvalidValueError("amounts is empty, expected at least one")
        if amounts is not None and nm is not None:
            raise InvalidValueError(f"nm is {nm!r}, which sets the amount: amounts says another")
        self.pruning_mode = pruning_mode
        self.distribution = distribution
        self.min_keep = min_keep
        self.min_amount = min_amount
        self.max_amount = max_amount
        self.structured = structured
        self.nm = nm
        self.seed = seed
        self.protected = protected
        self.options = options
        self.loss = loss
        self._strategy = self._made()

    def _made(self) -> Strategy:
        config = PruningConfig(
            amount=self.amount,
            pruning_mode=self.pruning_mode,
            distribution=self.distribution,
            min_keep=self.min_keep,
            min_amount=self.min_amount,
            max_amount=self.max_amount,
            structured=self.structured,
            nm=self.nm,
            seed=self.seed,
        )
        return get_pruning_strategy(self.strategy, config, **(self.options or {}))

    @property
    def _curve(self) -> list[float]:
        return [self.amount] if self.amounts is None else self.amounts

    # Scores, once a run

    def measure(self, model: Any, batches: Iterable[Any], **kwargs: Any) -> Any:
        """Return the merged statistics of a stream; without `calibration` it is also scored on."""
        if self._strategy.needs and kwargs.get("calibration") is None:
            if iter(batches) is batches:
                raise InvalidValueError(
                    f"lens {self.name!r}: the batches can be gone through only once, and the "
                    "strategy scores on batches too: give calibration=, or a list of batches"
                )
            kwargs["calibration"] = _Same(batches)
        return super().measure(model, batches, **kwargs)

    def _trace(
        self,
        model: ModelWrapper,
        *inputs: Any,
        model_kwargs: Mapping[str, Any],
        intervention_kwargs: Mapping[str, Any],
    ) -> list[Any]:
        stream, batch = intervention_kwargs["stream"], intervention_kwargs["batch"]
        stream.once("masks", lambda: self._masks(model, batch, stream))
        return super()._trace(
            model, *inputs, model_kwargs=model_kwargs, intervention_kwargs=intervention_kwargs
        )

    def _masks(self, model: ModelWrapper, batch: Batch, stream: Any) -> list[Masks]:
        """Return the masks of every amount, from scores measured once."""
        given = stream.own_options.get("calibration")
        if isinstance(given, _Same) or (given is None and self._strategy.needs):
            stream.said.append(
                "scores and losses are from the same data: give calibration= batches of their own"
            )
        elif given is not None and self._strategy.needs:
            if iter(given) is given:
                stream.said.append(_UNSEEN)
            else:
                stream.settled["scored on"] = Fingerprint.of(given)
        batches = [_given(batch)] if given is None else getattr(given, "batches", given)
        scores = self._strategy.scores(model, batches, layers=self.layers, pattern=self.pattern)
        options = self._strategy.budget_options(model, scores, batches)
        return [
            self._strategy.masks(model, scores, amount, protected=self.protected, **options)
            for amount in self._curve
        ]

    def said_of(self, model: ModelWrapper, batch: Batch) -> list[str]:
        axes = batch.axes()
        if axes is None or not is_causal(model.module):
            return []
        dtype = str(next(model.module.parameters()).dtype).removeprefix("torch.")
        return [
            "perplexity is exp of the mean loss of every next token of the batches given, each row "
            f"a block by itself: {axes[1]} tokens in the first, {dtype}; rows counts predictions"
        ]

    # The trace

    def _watched(self, stream: Any, batch: Any) -> list[str]:
        return condition_of(stream.model, stream.settled["masks"][0]).layers

    def _intervene(
        self, model: ModelWrapper, *, calibration: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        masks = kwargs["stream"].settled["masks"][0]
        route = model.route(kwargs["batch"])
        return {"outputs": silencing(model, route, condition_of(model, masks))()}

    def _conclude(self, found: list[Any], stream: Any, batch: Any) -> dict[str, dict[Any, Any]]:
        model, masks = stream.model, stream.settled["masks"]
        self._compare(batch, stream)
        dense = self._predicted(model.forward(batch), batch, model)
        pruned = [self._predicted(found[0]["outputs"], batch, model)]
        for other in masks[1:]:
            outputs = silenced_outputs(model, batch, condition_of(model, other))
            pruned.append(self._predicted(outputs, batch, model))
        measured: dict[Any, Any] = {
            "loss": _mean([dense.loss], dense.terms),
            "loss_pruned": _mean([one.loss for one in pruned], dense.terms),
            "removed": _mean([dense.terms * _part(m) for m in masks], dense.terms),
        }
        if is_causal(model.module):
            measured["causal"] = _mean([dense.terms], dense.terms)
        elif dense.correct is not None:
            measured["accuracy"] = _mean([dense.correct.sum()], dense.terms)
            measured["accuracy_pruned"] = _mean([p.correct.sum() for p in pruned], dense.terms)
        return {"model": measured}

    def _compare(self, batch: Batch, stream: Any) -> None:
        """Warn, once a run, where rows of a batch were scored on."""
        scored_on = stream.settled.get("scored on")
        if scored_on and scored_on.shared(Fingerprint.of(batch.args[:1] or batch.kwargs)):
            stream.settled["scored on"] = None
            stream.said.append(_SHARED)
            warnings.warn(_SHARED, SharedDataWarning, stacklevel=2)

    def _predicted(self, outputs: Any, batch: Batch, model: ModelWrapper) -> Any:
        return finite_prediction(outputs, batch, model.module, self.loss)

    # Scores

    def finish(self, statistics: Any) -> dict[str, dict[str, Tensor]]:
        scores = {name: s.mean() for name, s in statistics["model"].items()}
        if scores.pop("causal", None) is not None:
            scores["perplexity"] = scores["loss"].exp()
            scores["perplexity_pruned"] = scores["loss_pruned"].exp()
        scores["loss_change"] = scores["loss_pruned"] - scores["loss"]
        return {"model": scores}

    def score_units(self, score: str) -> tuple[str, int]:
        return _UNITS[score.partition("_")[0]], 0


def prune_lens(strategy: str) -> type[Lens]:
    """Return the probe of a strategy; UnknownNameError for one that does not exist."""
    find_strategy(strategy)
    about = {
        "name": f"prune_{strategy}",
        "strategy": strategy,
        "__module__": __name__,
        "__doc__": PruningProbe.__doc__,
    }
    return type(f"Prune{strategy.title().replace('_', '')}", (PruningProbe,), about)


LENSES.add_family("prune_", prune_lens)


def _part(masks: Masks) -> float:
    gone = sum(int((~mask).sum()) for mask in masks.values())
    return gone / sum(mask.numel() for mask in masks.values())


def _mean(sums: Sequence[Any], terms: int) -> Mean:
    return Mean(terms, torch.tensor([float(s) for s in sums], dtype=torch.float64))


def _given(batch: Batch) -> Any:
    """A prepared batch as one that a user would give."""
    keywords = dict(batch.kwargs)
    if batch.labels is not None:
        keywords["labels"] = batch.labels
    own = {"targets": batch.targets, "mask": batch.mask, "loss": batch.loss}
    return batch.args, {**own, "model_kwargs": keywords, "token_classes": batch.token_classes}
