"""Layers in the order a pass really takes, however the model is built and called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, ModelWrapper
from nodelens.errors import IncompatibleModelError, LayerNotReachedError
from nodelens.interventions import evaluate
from tests.oracles.capture import Plain, capture
from tests.oracles.rows import pixels


class Backwards(nn.Module):
    """Declares its layers in the opposite order of their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Linear(4, 2)
        self.second = nn.Linear(4, 4)
        self.first = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))))


class Twice(nn.Module):
    """Calls one layer twice, another between the two calls, and returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.between = nn.Linear(4, 4)
        self.twice = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, None, dict[str, Tensor]]:
        again = self.twice(torch.tanh(self.between(self.twice(x)) + 3))
        return again, None, {"input": x}


class Inner(nn.Module):
    """A child called `output`, which nnsight has to mount under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(4, 3)
        self.input = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.input(x))


class Shared(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.tied = self.encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.tied(x)))


class Idle(nn.Module):
    """Has a layer that no pass reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(4, 4)
        self.busy = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.busy(x)


class Steps(nn.Module):
    """Calls its cell once for every token, so that the number of calls follows the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 4)
        for token in x.unbind(1):
            state = torch.tanh(self.cell(state + token))
        return self.head(state)


class Fork(nn.Module):
    """Takes one of two ways, as the batch has it."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 4)
        self.right = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) if x.mean() > 0 else self.right(x)


def means(model: nn.Module, batches: list[Any], **options: Any) -> dict[str, Tensor]:
    lens = Lens.from_name("activation_mean", absolute=False, **options)
    return lens.run(model, batches, progress=False).scores()


def expected(model: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    seen = capture(model, [Plain((x,)) for x in batches])
    return {n: torch.from_numpy(pixels(c.outputs).mean(0)) for n, c in seen.items()}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-6)


def test_layers_come_in_the_order_of_their_calls():
    x = torch.randn(10, 3)
    found = means(Backwards(), [x])
    assert list(found) == ["first", "second", "third"]
    wrapper = ModelWrapper(Backwards())
    _, activations = wrapper.forward_with_activations(x)
    assert list(activations) == ["third", "second", "first"], "as they were asked for"


def test_layers_that_are_named_come_in_the_order_of_their_calls_too():
    lens = Lens.from_name("activation_mean", layers=["third", "fir*"])
    assert list(lens.analyse(Backwards(), torch.randn(10, 3))) == ["first", "third"]
    assert list(means(Backwards(), [torch.randn(10, 3)], pattern="first|third")) == [
        "first",
        "third",
    ]


def test_order_after_a_first_pass_is_that_of_the_modules_handed_to_a_lens():
    model = Backwards()
    wrapper = ModelWrapper(model)
    wrapper.route(wrapper.prepare_batch(torch.randn(10, 3)))
    names = [name for name, _ in Lens.from_name("activation_mean")._get_modules(wrapper)]
    assert names == ["first", "second", "third"]


@pytest.mark.parametrize("cuts", [[12], [3, 4, 5]], ids=["one batch", "ragged"])
@pytest.mark.parametrize("make", [Twice, Inner, Shared])
def test_every_call_of_a_layer_counts(make: type[nn.Module], cuts: list[int]):
    model, x = make(), torch.randn(12, 4)
    assert_equal(means(model, list(x.split(cuts))), expected(model, list(x.split(cuts))))


def test_rows_of_two_calls_add_up():
    result = Lens.from_name("activation_mean").analyse(Twice(), torch.randn(12, 4))
    assert result.rows == {"twice": 24, "between": 12}


def test_gradients_of_both_calls_are_taken():
    model, x = Twice(), torch.randn(12, 4)
    loss = {"loss": lambda output, _: output[0].square().sum()}
    result = Lens.from_name("taylor_saliency").analyse(model, (x, loss))
    seen = capture(model, [Plain((x,), loss=lambda output: output[0].square().sum())])
    for name, captured in seen.items():
        size = torch.from_numpy(abs(captured.outputs * captured.gradients).mean(0))
        torch.testing.assert_close(result[name]["taylor_saliency"], size, rtol=1e-5, atol=1e-7)


def test_a_shared_module_stands_under_the_name_torch_gives_it():
    assert list(means(Shared(), [torch.randn(9, 4)])) == ["encoder", "head"]


def test_a_number_of_calls_that_changes_with_the_batch_is_followed():
    model = Steps()
    batches = [torch.randn(2, tokens, 4) for tokens in (3, 5, 2, 7)]
    assert_equal(means(model, batches), expected(model, batches))
    result = Lens.from_name("activation_mean").run(model, batches, progress=False)
    assert result.rows == {"cell": 2 * (3 + 5 + 2 + 7), "head": 8}


def test_silencing_follows_a_number_of_calls_that_changes():
    model = Steps()
    batches = [(torch.randn(2, tokens, 4), torch.tensor([0, 1])) for tokens in (3, 5, 2)]
    silenced = evaluate(model, batches, {"cell": [0, 1, 2, 3]})
    bias = model.head.bias.detach().log_softmax(0)
    assert silenced.loss == pytest.approx(-float(bias.mean()), rel=1e-5)


def test_a_batch_that_takes_another_way_is_followed():
    model = Fork()
    right, left = -torch.rand(5, 4), torch.rand(6, 4)
    found = Lens.from_name("activation_mean").run(model, [right, left, right], progress=False)
    assert found.rows == {"right": 10, "left": 6}


def test_a_layer_that_was_added_since_is_measured():
    model = nn.Sequential(nn.Linear(4, 4))
    assert list(means(model, [torch.randn(9, 4)])) == ["0"]
    model.append(nn.Linear(4, 3))
    assert list(means(model, [torch.randn(9, 4)])) == ["0", "1"]


def test_a_layer_that_no_pass_reaches_is_left_out_unless_it_is_named():
    x = torch.randn(9, 4)
    assert list(means(Idle(), [x])) == ["busy"]
    for options in ({"layers": ["idle"]}, {"pattern": ".*"}):
        with pytest.raises(LayerNotReachedError, match=r"batch 0: .*never calls 'idle'"):
            means(Idle(), [x], **options)
    with pytest.raises(LayerNotReachedError, match="'idle'"):
        ModelWrapper(Idle(), tracked_layers=["idle"]).forward_with_activations(x)
    with pytest.raises(LayerNotReachedError, match="'idle'"):
        evaluate(Idle(), [(x, torch.zeros(9, dtype=torch.long))], {"idle": [0]})


def test_a_model_whose_layers_are_all_bypassed_is_an_error():
    class Functional(nn.Linear):
        pass

    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Functional(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.layer.weight)

    with pytest.raises(LayerNotReachedError, match="calls none of the layers"):
        means(Bypass(), [torch.randn(9, 4)])


@pytest.mark.parametrize("training", [True, False])
def test_the_fused_transformer_encoder_hides_no_layer(training: bool):
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
    model = nn.TransformerEncoder(block, 2).train(training)
    batches = [torch.randn(3, 5, 8), torch.randn(2, 4, 8)]
    found = means(model, batches)
    assert list(found) == [f"layers.{n}.linear{m}" for n in (0, 1) for m in (1, 2)]
    assert torch.backends.mha.get_fastpath_enabled()
    scar = Lens.from_name("scar_activation_power").run(model, batches, progress=False)
    assert list(scar) == ["layers.0.linear2", "layers.1.linear2"]
    # In training mode attention is computed without the fused kernel: the oracle can see in.
    attentive = nn.TransformerEncoder(block, 2).train()
    attentive.load_state_dict(model.state_dict())
    for module in attentive.modules():
        if isinstance(module, nn.Dropout | nn.MultiheadAttention):
            module.eval()
    assert_equal(found, expected_of_encoder(attentive, batches))


def expected_of_encoder(model: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    found = expected(model, batches)
    return {name: values for name, values in found.items() if "out_proj" not in name}


def test_what_no_pass_reaches_is_among_the_notes():
    x, note = torch.randn(9, 4), "the forward pass never calls 'idle': not scored"
    lens = Lens.from_name("activation_mean")
    both = CompositeLens([lens, Lens.from_name("activation_max")])
    for result in (lens.analyse(Idle(), x), both.run(Idle(), [x, x], progress=False)):
        assert result.notes == [note]
    assert Lens.from_name("activation_mean", layers="busy").analyse(Idle(), x).notes == []


def test_a_layer_exchanged_for_another_kind_under_its_name_is_seen():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    x = torch.randn(9, 4)
    before = means(model, [x])
    model[0], model[1] = nn.utils.fuse_linear_bn_eval(model[0], model[1]), nn.Identity()
    torch.testing.assert_close(means(model, [x])["2"], before["2"])
    with pytest.raises(IncompatibleModelError):
        Lens.from_name("bn_scale").analyse(model)
