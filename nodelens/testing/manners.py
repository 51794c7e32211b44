"""What a lens owes its user: the model left as it was, and mistakes named."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy
import torch
from torch import Tensor, nn

from nodelens.errors import UnknownOptionError
from nodelens.lens import Lens
from nodelens.testing.trial import Trial

__all__ = ["options_are_checked", "untouched_after_a_failure", "untouched_model"]

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


def untouched_model(trial: Trial) -> None:
    """The user's model, batches and generators are left as they were."""
    model, parts = _lived_in(trial.model()), trial.parts(7, 5)
    # Made for a twin: this model is met for the first time by the run.
    lens, options = trial.lens(trial.model())
    with _unchanged(model, parts):
        lens.run(model, parts, progress=False, **options)
        lens.analyse(model, parts[0], **options)


def untouched_after_a_failure(trial: Trial) -> None:
    """The user's model is left as it was when the lens, or the model itself, fails half-way."""
    model, parts = _lived_in(trial.model()), trial.parts(7, 5)
    lens, options = trial.lens(trial.model())
    for place in ("_intervene", "_conclude", "_trace"):
        with (
            _unchanged(model, parts),
            patch.object(lens, place, side_effect=_Planted(place)),
            _expected(_Planted),
        ):
            lens.run(model, parts, progress=False, **options)
    hook = list(model.modules())[-1].register_forward_pre_hook(_fail)
    with _unchanged(model, parts), _expected(_Planted):
        lens.run(model, parts, progress=False, **options)
    hook.remove()
    with _unchanged(model, parts):
        lens.run(model, parts, progress=False, **options)


def options_are_checked(trial: Trial) -> None:
    """An unknown option, of the lens or of a run, is a TypeError with the nearest name."""
    model, parts = trial.model(), trial.parts(4)
    lens, options = trial.lens(model)
    for known in list(inspect.signature(trial.kind).parameters)[:1]:
        _assert_refused(known, lambda wrong: Lens.from_name(trial.name, **{wrong: None}))

    def run(wrong: str) -> Any:
        given: dict[str, Any] = {**options, wrong: None}
        return lens.run(model, parts, progress=False, **given)

    for known in ("targets", *options):
        _assert_refused(known, run)


def _assert_refused(known: str, call: Callable[[str], Any]) -> None:
    wrong = known + known[-1]
    try:
        call(wrong)
    except UnknownOptionError as error:
        assert repr(wrong) in str(error) and repr(known) in str(error), (
            f"the error does not say that {wrong!r} may mean {known!r}: {error}"
        )
    else:
        raise AssertionError(f"the unknown option {wrong!r} was taken")


class _Planted(Exception):
    """The failure that a check puts into a lens or a model."""


def _fail(*_: Any) -> Any:
    raise _Planted("forward")


@contextmanager
def _expected(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    raise AssertionError(f"the planted {kind.__name__} did not come out")


def _lived_in(model: nn.Module) -> nn.Module:
    """Return the model as users have theirs: in training, half frozen, some gradients, hooks."""
    model.train()
    next(iter(model.children())).eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 != 0)
        if number % 2:
            parameter.grad = torch.full_like(parameter, 0.25)
    first, last = next(iter(model.children())), list(model.modules())[-1]
    first.register_forward_hook(lambda *_: None)
    last.register_forward_pre_hook(lambda *_: None)
    model.register_full_backward_hook(lambda *_: None)
    return model


@dataclass(frozen=True)
class _Tensor:
    """One tensor of a model or a batch: its identity and all that could change of it."""

    tensor: Tensor
    value: Tensor
    requires_grad: bool
    grad: Tensor | None
    grad_value: Tensor | None

    @classmethod
    def of(cls, tensor: Tensor) -> _Tensor:
        grad = tensor.grad
        copy = None if grad is None else grad.clone()
        return cls(tensor, tensor.detach().clone(), tensor.requires_grad, grad, copy)

    def check(self, name: str) -> None:
        assert torch.equal(self.tensor, self.value), f"{name} has other values"
        assert self.tensor.requires_grad == self.requires_grad, f"requires_grad of {name} changed"
        assert self.tensor.grad is self.grad, f"{name} has another .grad"
        if self.grad is not None and self.grad_value is not None:
            assert torch.equal(self.grad, self.grad_value), f".grad of {name} has other values"


@contextmanager
def _unchanged(model: nn.Module, batches: Any) -> Iterator[None]:
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    tensors |= {f"batch tensor {i}": t for i, t in enumerate(_tensors(batches))}
    before = {name: _Tensor.of(tensor) for name, tensor in tensors.items()}
    structure, generators = _structure(model), _generators()
    yield
    now = dict((*model.named_parameters(), *model.named_buffers()))
    for name, seen in before.items():
        seen.check(name)
        assert name not in now or now[name] is seen.tensor, f"{name} is another tensor"
    for (what, old), new in zip(structure.items(), _structure(model).values(), strict=True):
        assert old == new, f"{what}: {new}, was {old}"
    for (what, old), new in zip(generators.items(), _generators().values(), strict=True):
        assert old == new, f"{what} changed"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _structure(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {"the modules": [n for n, _ in model.named_modules()]}
    for name, module in model.named_modules():
        found[f"training flag of {name!r}"] = module.training
        found[f"attributes of {name!r}"] = sorted(vars(module))
        for hooks in _HOOKS:
            found[f"{hooks} of {name!r}"] = list(getattr(module, hooks).items())
    return found


def _generators() -> dict[str, Any]:
    mersenne = numpy.random.get_state(legacy=False)["state"]  # noqa: NPY002 (only looked at)
    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "Python's generator": random.getstate(),
        "NumPy's generator": (mersenne["key"].tobytes(), mersenne["pos"]),
        "gradient mode": torch.is_grad_enabled(),
        "the default type": torch.get_default_dtype(),
    }
