"""Several conditions share one dense evaluation; what an evaluation counts."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens
from nodelens.data import Fingerprint
from nodelens.errors import InvalidValueError, SharedDataWarning
from nodelens.interventions import Condition, evaluate, evaluate_conditions
from tests.interventions.plainly import batches, network
from tests.model.families import language_model, text

CONDITIONS: dict[str, Any] = {
    "units": {"hidden": [0, 3]},
    "maps": {"normed": [2, 4], "plain": [1]},
    "inputs": Condition({"head": [0, 1]}, value="mean", site="input"),
}


def alone(model: nn.Module, condition: Any) -> Any:
    return evaluate(model, batches(), condition)


def test_conditions_are_those_evaluated_alone_and_the_dense_model_runs_once():
    model = network()
    expected = {name: alone(model, condition) for name, condition in CONDITIONS.items()}
    dense, calls = evaluate(model, batches()), []
    model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    found = evaluate_conditions(model, iter(batches()), CONDITIONS)
    assert found.dense == dense and found.conditions == expected
    assert calls == [17] * 4 + [13] * 4
    assert found.loss_changes()["maps"] == expected["maps"].loss - dense.loss


def test_a_lens_scores_every_condition_against_one_dense_pass():
    model, sizes = network(), []
    dense = evaluate(model, batches())
    lens = Lens.from_name("ablation", conditions=CONDITIONS)
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    result = lens.run(model, batches(), progress=False)
    # The first of all passes finds the route.
    assert list(result) == list(CONDITIONS) and sizes[1:] == [17] * 4 + [13] * 4
    for name, condition in CONDITIONS.items():
        wanted = alone(model, condition)
        assert float(result[name]["loss"]) == pytest.approx(dense.loss)
        assert float(result[name]["loss_ablated"]) == pytest.approx(wanted.loss, rel=1e-5)
        assert float(result[name]["accuracy_ablated"]) == pytest.approx(wanted.accuracy)


def test_heads_and_seeds_reach_the_lens():
    model, batch = language_model("Llama"), text([7, 4])
    heads = {"model.layers.1.self_attn.o_proj": [2]}
    options: dict[str, Any] = {"heads": heads, "value": "resample", "seed": 8}
    found = Lens.from_name("ablation", **options).analyse(model, batch)
    wanted = evaluate(model, [batch], **options)
    assert float(found["model"]["loss_ablated"]) == pytest.approx(wanted.loss, rel=1e-5)


def test_conditions_beside_channels_and_no_conditions_are_errors():
    with pytest.raises(InvalidValueError, match="channels or heads are given beside conditions"):
        Lens.from_name("ablation", channels={"hidden": [0]}, conditions=CONDITIONS)
    with pytest.raises(InvalidValueError, match="no conditions to evaluate"):
        evaluate_conditions(network(), batches(), {})


class Fixed(nn.Module):
    """Gives out the logits that come in."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(1, 1)

    def forward(self, logits: Tensor) -> Tensor:
        return logits + 0 * self.scale.weight


def test_the_five_likeliest_classes():
    logits = torch.tensor([
        [9.0, 8, 7, 6, 5, 4, 3],
        [9.0, 8, 7, 6, 5, 4, 3],
        [0.0, 0, 0, 0, 0, 0, 0],
        [0.0, 0, 0, 0, 0, 0, 0],
        [1.0, 2, 3, 4, 5, 6, 7],
    ])  # fmt: skip
    # Of equals the lower number goes first, as in argmax.
    targets = torch.tensor([4, 5, 4, 5, 6])
    found = evaluate(Fixed(), [(logits, targets)])
    assert found.top5 == 3 / 5 and found.accuracy == 1 / 5
    assert evaluate(Fixed(), [(logits[:, :5], targets.clamp(max=4))]).top5 is None
    maps = logits.T.reshape(1, 7, 5)
    assert evaluate(Fixed(), [(maps, targets[None])]).top5 == 3 / 5


def test_top5_is_that_of_scikit_learn():
    from sklearn.metrics import top_k_accuracy_score

    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(60, 12, generator=generator)
    targets = torch.randint(0, 12, (60,), generator=generator)
    found = evaluate(Fixed(), [(logits[:25], targets[:25]), (logits[25:], targets[25:])])
    expected = top_k_accuracy_score(targets, logits, k=5, labels=list(range(12)))
    assert found.top5 == pytest.approx(expected)


def test_perplexity_is_for_language_models():
    model, batch = language_model("Llama"), text([7, 4])
    found = evaluate(model, [batch])
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.rows == 9 and found.top5 is not None
    assert evaluate(network(), batches()).perplexity is None


def test_rows_that_were_calibrated_on_give_a_warning():
    first, second = batches()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(network(), [second], calibration=[first])
    with pytest.warns(SharedDataWarning, match="1 of 13 different rows to evaluate on were used"):
        evaluate(network(), [second], calibration=[first, second[0][4:5]])
    with pytest.warns(SharedDataWarning, match="30 of 30"):
        evaluate_conditions(network(), batches(), CONDITIONS, calibration=Fingerprint.of(batches()))
