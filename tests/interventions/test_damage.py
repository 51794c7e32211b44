"""Channels silenced many in one pass cost what each costs alone, and fewer passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens
from nodelens.errors import InvalidValueError
from nodelens.interventions import evaluate, means, single_channel_damage
from tests.interventions.plainly import batches, network
from tests.model.families import language_model, text


def one_by_one(
    model: nn.Module, given: list[Any], layer: str, channels: Any, **options: Any
) -> Tensor:
    dense = evaluate(model, given).loss
    found = [evaluate(model, given, {layer: [c]}, **options).loss - dense for c in channels]
    return torch.tensor(found, dtype=torch.float64)


def passes(model: nn.Module) -> list[int]:
    """The sizes of the batches that go through the model, as they come."""
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    return sizes


@pytest.mark.parametrize("value", ["zero", "mean", "resample", "means"])
@pytest.mark.parametrize("layer", ["plain", "normed", "hidden"])
def test_many_at_once_equal_one_at_a_time(layer: str, value: Any):
    model = network()
    value = means(model, batches(), [layer]) if value == "means" else value
    channels = range(getattr(model, layer).weight.shape[0])
    expected = one_by_one(model, batches(), layer, channels, value=value, seed=5)
    for at_once in (1, 3, 100):
        found = single_channel_damage(model, batches(), layer, value=value, seed=5, at_once=at_once)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-7)
    assert expected.abs().max() > 1e-3, "the case shows nothing"


def test_chosen_channels_come_in_the_order_given():
    model = network()
    every = single_channel_damage(model, batches(), "hidden")
    some = single_channel_damage(model, batches(), "hidden", [5, 0, -1])
    torch.testing.assert_close(some, every[[5, 0, 6]], rtol=0, atol=2e-7)


@pytest.mark.parametrize("family", ["Llama", "OPT", "GPT-2"])
@pytest.mark.parametrize("value", ["zero", "mean"])
def test_units_of_a_padded_language_model(family: str, value: str):
    model, given = language_model(family), [text([7, 4]), text([3, 6, 2], seed=1)]
    layer = next(iter(Lens.from_name("scar_activation_power").analyse(model, given[0])))
    options: dict[str, Any] = {"site": "input", "value": value}
    expected = one_by_one(model, given, layer, range(6), **options)
    found = single_channel_damage(model, given, layer, range(6), at_once=4, **options)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_channels_share_passes():
    model = network()
    single_channel_damage(model, batches(), "hidden", at_once=1)
    sizes = passes(model)
    single_channel_damage(model, batches()[:1], "hidden", at_once=4)
    assert sizes == [17, 5 * 17, 4 * 17]
    sizes.clear()
    lens = Lens.from_name("single_channel_damage", layers="hidden", at_once=4)
    lens.run(model, batches()[:1], progress=False)
    assert sizes == [17, 5 * 17, 4 * 17]


class TokensFirst(nn.Module):
    """A model whose layers see (tokens, samples, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.transpose(0, 1)).tanh().mean(0))


def test_channels_share_passes_where_tokens_come_first():
    model, given = TokensFirst(), [(torch.randn(6, 2, 4), torch.randint(0, 3, (6,)))]
    expected = one_by_one(model, given, "layer", range(5))
    sizes = passes(model)
    found = single_channel_damage(model, given, "layer")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert sizes == [6, 6 * 6]


def drawing(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss of one's own, which draws from the global generator."""
    torch.rand(1)
    return 3 * nn.functional.cross_entropy(outputs, targets, reduction="sum")


def test_a_loss_of_ones_own_counts_and_what_it_draws_is_put_back():
    model, before = network(), torch.get_rng_state()
    plain = single_channel_damage(model, batches(), "hidden")
    found = single_channel_damage(model, batches(), "hidden", loss=drawing)
    torch.testing.assert_close(found, 3 * plain, rtol=0, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), before)


class Coupled(nn.Module):
    """A model whose samples see one another."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5, track_running_stats=False) if kind == "norm" else None
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor, of: Tensor | None = None) -> Tensor:
        x = self.layer(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.kind == "mean":
            x = x - x.mean(0)
        if self.kind == "fixed":
            x = x.view(9, 5)
        return self.head(x) if of is None else self.head(x) * of


@pytest.mark.parametrize("kind", ["norm", "mean", "fixed", "odd input"])
def test_samples_that_see_one_another_get_a_pass_a_channel(kind: str):
    model = Coupled(kind)
    inputs: Any = torch.randn(9, 4)
    if kind == "odd input":
        inputs = (inputs, torch.rand(3))
    given = [(inputs, torch.randint(0, 3, (9,)))]
    expected = one_by_one(model, given, "layer", range(5))
    found = single_channel_damage(model, given, "layer")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    assert expected.abs().max() > 1e-3


def test_what_fails_in_one_pass_fails_with_its_own_error():
    (x, y), _ = batches()
    with pytest.raises(InvalidValueError, match="at_once is 0, expected 1 or more"):
        single_channel_damage(network(), batches(), "hidden", at_once=0)
    with pytest.raises(InvalidValueError, match="'hidden' has 7 channels, there is no channel 9"):
        single_channel_damage(network(), [(x, y)], "hidden", [9])
    with pytest.raises(InvalidValueError, match="nothing was predicted"):
        single_channel_damage(network(), [], "hidden")


def test_the_lens_says_what_the_function_says():
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lens = Lens.from_name("single_channel_damage", layers=["normed", "hidden"], value="mean")
    result = lens.run(model, batches(), progress=False)
    for layer in ("normed", "hidden"):
        expected = single_channel_damage(model, batches(), layer, value="mean")
        torch.testing.assert_close(result[layer]["loss_change"], expected, rtol=0, atol=1e-6)
    assert result.units["loss_change"] == "loss" and model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
