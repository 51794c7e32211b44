"""What stands in the place of silenced channels and heads equals the same done by plain hooks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens
from nodelens.errors import InvalidValueError, ShapeError, TooFewRowsError
from nodelens.interventions import Condition, evaluate, means, silenced
from nodelens.interventions.values import other_rows
from nodelens.model import wrap
from tests.interventions.plainly import assert_close, batches, hooked, network, plainly
from tests.model.families import language_model, text

PROJECTIONS = ("model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj")


def seen(model: nn.Module, layer: str, given: list[Any], site: str = "output") -> list[Tensor]:
    """What a module gave, or took in, batch by batch."""
    found: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Tensor | None = None) -> None:
        found.append((args[0] if output is None else output).detach().clone())

    with hooked(model, {layer: hook}, site), torch.no_grad():
        for batch in given:
            model(**batch) if isinstance(batch, dict) else model(batch[0])
    return found


@pytest.mark.parametrize("heads", [[1], [0, 3], torch.tensor([False, True, False, True])])
def test_silencing_heads_equals_weights_without_their_columns(heads: Any):
    model, batch = language_model("Llama"), text([7, 4])
    without = copy.deepcopy(model)
    numbers = heads.nonzero().flatten().tolist() if isinstance(heads, Tensor) else heads
    with torch.no_grad():
        for name in PROJECTIONS:
            weight = without.get_submodule(name).weight
            weight.view(16, 4, 4)[:, numbers] = 0
    expected = evaluate(without, [batch])
    found = evaluate(model, [batch], heads=dict.fromkeys(PROJECTIONS, heads))
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.loss != pytest.approx(evaluate(model, [batch]).loss, rel=1e-4)


def test_heads_and_input_channels_of_a_projection_go_together():
    model, batch = language_model("Llama"), text([7, 4])
    name = PROJECTIONS[0]
    both = evaluate(model, [batch], {name: [0, 1, 5]}, heads={name: [1]}, site="input")
    plain = evaluate(model, [batch], {name: [0, 1, 4, 5, 6, 7]}, site="input")
    assert both == plain
    with pytest.raises(InvalidValueError, match="heads to silence, at its input, and channels at"):
        evaluate(model, [batch], {name: [0]}, heads={name: [1]})


@pytest.mark.parametrize(
    ("heads", "error", "message"),
    [
        ({"model.layers.0.self_attn.q_proj": [0]}, InvalidValueError, "takes in no heads .did you"),
        ({PROJECTIONS[0]: [4]}, InvalidValueError, "has 4 heads, there is no head 4"),
        ({PROJECTIONS[0]: torch.ones(16, dtype=torch.bool)}, ShapeError, r"\(16,\) for 4 heads"),
    ],
)
def test_heads_that_do_not_exist_are_errors(heads: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        evaluate(language_model("Llama"), [text([4])], heads=heads)


@pytest.mark.parametrize(("layer", "target"), [("hidden", "hidden"), ("normed", "norm")])
def test_a_mean_is_that_of_the_batch(layer: str, target: str):
    model = network()

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        own = output[:, [2, 5]]
        output[:, [2, 5]] = own.mean([0, *range(2, own.ndim)], keepdim=True).expand_as(own)
        return output

    with hooked(model, {target: hook}):
        expected = [plainly(model, [batch]) for batch in batches()]
    for batch, wanted in zip(batches(), expected, strict=True):
        assert_close(evaluate(model, [batch], {layer: [2, 5]}, value="mean"), wanted)
        given = means(model, [batch], {layer: [2, 5]})
        assert_close(evaluate(model, [batch], {layer: [2, 5]}, value=given), wanted)


@pytest.mark.parametrize(("layer", "target"), [("hidden", "hidden"), ("normed", "norm")])
def test_means_are_those_of_the_whole_stream(layer: str, target: str):
    model = network()
    values = torch.cat(seen(model, target, batches())).double()
    expected = values.mean([0, *range(2, values.ndim)])
    found = means(model, iter(batches()), [layer, "head"])
    assert found.keys() == {layer, "head"}
    torch.testing.assert_close(found[layer], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("family", ["Llama", "OPT"])
def test_means_leave_padding_out(family: str):
    model, batch = language_model(family), text([7, 4])
    layer = next(iter(Lens.from_name("scar_activation_power").analyse(model, batch)))
    rows = seen(model, layer, [batch], "input")[0].reshape(14, -1)
    expected = rows[batch["attention_mask"].bool().flatten()].double().mean(0)
    found = means(model, [batch], [layer], site="input")[layer]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_means_of_heads_are_those_of_the_projections_input():
    model, batch = language_model("Llama"), text([5, 5])
    found = means(model, [batch], heads=PROJECTIONS[:1])
    rows = seen(model, PROJECTIONS[0], [batch], "input")[0].reshape(10, -1)
    torch.testing.assert_close(found[PROJECTIONS[0]], rows.double().mean(0), rtol=1e-5, atol=1e-6)
    value = evaluate(model, [batch], heads={PROJECTIONS[0]: [2]}, value=found)
    assert value.loss == pytest.approx(
        evaluate(model, [batch], heads={PROJECTIONS[0]: [2]}, value="mean").loss, rel=1e-6
    )


@pytest.mark.parametrize(("layer", "target"), [("hidden", "hidden"), ("normed", "norm")])
def test_resampling_takes_the_values_of_other_rows(layer: str, target: str):
    model = network()

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        partners = other_rows(len(output), 3, layer)
        output = output.clone()
        output[:, [2, 5]] = output[:, [2, 5]][partners]
        return output

    with hooked(model, {target: hook}):
        expected = plainly(model, batches())
    state = torch.get_rng_state()
    found = evaluate(model, batches(), {layer: [2, 5]}, value="resample", seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert_close(found, expected)
    assert found != evaluate(model, batches(), {layer: [2, 5]}, value="resample", seed=4)


@pytest.mark.parametrize("value", ["mean", "resample", "given"])
def test_what_stands_in_a_heads_place_is_what_hooks_put_there(value: str):
    model, batch, name = language_model("Llama"), text([7, 4]), PROJECTIONS[0]
    kept = batch["attention_mask"].flatten().nonzero().flatten()
    given = torch.linspace(-1, 1, 16)

    def hook(module: nn.Module, args: Any) -> Any:
        rows = args[0].reshape(-1, 16).clone()
        head = rows[:, 4:8]
        other = {
            "mean": head[kept].mean(0).expand(len(kept), 4),
            "resample": head[kept[other_rows(len(kept), 3, name)]],
            "given": given[4:8].expand(len(kept), 4),
        }
        head[kept] = other[value]
        return (rows.view_as(args[0]),)

    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with hooked(model, {name: hook}, "input"), torch.no_grad():
        expected = float(model(**batch, labels=labels).loss)
    values = {name: given} if value == "given" else value
    found = evaluate(model, [batch], heads={name: [1]}, value=values, seed=3)
    assert found.loss == pytest.approx(expected, rel=1e-6)
    assert found.loss != pytest.approx(evaluate(model, [batch]).loss, rel=1e-3)


@pytest.mark.parametrize("rows", [2, 3, 50])
def test_every_row_takes_from_another_one_and_gives_to_one(rows: int):
    partners = other_rows(rows, 1, "fc")
    assert sorted(partners.tolist()) == list(range(rows))
    assert not (partners == torch.arange(rows)).any()


@pytest.mark.parametrize("family", ["Llama", "OPT"])
def test_padding_is_never_taken_for_a_row(family: str):
    model, batch = language_model(family), text([7, 4])
    layer = next(iter(Lens.from_name("scar_activation_power").analyse(model, batch)))
    spoiled = {
        **batch,
        "input_ids": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 9),
    }
    found = [
        evaluate(model, [given], {layer: range(40)}, site="input", value=value).loss
        for value in ("mean", "resample")
        for given in (batch, spoiled)
    ]
    assert found[0] == pytest.approx(found[1]) and found[2] == pytest.approx(found[3])


def test_one_row_has_no_other_to_take_from():
    x, y = batches()[0]
    with pytest.raises(TooFewRowsError, match=r"batch 0: layer 'plain': value 'resample'.* has 1"):
        evaluate(network(), [(x[:1], y[:1])], {"plain": [0]}, value="resample")


@pytest.mark.parametrize("channels", [{"normed": [2, 4], "hidden": [1]}, {"plain": [0]}])
def test_hooks_silence_alike_and_are_gone_afterwards(channels: Any):
    model = network()
    expected = evaluate(model, batches(), channels)
    with silenced(model, channels) as module:
        assert module is model
        assert_close(plainly(model, batches()), expected)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError, match="stop"), silenced(model, channels):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_silence_the_calls_of_generation():
    model, batch = language_model("Llama"), text([5])
    ids, name = batch["input_ids"], PROJECTIONS[0]
    condition = Condition({name: [3]}, {PROJECTIONS[1]: [0, 1, 2]}, site="output")
    with silenced(model, condition), torch.no_grad():
        by_hooks = model(ids).logits
        model.generate(ids, max_new_tokens=2, do_sample=False)
    without = copy.deepcopy(model)
    with torch.no_grad():
        without.get_submodule(PROJECTIONS[0]).weight[3] = 0
        without.get_submodule(PROJECTIONS[1]).weight[:, :12] = 0
        torch.testing.assert_close(by_hooks, without(ids).logits, rtol=1e-4, atol=1e-5)


def test_hooks_need_to_know_the_norms_and_the_values():
    with pytest.raises(InvalidValueError, match=r"has BatchNorms.*give example="):
        silenced(network(), {"normed": [0]}).__enter__()
    with pytest.raises(InvalidValueError, match=r"value is 'mean'.*means"):
        silenced(network(), {"normed": [0]}, value="mean").__enter__()
    model = network()
    with silenced(model, {"normed": [0]}, example=batches()[0]):
        assert model.norm._forward_hooks and not model.normed._forward_hooks


@pytest.mark.parametrize("value", ["zero", "mean", "resample"])
def test_weights_are_bit_for_bit_the_same_after_every_probe_and_every_failure(value: str):
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = []

    def failing(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(outputs)
        raise RuntimeError("half way")

    evaluate(model, batches(), {"normed": [0], "hidden": [1]}, value=value)
    with pytest.raises(RuntimeError, match="half way"):
        evaluate(model, batches(), {"normed": [0]}, value=value, loss=failing)
    assert calls
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert_close(evaluate(model, batches()), plainly(network(), batches()))
    assert wrap(model).module is model
