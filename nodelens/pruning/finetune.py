"""Fine-tuning what pruning left: masked weights stay zero, channels learn at rates of their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError, NonFiniteError, nearest
from nodelens.interventions import Evaluation, evaluate, known_layers
from nodelens.model import ModelWrapper, wrap
from nodelens.model.loaded import check_loaded
from nodelens.model.loss import predict
from nodelens.pruning.config import whole
from nodelens.pruning.reach import reached

__all__ = ["MULTIPLIERS", "OPTIMIZERS", "FineTuned", "TunedEpoch", "finetune"]

MULTIPLIERS: Mapping[str, tuple[float, float]] = {
    "critical": (0.5, 0.5),
    "synergistic": (1.0, 1.0),
    "redundant": (1.5, 1.25),
    "background": (1.5, 1.5),
}
"""What a channel type multiplies the learning rate and the weight decay with."""

OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class TunedEpoch:
    """Mean training loss of an epoch, and what the validation split says behind it.

    Epoch 0 is the model before training, whose training loss is None.
    """

    epoch: int
    loss: float | None
    validation: Evaluation


@dataclass(frozen=True)
class FineTuned:
    """The model as it was after `best_epoch`, the one of lowest validation loss, and all epochs."""

    model: nn.Module
    history: list[TunedEpoch]
    best_epoch: int


@dataclass(frozen=True)
class _Held:
    """Multipliers and masks over one parameter; each broadcasts over it."""

    parameter: nn.Parameter
    keep: Tensor | None
    rate: Tensor | None
    decay: Tensor | None


def finetune(
    model: Any,
    train: Iterable[Any],
    validation: Iterable[Any],
    *,
    masks: Mapping[str, Tensor] | None = None,
    types: Mapping[str, Sequence[str]] | None = None,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    optimizer: str = "sgd",
    patience: int | None = None,
    loss: Any = None,
    seed: int = 0,
    in_place: bool = False,
) -> FineTuned:
    """Return a trained copy of a pruned model, or with `in_place=True` the model itself, trained.

    `masks` are bool, True = kept: `{layer: (channels,)}`, `(units,)` under an FFN's down
    projection, or of the weight's shape; what they remove is zero before, during and after.
    `types` is `{layer: type of every channel}`, with the multipliers of `MULTIPLIERS` on learning
    rate and weight decay. `train` and `validation` are batches that can be gone through again; the
    epoch is chosen on `validation`, which must not be the test split, and training ends once
    `patience` epochs have brought nothing. "sgd" decays weights through the gradient, with
    momentum; "adamw" apart from it.

    Raises InvalidValueError for batches that can be read once or a split used twice,
    NonFiniteError when the loss is no longer a number; in place the model is then as it was.
    """
    _check(train, validation, epochs, learning_rate, weight_decay, momentum, optimizer, patience)
    check_loaded(wrap(model).module)
    module = wrap(model).module if in_place else _copied(wrap(model).module)
    wrapper = wrap(module)
    with _seeded(seed), _put_back(module):
        wrapper.route(wrapper.prepare_batch(next(iter(train))))
        held = _held(wrapper, masks or {}, types or {})
        history, best = [TunedEpoch(0, None, evaluate_silently(wrapper, held, validation, loss))], 0
        kept = _state(module)
        steps = _Steps(wrapper, held, learning_rate, weight_decay, momentum, optimizer)
        for epoch in range(1, epochs + 1):
            trained = steps.epoch(train, loss, epoch)
            history.append(TunedEpoch(epoch, trained, evaluate(wrapper, validation, loss=loss)))
            if history[-1].validation.loss < history[best].validation.loss:
                best, kept = epoch, _state(module)
            elif patience is not None and epoch - best >= patience:
                break
        module.load_state_dict(kept)
    return FineTuned(module, history, best)


def evaluate_silently(
    wrapper: ModelWrapper, held: Sequence[_Held], validation: Iterable[Any], loss: Any
) -> Evaluation:
    """Return what the validation split says of the model once its masks are applied."""
    _silence(held)
    return evaluate(wrapper, validation, loss=loss)


class _Steps:
    """An optimizer whose steps respect masks and multipliers."""

    def __init__(
        self,
        wrapper: ModelWrapper,
        held: Sequence[_Held],
        learning_rate: float,
        weight_decay: float,
        momentum: float,
        optimizer: str,
    ) -> None:
        self.wrapper, self.held = wrapper, held
        self.rate, self.decay, self.coupled = learning_rate, weight_decay, optimizer == "sgd"
        self.parameters = [p for p in wrapper.module.parameters() if p.requires_grad]
        if not self.parameters:
            raise InvalidValueError("the model has no parameter that requires a gradient")
        self.own = {id(h.parameter): h for h in held}
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(self.parameters, lr=learning_rate, momentum=momentum)
            if self.coupled
            else torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=0.0)
        )

    def epoch(self, batches: Iterable[Any], loss: Any, number: int) -> float:
        """Return the mean loss of one pass over the batches, a step behind each."""
        module, total, terms = self.wrapper.module, 0.0, 0
        module.train()
        for given in batches:
            batch = self.wrapper.prepare_batch(given)
            try:
                found = predict(module(*batch.args, **batch.kwargs), batch, module, loss)
            except NonFiniteError as error:
                error.within(f"epoch {number}, learning rate {self.rate}")
                raise
            self.optimizer.zero_grad(set_to_none=True)
            (found.loss / max(found.terms, 1)).backward()
            self.step()
            total, terms = total + float(found.loss.detach()), terms + found.terms
        module.eval()
        return total / max(terms, 1)

    @torch.no_grad()
    def step(self) -> None:
        """Take one step: gradients decayed, updates scaled, masked weights zero."""
        for parameter in self.parameters:
            self._before(parameter)
        before = {id(h.parameter): h.parameter.clone() for h in self.held if h.rate is not None}
        self.optimizer.step()
        for held in self.held:
            if held.rate is not None:
                start = before[id(held.parameter)]
                held.parameter.copy_(start + held.rate * (held.parameter - start))
        _silence(self.held)

    def _before(self, parameter: nn.Parameter) -> None:
        if parameter.grad is None:
            return
        held = self.own.get(id(parameter))
        if self.decay:
            more = 1.0 if held is None or held.decay is None else held.decay
            if self.coupled:
                parameter.grad.add_(self.decay * more * parameter)
            else:
                rate = 1.0 if held is None or held.rate is None else held.rate
                parameter.mul_(1 - self.rate * rate * self.decay * more)


@torch.no_grad()
def _silence(held: Sequence[_Held]) -> None:
    for each in held:
        if each.keep is not None:
            # Not by a product, which would leave NaN and minus zero where they were.
            each.parameter.masked_fill_(~each.keep, 0)


def _held(
    wrapper: ModelWrapper, masks: Mapping[str, Tensor], types: Mapping[str, Sequence[str]]
) -> list[_Held]:
    """What masks and types say of every parameter they reach."""
    known_layers(wrapper, {**masks, **types})
    keep = _by_parameter(wrapper, {name: mask.bool() for name, mask in masks.items()})
    found = {name: _multipliers(name, kinds) for name, kinds in types.items()}
    rates = _by_parameter(wrapper, {name: rate for name, (rate, _) in found.items()})
    decays = _by_parameter(wrapper, {name: decay for name, (_, decay) in found.items()})
    parameters = {id(p): p for p in wrapper.module.parameters()}
    return [
        _Held(parameters[i], keep.get(i), rates.get(i), decays.get(i))
        for i in dict.fromkeys([*keep, *rates])
    ]


def _by_parameter(wrapper: ModelWrapper, values: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Numbers over each parameter; of one that several layers' channels meet in, the product."""
    found: dict[int, Tensor] = {}
    for name, given in values.items():
        for parameter, shaped in reached(wrapper, name, given.to(wrapper.device)):
            like = shaped if shaped.dtype == torch.bool else shaped.to(parameter.dtype)
            known = found.get(id(parameter))
            found[id(parameter)] = like if known is None else known * like
    return found


