"""What scores are worth: units, shapes, dead and doubled units, padding, NaN, few rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.errors import NodeLensError, NonFiniteError
from nodelens.model import Layer, wrap
from nodelens.testing.subjects import TOKENS, padded, rows_of
from nodelens.testing.trial import TOLERANCE, Trial, assert_close, assert_finite

__all__ = [
    "degenerate_units",
    "described",
    "few_rows",
    "half_precision",
    "no_row_of_padding",
    "non_finite_input",
]

_LENGTHS = (3, 5, 4, 6, 1)
_HALF_TOLERANCE = 0.08
_NEVER_DRAWN = 0


def described(trial: Trial) -> None:
    """Every score has a unit, a direction, its rows, and finite float64 numbers of channels."""
    model = trial.model()
    result = trial.run(trial.parts(12), model)
    assert_finite(result)
    assert result.lens == trial.name, f"the result is of {result.lens!r}"
    layers = wrap(model).layers
    for layer, scores in result.items():
        assert layer in result.rows, f"the result does not say how many rows {layer!r} had"
        for name, values in scores.items():
            assert result.units.get(name), f"score {name!r} has no unit"
            assert result.importance.get(name) in (-1, 0, 1), f"score {name!r} has no direction"
            assert values.dtype == torch.float64 and values.device.type == "cpu", values.dtype
            expected = _widths(layers[layer]) if layer in layers else {1}
            assert values.ndim == 0 or (values.ndim == 1 and len(values) in expected), (
                f"layer {layer!r}: score {name!r} has shape {tuple(values.shape)}, "
                f"expected one of {sorted(expected)} channels, or ()"
            )


def _widths(layer: Layer) -> set[int]:
    """How many scores a layer may have: one a channel, one an input, or one a head."""
    heads = {layer.heads, layer.key_value_heads} if layer.heads else set()
    return {layer.channels, layer.inputs} | heads


def half_precision(trial: Trial) -> None:
    """A bfloat16 model and input give finite scores, near those of float32."""
    half, rows = trial.model(torch.bfloat16), 48
    low = trial.run([trial.batch(rows, torch.bfloat16)], half)
    assert_finite(low)
    inputs, targets = trial.batch(rows, torch.bfloat16)
    same = inputs if isinstance(inputs, dict) else inputs.float()
    full = trial.run([(same, targets)], trial.model(torch.bfloat16).float())
    assert_close(low, full, _HALF_TOLERANCE)


def no_row_of_padding(trial: Trial) -> None:
    """Texts padded on either side give the scores of texts without padding."""
    texts = Trial(trial.name, TOKENS)
    batch, model = texts.batch(len(_LENGTHS)), texts.model(torch.float64)
    plain = [_one_text(batch, row, length) for row, length in enumerate(_LENGTHS)]
    expected = texts.run(plain, model)
    for side in ("left", "right"):
        result = texts.run([padded(batch, _LENGTHS, side)], model)
        assert_close(result, expected, TOLERANCE[torch.float64])
        assert result.rows == expected.rows, f"{side}: {result.rows} rows, not {expected.rows}"


def _one_text(batch: tuple[Any, Tensor], row: int, length: int) -> tuple[Any, Tensor]:
    inputs, targets = rows_of(batch, slice(row, row + 1))
    return {name: value[:, :length] for name, value in inputs.items()}, targets


def degenerate_units(trial: Trial) -> None:
    """Units always zero, always the same or copies of others score finite numbers in any split."""
    wide = torch.float64
    model = trial.model(wide)
    for name, layer in wrap(model).layers.items():
        _degrade(wrap(model).torch_module(name), layer.channels)
    split = trial.run(trial.parts(7, 5, dtype=wide), model)
    assert_finite(split)
    assert_close(split, trial.run(trial.parts(12, dtype=wide), model), TOLERANCE[wide])
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert_finite(trial.run(trial.parts(7, 5, dtype=wide), model))


def _degrade(module: nn.Module, channels: int) -> None:
    """Make channel 0 zero, 1 and 2 constant, and 4 a copy of 3, where there are so many."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    with torch.no_grad():
        weight[:3], bias[0] = 0, 0
        if channels > 4:
            # Numbers that no float holds exactly: a mean of them is easily off by a bit.
            bias[1], bias[2] = 0.1, -12.3
            weight[4], bias[4] = weight[3], bias[3]


def non_finite_input(trial: Trial) -> None:
    """NaN and infinite values are an error that names the lens, the layer and the batch."""
    for value in (math.nan, math.inf, -math.inf):
        model, parts = trial.model(), trial.parts(7, 5)
        _plant(model, parts[1][0], value)
        try:
            trial.run(parts, model)
        except NonFiniteError as error:
            _assert_located(str(error), trial, model)
        else:
            raise AssertionError(f"{value} in the second batch was not noticed")


def _plant(model: nn.Module, inputs: Any, value: float) -> None:
    if not isinstance(inputs, dict):
        inputs[2, 0] = value
        return
    inputs["input_ids"][2, 0] = _NEVER_DRAWN
    words = model.get_submodule("words").weight
    assert isinstance(words, Tensor)
    with torch.no_grad():
        words[_NEVER_DRAWN] = value


def _assert_located(message: str, trial: Trial, model: nn.Module) -> None:
    assert repr(trial.name) in message, f"the lens is not named: {message}"
    assert "batch 1" in message, f"the batch is not named: {message}"
    names = ["model", *wrap(model).layers]
    assert any(repr(name) in message for name in names), f"the layer is not named: {message}"


def few_rows(trial: Trial) -> None:
    """No row, and one row, give finite scores or an error that names the lens."""
    for rows in (0, 1):
        try:
            result = trial.run(trial.parts(rows))
        except NodeLensError as error:
            assert repr(trial.name) in str(error), f"the lens is not named: {error}"
        else:
            assert_finite(result)
    assert_close(
        trial.run(trial.parts(0, 7, 0, 5)), trial.run(trial.parts(7, 5)), TOLERANCE[torch.float32]
    )
