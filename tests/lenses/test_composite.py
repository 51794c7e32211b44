"""Weighted sums of normalised scores: what each normalisation does, and what parts may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import Aggregator, CompositeLens, Lens, MetricLens
from nodelens.errors import (
    IncompatibleModelError,
    InvalidValueError,
    MissingTargetsError,
    TooFewRowsError,
    UnknownNameError,
    UnknownOptionError,
)
from nodelens.metrics import get_metric
from nodelens.metrics.formulas import normalised
from nodelens.registry import LENSES
from nodelens.statistics import Read

DOUBLE = torch.float64


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("how", "scores", "expected"),
    [
        ("minmax", (3.0, 1.0, 5.0), (0.5, 0.0, 1.0)),
        ("minmax", (7.0, 7.0), (0.0, 0.0)),
        ("minmax", (7.0,), (0.0,)),
        ("minmax", (0.3, 0.1 + 0.2), (0.0, 0.0)),
        ("rank", (30.0, -1.0, 5.0), (1.0, 0.0, 0.5)),
        ("rank", (2.0, 1.0, 2.0, 9.0, 2.0), (0.5, 0.0, 0.5, 1.0, 0.5)),
        ("rank", (7.0, 7.0, 7.0), (0.5, 0.5, 0.5)),
        ("rank", (7.0,), (0.5,)),
        ("rank", (0.3, 0.1 + 0.2, 0.2), (0.75, 0.75, 0.0)),
        ("zscore", (1.0, 2.0, 3.0), (-1.0, 0.0, 1.0)),
        ("zscore", (0.0, 0.0), (0.0, 0.0)),
        ("zscore", (7.0,), (0.0,)),
    ],
)
def test_a_normalisation_on_paper(how: str, scores: tuple[float, ...], expected: Any):
    torch.testing.assert_close(normalised(doubles(*scores), how), doubles(*expected))


@pytest.mark.parametrize("how", ["minmax", "rank", "zscore"])
def test_units_and_offsets_of_a_part_do_not_count(how: str):
    scores = torch.randn(9, dtype=DOUBLE)
    torch.testing.assert_close(normalised(3 * scores - 50, how), normalised(scores, how))
    assert torch.equal(normalised(scores, how).argsort(), scores.argsort())


def test_ranks_do_not_change_with_any_increasing_function():
    scores = torch.randn(9, dtype=DOUBLE)
    assert torch.equal(normalised(scores.exp(), "rank"), normalised(scores, "rank"))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def feed_forward() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 5)).double()


def batch(rows: int = 40) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 5, dtype=DOUBLE), torch.arange(rows) % 4


def composite(weights: dict[str, float], **options: Any) -> Lens:
    return Lens.from_name("composite_importance", weights=weights, **options)


def test_a_sum_on_paper():
    """Outputs of 1, 2 and 4 times one number: sizes 1, 2, 4 and variances 1, 4, 16."""
    outputs = doubles(1.0, -1.0, 1.0, -1.0)[:, None] * doubles(1.0, 2.0, 4.0)
    parts = {"activation_mean": 3.0, "activation_variance": -1.0}
    found = get_metric("composite_importance", weights=parts).compute(outputs=outputs)
    torch.testing.assert_close(found, doubles(0.0, 3 / 3 - 3 / 15, 3.0 - 1.0))
    ranks = get_metric("composite_importance", weights=parts, normalise="rank")
    torch.testing.assert_close(ranks.compute(outputs=outputs), doubles(0.0, 1.0, 2.0))


def test_a_copy_is_worth_less_than_what_it_copies_was():
    model = network()
    lens = Lens.from_name("rq_minus_r", layers="0")
    given = batch()
    before = lens.analyse(model, given)["0"]["alignment_minus_redundancy"]
    best = int(before.argmax())
    other = (best + 1) % 6
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias):
            tensor[other] = tensor[best]
    after = lens.analyse(model, given)["0"]["alignment_minus_redundancy"]
    assert after[best] < before[best]
    assert after.min() >= -1 and after.max() <= 1


def test_parts_share_one_pass_with_each_other_and_with_other_lenses():
    model, calls = network(), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    lenses = [Lens.from_name(name) for name in ("composite_importance", "rq_minus_r", "rq")]
    batches = [batch(20), batch(25)]
    together = CompositeLens(lenses).run(model, batches, progress=False)
    # The first pass learns the route.
    assert len(calls) == 3
    statistics = next(CompositeLens(lenses).analyse_batched(model, batches))["0"]
    alone = next(lenses[0].analyse_batched(model, batches))["0"]
    assert statistics.keys() == alone.keys()
    for lens in lenses:
        scores = lens.run(model, batches, progress=False)["0"][lens.name]
        assert torch.equal(together["0"][lens.name], scores)


def test_options_go_to_their_part():
    given = batch()
    options = {"pairwise_redundancy_gaussian": {"partners": "nearest", "k": 1}}
    lens = composite({"pairwise_redundancy_gaussian": 1.0}, options=options)
    scores = lens.analyse(network_of_one(), given)["0"]["composite_importance"]
    part = Lens.from_name("pairwise_redundancy_gaussian", partners="nearest", k=1)
    alone = part.analyse(network_of_one(), given)["0"]["pairwise_redundancy_gaussian"]
    torch.testing.assert_close(scores, normalised(alone, "minmax"))


def network_of_one() -> nn.Module:
    torch.manual_seed(3)
    return network()


def test_a_state_that_was_saved_knows_its_parts(tmp_path):
    weights = {"activation_mean": 1.0, "pairwise_redundancy_gaussian": -2.0}
    options = {"pairwise_redundancy_gaussian": {"partners": "nearest", "k": 2}}
    lens = composite(weights, options=options, normalise="zscore")
    aggregator = lens.measure(network(), [batch(), batch(9)], progress=False)
    aggregator.save(tmp_path / "state")
    loaded = Aggregator.load(tmp_path / "state")
    assert loaded.lens.params == lens.params
    expected = aggregator.result().scores()
    for layer, scores in loaded.result().scores().items():
        assert torch.equal(scores, expected[layer])


def test_a_part_gets_what_it_asks_of_a_run():
    model, given = network(), batch()
    weights = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    lens = composite({"delta_alignment": 1.0})
    scores = lens.analyse(model, given, initial_weights=weights)["0"]["composite_importance"]
    part = Lens.from_name("delta_alignment").analyse(model, given, initial_weights=weights)
    torch.testing.assert_close(scores, normalised(part["0"]["delta_alignment"], "minmax"))
    with pytest.raises(UnknownOptionError, match="initial_weight"):
        lens.analyse(model, given, initial_weight=weights)


def test_what_a_part_has_to_say_is_in_the_notes():
    model = network()
    with torch.no_grad():
        model[0].weight[1] = model[0].weight[0]
    notes = Lens.from_name("rq_minus_r", layers="0").analyse(model, batch()).notes
    start = "alignment_minus_redundancy, layer '0': part 'average_redundancy': 1 pair of channels"
    assert len(notes) == 1 and notes[0].startswith(start)


def test_several_passes_give_what_one_gives():
    model, batches = network(), [batch(20), batch(25)]
    lens = Lens.from_name("composite_importance")
    budget = lens.plan(model, batches[0]).passes[0].peak
    whole = lens.run(model, batches, progress=False)
    small = lens.run(model, batches, progress=False, memory_budget=max(budget.values()) - 1)
    for layer, scores in whole.scores().items():
        torch.testing.assert_close(small[layer]["composite_importance"], scores)


def test_layers_are_those_that_every_part_can_score():
    lens = composite({"scar_activation_power": 1.0, "scar_taylor": 1.0})
    model = nn.Sequential(feed_forward(), nn.Linear(5, 4)).double()
    assert list(lens.analyse(model, batch())) == ["0.2"]
    with pytest.raises(IncompatibleModelError, match="part 'scar_taylor': it has no feed-forward"):
        composite({"activation_mean": 1.0, "scar_taylor": 1.0}).analyse(network(), batch())


def test_a_part_that_fails_is_named():
    model, (x, y) = network(), batch()
    with pytest.raises(UnknownNameError, match=r"part 'activation_men' .*\(did you mean"):
        composite({"activation_men": 1.0})
    with pytest.raises(UnknownNameError, match=r"part 'ablation' .* not a metric"):
        composite({"ablation": 1.0})
    with pytest.raises(UnknownOptionError, match=r"part 'rq' .* no option 'regularisation'"):
        composite({"rq": 1.0}, options={"rq": {"regularisation": 1}})
    with pytest.raises(TooFewRowsError, match="layer '0': part 'average_redundancy': one row"):
        composite({"average_redundancy": 1.0}).analyse(model, (x[:1], y[:1]))
    with pytest.raises(MissingTargetsError):
        Lens.from_name("class_informative_score").analyse(model, x)
    with pytest.raises(
        InvalidValueError, match=r"part 'scar_taylor' gives 9 scores .* before it 5"
    ):
        composite({"rq": 1.0, "scar_taylor": 1.0}).analyse(feed_forward(), batch())


class Across(MetricLens):
    """Scores of layers that are put together before they are told."""

    def reads(self, layer: Any) -> dict[str, Read]:
        return {}

    def score(self, statistics: Any, layer: Any) -> Tensor:
        raise NotImplementedError

    def finish(self, statistics: Any) -> dict[str, dict[str, Tensor]]:
        raise NotImplementedError


class Choosy(Across):
    """A lens that cannot be made without an option."""

    def __init__(self, reference: str) -> None:
        super().__init__()


@pytest.fixture
def strange() -> Iterator[None]:
    """Lenses that are no parts, registered for one test alone."""
    lenses = {"test.across": Across, "test.choosy": Choosy}
    for name, lens in lenses.items():
        Lens.register(name)(lens)
    yield
    for name in lenses:
        del LENSES._classes[name]


def test_a_lens_of_several_layers_or_without_its_option_is_no_part(strange: None):
    with pytest.raises(InvalidValueError, match=r"part 'test.across' .* several layers together"):
        composite({"test.across": 1.0})
    with pytest.raises(InvalidValueError, match=r"part 'test.choosy' .* needs reference="):
        composite({"test.choosy": 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {}}, "weights is empty"),
        ({"weights": {"rq": 0.0}}, "the weight of part 'rq' is 0.0"),
        ({"weights": {"rq": float("nan")}}, "the weight of part 'rq' is nan"),
        ({"weights": {"rq": "much"}}, "the weight of part 'rq' is 'much'"),
        ({"normalise": "ranks"}, r"normalise is 'ranks' \(did you mean 'rank'"),
        ({"options": {"rq": {}}}, "options are given for 'rq'.* which is no part"),
    ],
)
def test_a_wrong_option_is_an_error(options: dict[str, Any], message: str):
    with pytest.raises(InvalidValueError, match=message):
        Lens.from_name("composite_importance", **options)