def _multipliers(name: str, kinds: Sequence[str]) -> tuple[Tensor, Tensor]:
    for kind in kinds:
        if kind not in MULTIPLIERS:
            raise InvalidValueError(
                f"layer {name!r}: type {kind!r}{nearest(str(kind), MULTIPLIERS)}, expected one of "
                f"{', '.join(MULTIPLIERS)}"
            )
    rate, decay = zip(*(MULTIPLIERS[kind] for kind in kinds), strict=True)
    return torch.tensor(rate), torch.tensor(decay)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _copied(module: nn.Module) -> nn.Module:
    """A copy that shares nothing; gradients of the original are not its own."""
    found = copy.deepcopy(module)
    for parameter in found.parameters():
        parameter.grad = None
    return found


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Dropout and shuffling draw from torch's global generator: seeded here, and put back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _put_back(module: nn.Module) -> Iterator[None]:
    """Restore modes and gradients at the end, and after an exception all weights too."""
    modes = [(m, m.training) for m in module.modules()]
    gradients = [(p, p.grad) for p in module.parameters()]
    before = _state(module)
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    except BaseException:
        module.load_state_dict(before)
        raise
    finally:
        for part, training in modes:
            part.training = training
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _check(
    train: Any,
    validation: Any,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
    optimizer: str,
    patience: int | None,
) -> None:
    for what, batches in (("train", train), ("validation", validation)):
        if isinstance(batches, Iterator) or not isinstance(batches, Iterable):
            raise InvalidValueError(
                f"{what} is a {type(batches).__name__}, expected a list or DataLoader: it is gone "
                "through once an epoch"
            )
    if train is validation:
        raise InvalidValueError("train and validation are one split, expected two")
    whole("epochs", epochs, 1)
    if patience is not None:
        whole("patience", patience, 1)
    if optimizer not in OPTIMIZERS:
        raise InvalidValueError(
            f"optimizer is {optimizer!r}{nearest(str(optimizer), OPTIMIZERS)}, expected one of "
            f"{', '.join(OPTIMIZERS)}"
        )
    for what, value, least in (
        ("learning_rate", learning_rate, 0.0),
        ("weight_decay", weight_decay, 0.0),
        ("momentum", momentum, 0.0),
    ):
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
            raise InvalidValueError(f"{what} is {value!r}, expected a number of at least 0")
