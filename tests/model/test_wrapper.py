"""ModelWrapper, and the kinds of model that can be wrapped."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import nnsight
import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, ModelWrapper
from nodelens.errors import IncompatibleModelError, InvalidValueError, LayerNotFoundError
from nodelens.interventions import evaluate
from tests.model.families import VOCABULARY, language_model, text

NAMES = ["scar_taylor", "rayleigh_quotient", "average_redundancy", "taylor_saliency"]
TEXTS = ["b c d e", "f g", "h i j k l m n"]


def network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3))


def tokenizer(side: str = "right", padding: str | None = "<pad>") -> Any:
    """A tokenizer of single letters, numbered as the tiny models have them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<end>", *map(chr, range(ord("a"), ord("a") + 26))]
    model = models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<end>")
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=padding, eos_token="<end>", padding_side=side
    )


def scores(model: Any, batch: Any) -> dict[str, dict[str, Tensor]]:
    return dict(CompositeLens([Lens.from_name(name) for name in NAMES]).analyse(model, batch))


def assert_close(found: Any, wanted: Any, rtol: float = 1e-5) -> None:
    assert list(found) == list(wanted)
    for layer, values in wanted.items():
        for score, value in values.items():
            torch.testing.assert_close(found[layer][score], value, rtol=rtol, atol=1e-7)


def test_activations_are_what_the_layers_returned():
    model, x = network(), torch.randn(5, 1, 6, 6)
    outputs, activations = ModelWrapper(model).forward_with_activations(x)
    with torch.no_grad():
        convolved = model[0](x)
        # The activation is what the convolution returned, not what the ReLU in place made of it.
        assert set(activations) == {"0", "3"}
        assert torch.equal(outputs, model(x)) and torch.equal(activations["3"], outputs)
    torch.testing.assert_close(activations["0"], convolved)


def test_any_module_can_be_tracked_also_one_without_weights():
    wrapper = ModelWrapper(network(), tracked_layers=["2", "1"])
    _, activations = wrapper.forward_with_activations(torch.randn(5, 1, 6, 6))
    assert list(activations) == ["2", "1"] and activations["2"].shape == (5, 64)


def test_weights_come_as_they_are_and_share_memory():
    model = network()
    wrapper = ModelWrapper(model)
    weights = wrapper.get_layer_weights()
    assert list(weights) == ["0", "3"] and weights["0"].shape == (4, 1, 3, 3)
    assert weights["0"].data_ptr() == model[0].weight.data_ptr()
    assert not weights["0"].requires_grad
    assert list(wrapper.get_layer_weights(layers=["3"])) == ["3"]
    with pytest.raises(LayerNotFoundError, match="layer '1' has no weight"):
        wrapper.get_layer_weights(layers=["1"])


def test_unknown_layers_are_named_with_what_there_is():
    with pytest.raises(LayerNotFoundError, match="no layer 'conv1'; it has 0, 3"):
        ModelWrapper(network(), tracked_layers=["conv1"])


def test_attributes_it_does_not_have_are_those_of_the_model():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(2, 3)
            self.temperature = 0.7

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder(x)

    wrapper = ModelWrapper(Named())
    assert wrapper.temperature == 0.7
    assert wrapper.encoder._module is wrapper.module.encoder
    with pytest.raises(AttributeError):
        wrapper.decoder


def test_a_wrapper_is_wrapped_once():
    wrapper = ModelWrapper(network())
    again = ModelWrapper(wrapper)
    assert again.module is wrapper.module and again.nnsight is wrapper.nnsight


@pytest.mark.parametrize("root", [nn.Linear(4, 3), nn.Conv1d(2, 3, 2)], ids=["linear", "conv"])
def test_a_model_that_is_one_layer_is_called_model(root: nn.Module):
    x = torch.randn(7, 4) if isinstance(root, nn.Linear) else torch.randn(7, 2, 5)
    assert list(Lens.from_name("rayleigh_quotient").analyse(root, x)) == ["model"]
    outputs, activations = ModelWrapper(root).forward_with_activations(x)
    assert torch.equal(outputs, activations["model"])
    silent = evaluate(root, [(x, {"loss": lambda o, _: o.square().sum()})], {"model": [0, 1, 2]})
    assert silent.loss == 0


