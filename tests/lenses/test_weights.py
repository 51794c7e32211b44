"""What weights alone say, on matrices with a known answer; and that no batch is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens
from nodelens.errors import IncompatibleModelError, InvalidValueError, LayerNotFoundError
from nodelens.metrics import get_metric

DOUBLE = torch.float64
SPECTRUM = ("spectral_gap", "spectral_norm_ratio", "stable_rank")
ON_WEIGHTS = ("weight_magnitude", "weight_cosine_similarity", *SPECTRUM)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def score(name: str, weights: Tensor, **options: Any) -> Tensor:
    return get_metric(name, **options).compute(weights=weights.to(DOUBLE))


def close(found: Tensor, expected: object, tolerance: float = 1e-9) -> None:
    wanted = torch.as_tensor(expected, dtype=DOUBLE)
    torch.testing.assert_close(found, wanted.expand_as(found), rtol=tolerance, atol=tolerance)


def test_identical_rows_are_wholly_similar_and_orthogonal_ones_not_at_all():
    close(score("weight_cosine_similarity", torch.ones(5, 3)), 1.0)
    close(score("weight_cosine_similarity", 4 * torch.eye(5)), 0.0)
    opposite = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [3.0, 6.0], [-0.5, -1.0]])
    close(score("weight_cosine_similarity", opposite), -1 / 3)
    close(score("weight_cosine_similarity", opposite, absolute=True), 1.0)


def test_lengths_and_order_of_rows_do_not_matter_to_cosines():
    weights, order = torch.randn(6, 4, dtype=DOUBLE), torch.randperm(6)
    for absolute in (False, True):
        before = score("weight_cosine_similarity", weights, absolute=absolute)
        scaled = weights * torch.logspace(-3, 3, 6, dtype=DOUBLE)[:, None]
        close(score("weight_cosine_similarity", scaled, absolute=absolute), before)
        close(score("weight_cosine_similarity", weights[order], absolute=absolute), before[order])


def test_rows_of_zeros_and_single_rows_are_like_no_other():
    weights = torch.tensor([[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]])
    close(score("weight_cosine_similarity", weights), [0.5, 0.0, 0.5])
    assert score("weight_cosine_similarity", torch.ones(1, 3)).tolist() == [0.0]


def test_many_rows_are_compared_tile_by_tile(monkeypatch: pytest.MonkeyPatch):
    weights = torch.randn(50, 7)
    whole = score("weight_cosine_similarity", weights, absolute=True)
    monkeypatch.setattr("nodelens.statistics.blocks._ON_PROCESSOR", 800)
    close(score("weight_cosine_similarity", weights, absolute=True), whole)


def with_singular_values(*values: float) -> Tensor:
    left = torch.linalg.qr(torch.randn(6, len(values), dtype=DOUBLE)).Q
    right = torch.linalg.qr(torch.randn(5, len(values), dtype=DOUBLE)).Q
    return left * torch.tensor(values, dtype=DOUBLE) @ right.T


@pytest.mark.parametrize(
    ("values", "gap", "ratio", "rank"),
    [
        ((4.0, 3.0, 0.0), 0.25, 0.8, 25 / 16),
        ((7.0,), 1.0, 1.0, 1.0),
        ((2.0, 2.0, 2.0, 2.0), 0.0, 0.5, 4.0),
    ],
)
def test_planted_singular_values(values: tuple[float, ...], gap: float, ratio: float, rank: float):
    weights = with_singular_values(*values)
    for name, expected in zip(SPECTRUM, (gap, ratio, rank), strict=True):
        found = score(name, 10 * weights)
        assert found.shape == (6,)
        close(found, expected, 1e-7)


@pytest.mark.parametrize("name", SPECTRUM)
def test_a_weight_of_zeros_scores_zero_and_one_of_a_single_row_one(name: str):
    assert score(name, torch.zeros(3, 4)).tolist() == [0.0] * 3
    close(score(name, torch.randn(1, 4)), 1.0)


@pytest.mark.parametrize("name", ON_WEIGHTS)
def test_groups_of_a_convolution_are_matrices_of_their_own(name: str):
    grouped = nn.Conv2d(4, 6, 3, groups=2).double()
    found = Lens.from_name(name).analyse(grouped)["model"][name]
    for group in range(2):
        mine = slice(3 * group, 3 * group + 3)
        expected = score(name, grouped.weight.detach()[mine])
        # Rows of the other group count as partners, with a cosine of 0.
        factor = 2 / 5 if name == "weight_cosine_similarity" else 1
        close(found[mine], expected * factor)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3),
        nn.BatchNorm1d(3, affine=False),
    )


@pytest.mark.parametrize("name", ON_WEIGHTS)
def test_weights_need_no_batch(name: str):
    model, lens = network(), Lens.from_name(name)
    x = torch.randn(5, 2, 6, 6)
    with_batch = lens.run(model, [x, x], progress=False)
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    for result in (lens.analyse(model), lens.run(model, [], progress=False)):
        assert list(result) == list(with_batch) == ["0", "4"]
        assert all(torch.equal(result[n][name], with_batch[n][name]) for n in result)
        assert result.rows == {"0": 0, "4": 0}
    assert not calls
    assert list(Lens.from_name(name, layers="4").analyse(model)) == ["4"]


def test_a_composite_of_lenses_on_weights_needs_no_batch():
    model = network()
    lens = CompositeLens([Lens.from_name(name) for name in ON_WEIGHTS])
    for result in (lens.analyse(model), lens.run(model, [], progress=False)):
        assert set(result.score_names) == set(ON_WEIGHTS)
    result = lens.run(model, [], memory_budget="1 MiB", progress=False)
    assert set(result.score_names) == set(ON_WEIGHTS)


def test_whatever_reads_more_than_weights_needs_a_batch():
    model = network()
    both = CompositeLens([Lens.from_name("weight_magnitude"), Lens.from_name("activation_mean")])
    for lens in (Lens.from_name("rq"), both):
        with pytest.raises(InvalidValueError, match="no batch was given"):
            lens.analyse(model)
        with pytest.raises(InvalidValueError, match="has seen no batch yet"):
            lens.run(model, [], progress=False)


def test_a_share_of_a_stream_without_batches_stays_empty():
    """A rank that gets no batch must not add what only a pass shows of layers."""
    assert not Lens.from_name("weight_magnitude").measure(network(), [], progress=False).statistics


def test_infinite_weights_are_an_error_without_a_batch_too():
    model = network()
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="lens 'stable_rank': layer '0': 9 NaN"):
        Lens.from_name("stable_rank").analyse(model)


def normed() -> nn.Module:
    model = network()
    nn.init.normal_(model[1].weight)
    return model


def test_the_scale_of_the_norm_behind_a_layer_is_its_score():
    model, x = normed(), torch.randn(5, 2, 6, 6)
    for lens in (Lens.from_name("bn_scale"), CompositeLens([Lens.from_name("bn_scale")])):
        result = lens.run(model, [x, x], progress=False)
        # The last norm has no scale of its own.
        assert list(result) == ["0"]
        close(result["0"]["bn_scale"], model[1].weight.detach().abs().double())


class BackToFront(nn.Module):
    """Registered in an order that says nothing; one norm takes in a sum, another comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.of_b = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, 1)
        self.of_sum = nn.BatchNorm2d(4)
        self.first = nn.BatchNorm2d(4)
        self.a = nn.Conv2d(4, 4, 1)
        self.of_a = nn.BatchNorm2d(4)
        for norm in (self.of_a, self.of_b, self.of_sum, self.first):
            nn.init.normal_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        a = self.of_a(self.a(self.first(x)))
        b = self.of_b(self.b(torch.relu(a)))
        normed: Tensor = self.of_sum(a + b)
        return normed


