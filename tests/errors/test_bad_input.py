"""Bad input: the class of every error, the built-in it also is, and what its text says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nodelens import NodeLensError
from nodelens.errors import (
    IncompatibleModelError,
    InvalidValueError,
    LayerNotFoundError,
    MergeError,
    MissingLossError,
    MissingTargetsError,
    NonFiniteError,
    OutputError,
    ShapeError,
    TooFewRowsError,
    UnknownNameError,
    UnknownOptionError,
)
from tests.errors import data, names, values
from tests.errors.attempts import Attempt, Wrong, network, select

ERRORS: list[tuple[type[NodeLensError], type[Exception], Wrong]] = [
    (UnknownNameError, KeyError, names.NAMES),
    (UnknownOptionError, TypeError, names.OPTIONS),
    (LayerNotFoundError, ValueError, names.LAYERS),
    (IncompatibleModelError, ValueError, values.MODELS),
    (ShapeError, ValueError, data.SHAPES),
    (TooFewRowsError, ValueError, data.ROWS),
    (NonFiniteError, ValueError, data.NUMBERS),
    (MissingTargetsError, ValueError, data.TARGETS),
    (MissingLossError, ValueError, data.LOSSES),
    (InvalidValueError, ValueError, values.VALUES),
    (MergeError, ValueError, values.MERGES),
    (OutputError, OSError, values.FILES),
]
CASES = [
    pytest.param(error, builtin, attempt, message, id=f"{error.__name__}-{number}")
    for error, builtin, attempts in ERRORS
    for number, (attempt, message) in enumerate(attempts)
]


@pytest.mark.parametrize(("error", "builtin", "attempt", "message"), CASES)
def test_bad_input_gets_a_clear_error_and_changes_nothing(
    error: type[NodeLensError], builtin: type[Exception], attempt: Attempt, message: str
):
    model = network().train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with pytest.raises(error, match=message) as caught:
        attempt(model)
    assert type(caught.value) is error and isinstance(caught.value, builtin)
    # A KeyError shows the repr of its argument unless it is told otherwise.
    assert str(caught.value) == caught.value.args[0] and "\\n" not in str(caught.value)
    same(model, before)


def same(model: nn.Module, before: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.requires_grad
        assert (parameter.grad is None) == (name != "0.weight")
    assert torch.equal(model[0].weight.grad, torch.ones(6, 4))
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_lens_works_after_every_error():
    model = network()
    expected = select()(model)
    for _, _, attempts in ERRORS:
        for attempt, _ in attempts:
            with pytest.raises(NodeLensError):
                attempt(model)
    again = select()(model)
    for layer, scores in expected.items():
        assert torch.equal(again[layer]["activation_mean"], scores["activation_mean"])