def test_a_single_map_without_a_batch_axis_is_a_batch_of_one():
    result = Lens.from_name("activation_mean").analyse(nn.Conv2d(2, 3, 2), torch.randn(2, 5, 5))
    assert result.rows == {"model": 16}


def test_what_is_no_model_is_refused():
    with pytest.raises(IncompatibleModelError, match="a dict is not a model"):
        ModelWrapper({})


def test_an_nnsight_model_gives_the_same_scores():
    model, batch = network(), (torch.randn(9, 1, 6, 6), torch.randint(0, 3, (9,)))
    lens = Lens.from_name("rayleigh_quotient")
    plain = lens.analyse(model, batch)
    for wrapped in (nnsight.NNsight(model), ModelWrapper(nnsight.NNsight(model))):
        found = lens.analyse(wrapped, batch)
        assert list(found) == ["0", "3"]
        for layer, values in plain.scores().items():
            assert torch.equal(found.scores()[layer], values)


@pytest.fixture(scope="module")
def llama() -> nn.Module:
    return language_model("Llama")


def language_models(module: nn.Module, side: str) -> list[Any]:
    """nnsight's two ways to wrap a language model; it calls the older one deprecated."""
    with pytest.warns(nnsight.NNsightDeprecationWarning):
        older = nnsight.LanguageModel(module, tokenizer=tokenizer(side))
    task = "text-generation"
    return [nnsight.TransformersModel(module, tokenizer=tokenizer(side), task=task), older]


@pytest.mark.parametrize("side", ["right", "left"])
def test_an_nnsight_language_model_takes_texts_and_dicts(llama: nn.Module, side: str):
    expected = scores(llama, dict(tokenizer("right")(TEXTS, return_tensors="pt", padding=True)))
    encoded = tokenizer(side)(TEXTS, return_tensors="pt", padding=True)
    for model in language_models(llama, side):
        for batch in (TEXTS, encoded, dict(encoded)):
            assert_close(scores(model, batch), expected)


def test_one_text_is_a_batch_of_one(llama: nn.Module):
    model = nnsight.TransformersModel(llama, tokenizer=tokenizer(), task="text-generation")
    result = Lens.from_name("activation_mean").analyse(model, "b c d")
    assert set(result.rows.values()) == {3}


def test_a_tokenizer_without_padding_pads_with_its_end_and_stays_as_it_was(llama: nn.Module):
    own = tokenizer(padding=None)
    model = nnsight.TransformersModel(llama, tokenizer=own, task="text-generation")
    own.pad_token = None
    found = scores(model, TEXTS)
    assert own.pad_token is None
    batch = dict(tokenizer()(TEXTS, return_tensors="pt", padding=True))
    assert_close(found, scores(llama, batch))


def test_text_for_a_model_without_a_tokenizer_is_an_error(llama: nn.Module):
    with pytest.raises(InvalidValueError, match="needs a tokenizer"):
        Lens.from_name("activation_mean").analyse(llama, TEXTS)


def test_a_transformers_model_is_measured_as_the_module_it_is(llama: nn.Module):
    batch = text([5, 3])
    outputs, activations = ModelWrapper(llama).forward_with_activations(batch)
    with torch.no_grad():
        expected = llama(**batch).logits
    torch.testing.assert_close(outputs.logits, expected)
    assert activations["lm_head"].shape == (2, 5, VOCABULARY)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_a_copied_wrapper_measures_its_own_model(again: Callable[[ModelWrapper], ModelWrapper]):
    wrapper, x = ModelWrapper(nn.Sequential(nn.Linear(4, 3)), ["0"]), torch.randn(9, 4)
    lens = Lens.from_name("activation_mean")
    expected = lens.analyse(wrapper, x)
    twin = again(wrapper)
    with torch.no_grad():
        wrapper.module[0].weight.zero_()
    assert twin.tracked_layers == ["0"]
    assert_close(lens.analyse(twin, x), expected)