def test_norms_are_found_by_the_order_of_the_pass():
    model, lens = BackToFront(), Lens.from_name("bn_scale")
    result = lens.analyse(model, torch.randn(3, 4, 2, 2))
    assert list(result) == ["a", "b"]
    for name, norm in (("a", model.of_a), ("b", model.of_b)):
        close(result[name]["bn_scale"], norm.weight.detach().abs().double())


def test_a_norm_is_known_without_a_batch_once_the_model_has_run():
    model, lens = normed(), Lens.from_name("bn_scale")
    with pytest.raises(InvalidValueError, match="only a pass shows which BatchNorm follows which"):
        lens.analyse(model)
    before = lens.analyse(model, torch.randn(5, 2, 6, 6))
    assert torch.equal(lens.analyse(model)["0"]["bn_scale"], before["0"]["bn_scale"])


def test_layers_without_a_norm_are_left_out_and_refused_by_name():
    x, model = torch.randn(5, 2, 6, 6), normed()
    both = CompositeLens([Lens.from_name("bn_scale"), Lens.from_name("weight_magnitude")])
    result = both.analyse(model, x)
    assert list(result["0"]) == ["bn_scale", "weight_magnitude"]
    assert list(result["4"]) == ["weight_magnitude"]
    with pytest.raises(LayerNotFoundError, match="layer '4' matches nothing; the layers are '0'"):
        Lens.from_name("bn_scale", layers="4").analyse(model, x)
    bare = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with pytest.raises(IncompatibleModelError, match="no BatchNorm with a scale takes in what"):
        Lens.from_name("bn_scale").analyse(bare, torch.randn(4, 3))
    with pytest.raises(InvalidValueError, match="followed by no BatchNorm with a scale"):
        get_metric("bn_scale").compute(weights=torch.randn(2, 3))


def test_a_channel_switched_off_by_its_norm_scores_zero():
    model = normed()
    model[1].weight.data[2] = 0
    model[0].weight.data[1] = 0
    scores = Lens.from_name("bn_scale").analyse(model, torch.randn(5, 2, 6, 6))["0"]["bn_scale"]
    assert scores[2] == 0 and scores[1] == model[1].weight[1].abs().double()
