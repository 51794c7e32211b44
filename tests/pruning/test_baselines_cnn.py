"""Published baselines for convolutional networks, against NumPy and on toys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens
from nodelens.errors import IncompatibleModelError, InvalidValueError, ShapeError
from nodelens.pruning import get_pruning_strategy
from nodelens.pruning.strategies.network_slimming import scale_penalty
from nodelens.statistics import ChannelIndependence, MapRanks, Sample
from nodelens.statistics.feature_maps import nuclear_norms
from tests.pruning.networks import array, caught, ffn, images, maps, rows, weights

CONVOLUTIONS = ["plain", "normed", "grouped"]


def feature_maps(name: str) -> np.ndarray:
    """What a ReLU makes of the layer's output, or of its norm's."""
    _, made = caught(maps(), "norm" if name == "normed" else name, images())
    return np.maximum(array(made), 0)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_hrank_is_the_mean_rank_of_the_maps_behind_norm_and_relu(name):
    found = get_pruning_strategy("hrank").scores(maps(), images())
    assert list(found) == CONVOLUTIONS
    wanted = np.linalg.matrix_rank(feature_maps(name)).mean(0)
    np.testing.assert_allclose(found[name].numpy(), wanted)


def test_hrank_of_maps_of_known_rank():
    eye, ones = torch.eye(4), torch.ones(4, 4)
    maps = torch.stack([torch.stack([eye, ones, 0 * ones]), torch.stack([ones, ones, 0 * ones])])
    found = MapRanks.measure(Sample(maps))
    assert found.rows == 2 and found.mean().tolist() == [2.5, 1.0, 0.0]


def independence(image: np.ndarray) -> np.ndarray:
    whole = image.reshape(len(image), -1)
    silent = [np.where(np.arange(len(whole))[:, None] == c, 0, whole) for c in range(len(whole))]
    norms = [np.linalg.norm(part, "nuc") for part in silent]
    return np.linalg.norm(whole, "nuc") - np.array(norms)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_chip_is_what_each_map_adds_to_the_nuclear_norm(name):
    found = get_pruning_strategy("chip").scores(maps(), images())
    wanted = np.mean([independence(image) for image in feature_maps(name)], 0)
    np.testing.assert_allclose(found[name].numpy(), wanted, rtol=1e-6, atol=1e-7)


def test_chip_of_copies_is_less_than_of_a_map_of_its_own():
    """Orthogonal maps add their own norm; of two copies each adds sqrt(2) - 1 of one."""
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[0.0, 3.0], [0.0, 0.0]])
    found = ChannelIndependence.measure(Sample(torch.stack([a, a, b])[None])).mean()
    torch.testing.assert_close(
        found, torch.tensor([2**0.5 - 1, 2**0.5 - 1, 3.0], dtype=torch.float64)
    )


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4)])
def test_nuclear_norms_are_sums_of_singular_values(shape):
    matrices = torch.randn(5, *shape, dtype=torch.float64)
    wanted = torch.linalg.svdvals(matrices).sum(1)
    torch.testing.assert_close(nuclear_norms(matrices), wanted)


def test_maps_are_those_of_two_dimensional_convolutions():
    with pytest.raises(ShapeError, match="feature maps"):
        get_pruning_strategy("hrank").score(nn.Linear(3, 2), torch.randn(5, 3))
    with pytest.raises(InvalidValueError, match=r"strategy 'chip'.*'head'"):
        get_pruning_strategy("chip").scores(maps(), images(), layers="head")
    with pytest.raises(IncompatibleModelError, match=r"strategy 'hrank'.*Ffn"):
        get_pruning_strategy("hrank").scores(ffn(), rows())


@pytest.mark.parametrize("alias", ["fpgm", "geometric_median"])
def test_fpgm_is_the_sum_of_distances_to_all_filters(alias):
    model = maps()
    w = weights(model, "normed").reshape(8, -1)
    wanted = np.linalg.norm(w[:, None] - w[None], axis=2).sum(1)
    found = get_pruning_strategy(alias).score(model.normed)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-7)
    mask = get_pruning_strategy(alias).prune(model.normed, amount=0.25)
    assert sorted(wanted.argsort()[:2].tolist()) == [i for i in range(8) if not bool(mask[i].any())]


def test_fpgm_of_a_filter_at_the_median_is_lowest():
    layer = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]]))
    assert get_pruning_strategy("fpgm").score(layer).tolist() == pytest.approx([6, 5, 9], rel=1e-7)


def test_network_slimming_is_the_size_of_the_norm_scale_under_one_threshold():
    model = maps()
    strategy = get_pruning_strategy("network_slimming")
    found = strategy.scores(model, images())
    assert list(found) == ["normed"]
    np.testing.assert_allclose(found["normed"].numpy(), np.abs(array(model.norm.weight)))
    lens = Lens.from_name("bn_scale").analyse(model, images()[0])
    torch.testing.assert_close(found["normed"], lens["normed"]["bn_scale"].double())
    assert strategy.distribution == "global_threshold"


def test_network_slimming_says_what_is_missing():
    with pytest.raises(IncompatibleModelError, match="no batch was given"):
        get_pruning_strategy("network_slimming").scores(maps())
    with pytest.raises(IncompatibleModelError, match="Ffn"):
        get_pruning_strategy("network_slimming").scores(ffn(), rows())


def test_scale_penalty_pulls_scales_to_zero():
    model = maps()
    found = scale_penalty(model, 0.5)
    assert float(found.detach()) == pytest.approx(0.5 * np.abs(array(model.norm.weight)).sum())
    found.backward()
    torch.testing.assert_close(model.norm.weight.grad, 0.5 * model.norm.weight.detach().sign())
    with pytest.raises(IncompatibleModelError, match="BatchNorm"):
        scale_penalty(ffn())


def squared_correlation(values: np.ndarray) -> np.ndarray:
    squares = np.corrcoef(values.T) ** 2
    np.fill_diagonal(squares, 0)
    return squares.sum(1) / (len(squares) - 1)


def test_outred_is_minus_the_mean_squared_correlation():
    model = maps()
    found = get_pruning_strategy("outred").scores(model, images())
    for name in CONVOLUTIONS:
        _, made = caught(model, name, images())
        values = array(made).transpose(0, 2, 3, 1).reshape(-1, made.shape[1])
        np.testing.assert_allclose(found[name].numpy(), -squared_correlation(values), rtol=1e-8)


def test_outred_removes_a_copy_first_and_leaves_a_constant():
    torch.manual_seed(0)
    base = torch.randn(200, 1)
    outputs = torch.cat([base, 2 * base, torch.randn(200, 1), torch.ones(200, 1)], 1)
    found = get_pruning_strategy("outred").score(nn.Linear(3, 4), outputs=outputs)
    assert set(found.argsort()[:2].tolist()) == {0, 1} and float(found[3]) == 0


@pytest.mark.parametrize("name", ["hrank", "chip", "outred", "fpgm"])
def test_a_stream_in_parts_and_alone_give_the_same(name: str):
    model, whole = maps(), [(torch.cat([x for x, _ in images()]), None)]
    strategy = get_pruning_strategy(name)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    parts, once = strategy.scores(model, images()), strategy.scores(model, [whole[0][0]])
    for layer, score in parts.items():
        torch.testing.assert_close(score, once[layer], rtol=1e-8, atol=1e-9)
        inputs, _ = caught(model, layer, whole)
        if layer != "normed":  # a layer alone does not know its norm until a pass was seen
            alone: Tensor = strategy.score(model.get_submodule(layer), inputs)
            torch.testing.assert_close(score, alone.double(), rtol=1e-8, atol=1e-9)
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
